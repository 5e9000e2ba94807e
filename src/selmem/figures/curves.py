"""Lines with interval bands: by length, position, layer, perplexity and confidence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from selmem.analysis.curves import POSITION_BINS
from selmem.figures.style import GREY, LINES, MARKERS, canvas, curve, length_axis, percent, pick
from selmem.tables import RULES, length_name

_RETENTION: Mapping[str, str] = {
    "words_recovered": "words recovered (1 - omission, count)",
    "tokens_in_place": "tokens in the right place",
    "rouge1_f1": "ROUGE-1 F1",
    "retained_over_chance": "words retained over chance",
    "recovered_fraction": "null bits recovered",
}


def all_words(omission: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `omission` over all whole words under the rule count."""
    of_all = (omission["scheme"] == "all") & (omission["tag"] == "whole")
    return omission[of_all & (omission["rule"] == "count")]


def retention_by_length(omission: pd.DataFrame, lengths: pd.DataFrame, *, title: str) -> Figure:
    """Draw what comes back against chunk length, under each measure.

    Args:
        omission: rows of `omission` of one source.
        lengths: rows of `lengths` of the same source.
        title: of the figure.
    """
    words = all_words(omission)
    words = words.assign(
        words_recovered=1 - words["omission_rate"],
        words_recovered_low=1 - words["ci_high"],
        words_recovered_high=1 - words["ci_low"],
    )
    with canvas(height=3.9, title=title) as (figure, (axes,)):
        for i, (name, label) in enumerate(_RETENTION.items()):
            table = words if name in words else lengths
            table = table[table["length"] > 0].sort_values("length")
            if len(table) and table[name].notna().any():
                curve(axes, table, "length", name, label=label, index=i)
        shown = lengths[lengths["length"] > 0].sort_values("length")
        length_axis(axes, [int(n) for n in shown["length"]])
        n_documents = shown["n_documents"]
        axes.set_xlabel(
            f"chunk length (tokens); {n_documents.min()} to {n_documents.max()} documents"
        )
        axes.set_ylabel("share that comes back")
        axes.set_ylim(top=1.02)
        percent(axes)
        figure.legend(loc="outside right center")
    return figure


def common_words(table: pd.DataFrame, *, title: str) -> Figure:
    """Draw what comes back of the same words in chunks of different lengths.

    Args:
        table: rows of `common_words` of one source.
        title: of the figure.
    """
    table = table.sort_values("length")
    with canvas(height=3.4, title=title) as (figure, (axes,)):
        for i, rule in enumerate(RULES):
            name = f"omission_{rule}"
            back = pd.DataFrame(
                {
                    "length": table["length"],
                    name: 1 - table[name],
                    f"{name}_low": 1 - table[f"{name}_high"],
                    f"{name}_high": 1 - table[f"{name}_low"],
                }
            )
            curve(axes, back, "length", name, label=f"words recovered ({rule})", index=i)
        if table["recovered_fraction"].notna().any():
            label = "null bits recovered"
            curve(axes, table, "length", "recovered_fraction", label=label, index=4)
        length_axis(axes, [int(n) for n in table["length"]])
        n_words, n_documents = int(table["n_words"].min()), int(table["n_documents"].min())
        axes.set_xlabel(f"chunk length (tokens); {n_words:,} words of {n_documents} documents")
        axes.set_ylabel("share that comes back")
        axes.set_ylim(top=1.02)
        percent(axes)
        figure.legend(loc="outside right center")
    return figure


def recovered_by_model(omission: pd.DataFrame, *, title: str) -> Figure | None:
    """Draw recovered fraction and omission of several models against length.

    Args:
        omission: rows of `omission` of one source, with the model's name in `model`.
        title: of the figure.
    """
    words = all_words(omission)
    words = words[words["length"] > 0].sort_values("length")
    if words["model"].nunique() < 2:
        return None
    panels = {"omission_rate": "words omitted (count)", "recovered_fraction": "null bits recovered"}
    with canvas(2, height=3.6, title=title) as (figure, axes):
        for axis, (name, label) in zip(axes, panels.items(), strict=True):
            for i, (model, part) in enumerate(words.groupby("model", sort=False)):
                own = str(model) if name == "omission_rate" else "_"
                curve(axis, part, "length", name, label=own, index=i)
            length_axis(axis, sorted({int(n) for n in words["length"]}))
            axis.set_ylabel(label)
            percent(axis)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def by_position(table: pd.DataFrame, *, title: str) -> Figure | None:
    """Draw forced omission and recovered fraction along the chunk, one line per length.

    Args:
        table: rows of `positions` of one source.
        title: of the figure.
    """
    lengths = pick(table.loc[table["length"] > 4, "length"].unique(), 5)
    if not lengths:
        return None
    panels = {
        "forced_omission_rate": "tokens missed, true prefix given",
        "recovered_fraction": "null bits recovered",
    }
    panels = {name: label for name, label in panels.items() if table[name].notna().any()}
    with canvas(len(panels), height=3.7, title=title) as (figure, axes):
        for axis, (name, label) in zip(axes, panels.items(), strict=True):
            for i, length in enumerate(lengths):
                rows = table[(table["length"] == length) & (table["scale"] == "relative")]
                rows = rows.assign(place=(rows["position"] + 0.5) / POSITION_BINS)
                named = f"{length_name(length)} (n = {rows['n_tokens'].sum():,})"
                named = named if axis is axes[0] else "_"
                curve(axis, rows, "place", name, label=named, index=i)
                early = table[
                    (table["length"] == length) & (table["scale"] == "relative_without_last_4")
                ]
                _open_markers(axis, early, name, i)
            axis.set_xlabel("position in the chunk")
            axis.set_xlim(0, 1)
            axis.set_ylabel(label)
            percent(axis)
            percent(axis, axis="x")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _open_markers(axes: Axes, early: pd.DataFrame, name: str, index: int) -> None:
    """Mark the bins again without the last four positions, where that changes them."""
    places = (early["position"] + 0.5) / POSITION_BINS
    axes.plot(
        places,
        early[name],
        ls="",
        marker=MARKERS[index % len(MARKERS)],
        ms=8,
        mfc="none",
        mec=LINES[index % len(LINES)],
        mew=0.8,
    )


def by_perplexity(table: pd.DataFrame, correlations: pd.DataFrame, *, title: str) -> Figure | None:
    """Draw omission by the encoder's perplexity of the chunk, with the number of chunks below.

    Args:
        table: rows of `perplexity` of one source.
        correlations: rows of `correlations` of the same source.
        title: of the figure.
    """
    table = table[table["omission_count"].notna() & (table["scale"] == "half octaves")]
    table = table[table["n_chunks"] >= 3]
    lengths = pick(table["length"].unique())
    if not lengths:
        return None
    rank = correlations[
        (correlations["predictor"] == "encoder perplexity")
        & (correlations["outcome"] == "omission_count")
    ].set_index("length")
    with canvas(len(lengths), height=4.0, title=title, **_STRIPS) as (figure, axes):
        strips = axes[len(lengths) :]
        for axis, strip, length in zip(axes, strips, lengths, strict=False):
            rows = table[table["length"] == length]
            rows = rows.assign(middle=rows["perplexity_from"] * 2**0.25)
            curve(axis, rows, "middle", "omission_count", label="count", index=0)
            curve(axis, rows, "middle", "omission_aligned", label="aligned", index=1)
            widths = rows["perplexity_from"] * 0.36
            _histogram(strip, rows["middle"], rows["n_chunks"], width=widths)
            _log_axis(strip, float(rows["middle"].max() / rows["middle"].min()))
            heading = length_name(length)
            if length in rank.index:
                found = rank.loc[length]
                heading += f"\nrank corr. {found['correlation']:+.2f}"
                if np.isfinite(found["ci_low"]):
                    heading += f" [{found['ci_low']:+.2f}, {found['ci_high']:+.2f}]"
            axis.set_title(heading, fontsize=9.5)
            strip.set_xlabel("encoder's perplexity of the chunk")
            percent(axis)
        axes[0].set_ylabel("words omitted")
        strips[0].set_ylabel("chunks")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _log_axis(axes: Axes, ratio: float) -> None:
    """Make x logarithmic, with few enough ticks to read over a range of this ratio."""
    axes.set_xscale("log")
    subs = (1, 2, 5) if ratio < 50 else (1, 3) if ratio < 500 else (1,)
    axes.xaxis.set_major_locator(LogLocator(10, subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.minorticks_off()


def _short(x: float) -> str:
    return next(
        (f"{x / size:g}{unit}" for size, unit in ((1e6, "M"), (1e3, "k")) if x >= size), f"{x:g}"
    )


# a row of histograms below the panels: how many rows each point stands for
_STRIPS: Mapping[str, Any] = {"height_ratios": (5, 1), "sharex": "col", "sharey": "row"}


def _histogram(
    strip: Axes, places: pd.Series, counts: pd.Series, *, width: float | pd.Series
) -> None:
    strip.bar(places, counts, width=width, color=GREY, alpha=0.5)
    strip.yaxis.set_major_locator(MaxNLocator(2, integer=True))


def calibration(table: pd.DataFrame, *, title: str) -> Figure | None:
    """Draw how often the probe is right against how sure it is, one panel per length.

    Args:
        table: rows of `calibration` of one source.
        title: of the figure.
    """
    lengths = pick(table["length"].unique()) if len(table) else []
    if not lengths:
        return None
    with canvas(len(lengths), height=4.2, title=title, **_STRIPS) as (figure, axes):
        strips = axes[len(lengths) :]
        for axis, strip, length in zip(axes, strips, lengths, strict=False):
            rows = table[table["length"] == length]
            axis.plot((0, 1), (0, 1), color=GREY, lw=1, ls="--")
            curve(axis, rows, "confidence", "accuracy", label="probe", index=0)
            _histogram(strip, rows["confidence_from"] + 0.05, rows["n_tokens"], width=0.09)
            error = rows["calibration_error"].iloc[0]
            axis.set_title(f"{length_name(length)}\ncalibration error {error:.1%}", fontsize=9.5)
            strip.set_xlabel("probability given to the best guess")
            axis.set_xlim(0, 1)
            axis.set_ylim(0, 1.02)
            percent(axis)
            percent(strip, axis="x")
        axes[0].set_ylabel("best guess is right")
        strips[0].set_ylabel("tokens")
        figure.align_ylabels()
    return figure


def controls_by_layer(table: pd.DataFrame, *, title: str) -> Figure | None:
    """Draw the bits that one layer's foreign state costs, by layer.

    Args:
        table: rows of `controls` of one source.
        title: of the figure.
    """
    layers = table[table["layer"] >= 0]
    if layers["layer"].nunique() < 2:
        return None
    kinds = layers["condition"].str.replace(r"[_ ]?layer_?\d+[_ ]?", " ", regex=True).str.strip()
    lengths = pick(layers["length"].unique())
    with canvas(len(lengths), height=3.4, title=title, sharey=True) as (figure, axes):
        for axis, length in zip(axes, lengths, strict=True):
            for i, kind in enumerate(kinds.unique()):
                rows = layers[(layers["length"] == length) & (kinds == kind)].sort_values("layer")
                named = (str(kind) or "layer") if axis is axes[0] else "_"
                curve(axis, rows, "layer", "bits_more_than_probe", label=named, index=i)
            axis.set_title(length_name(length))
            axis.set_xlabel("layer whose state is replaced")
            axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes[0].set_ylabel("bits per token lost by it")
        figure.legend(loc="outside lower center", ncols=4)
    return figure
