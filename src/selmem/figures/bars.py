"""Bars by class, each with its interval, its count and what chance alone would give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from selmem.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    canvas,
    interval_ends,
    limits,
    percent,
    pick,
)
from selmem.statistics import MIN_DOCUMENTS_INTERVAL
from selmem.tables import length_name

TAG_NAMES = {"O": "no entity"}
ROW = 0.29  # inches per bar
MARGIN = 1.45  # inches for title, axis and legend


def omission_by_tag(table: pd.DataFrame, *, rule: str, title: str) -> Figure | None:
    """Draw bars of omission by tag, a diamond at the chance level, one panel per length.

    Args:
        table: rows of `omission` of one scheme and source.
        rule: count, aligned or forced.
        title: of the figure.
    """
    rows = table[table["rule"] == rule]
    if not len(rows):
        return None
    lengths = pick(rows["length"].unique())
    order = tag_order(rows[rows["length"].isin(lengths)], "omission_rate")
    height = MARGIN + ROW * len(order)
    with canvas(len(lengths), height=height, title=title, sharey=True) as (figure, axes):
        for panel, length in zip(axes, lengths, strict=True):
            part = rows[rows["length"] == length].set_index("tag").reindex(order).reset_index()
            _bars(panel, part)
            panel.set_title(length_name(length))
            panel.set_xlabel("words not recovered")
        name_rows(axes, order)
        key = [
            Patch(color=BLUE, label=f"omission (rule: {rule})"),
            Line2D([], [], ls="", marker="D", mfc="white", mec=BLACK, label="by chance"),
            Line2D([], [], color=BLACK, lw=1.4, label="95 % interval (documents)"),
        ]
        figure.legend(handles=key, loc="outside lower center", ncols=3)
    return figure


def _bars(axes: Axes, part: pd.DataFrame) -> None:
    places = np.arange(len(part))
    value = part["omission_rate"].to_numpy(dtype=float)
    axes.barh(places, np.nan_to_num(value), height=0.68, color=BLUE)
    known = np.isfinite(limits(part, "omission_rate")[0])
    below, above = interval_ends(part[known], "omission_rate")
    axes.errorbar(
        value[known], places[known], xerr=(below, above), fmt="none", ecolor=BLACK, lw=1.4
    )
    chance = part["chance_rate"].to_numpy(dtype=float)
    axes.plot(chance, places, ls="", marker="D", ms=4.5, mfc="white", mec=BLACK, zorder=4)
    counts(axes, part, "n_words")
    axes.set_xlim(0, 1.02)
    percent(axes, axis="x")


def counts(axes: Axes, part: pd.DataFrame, name: str, *, heading: str = "n") -> None:
    """Write the count of each row at the right edge, and where documents are too few."""
    for place, (n, n_documents) in enumerate(zip(part[name], part["n_documents"], strict=True)):
        if np.isfinite(n):
            few = f" ({n_documents:.0f} docs)" if n_documents < MIN_DOCUMENTS_INTERVAL else ""
            axes.annotate(
                f"{n:,.0f}{few}",
                (1.0, place),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=GREY,
                annotation_clip=False,
            )
    axes.annotate(
        heading,
        (1.0, 1.0),
        xycoords="axes fraction",
        xytext=(3, 2),
        textcoords="offset points",
        fontsize=7.5,
        color=GREY,
    )


def name_rows(panels: Sequence[Axes], order: Sequence[str]) -> None:
    """Label the rows of the first panel from the bottom up; take their grid from all."""
    panels[0].set_yticks(np.arange(len(order)), [TAG_NAMES.get(tag, tag) for tag in order])
    panels[0].set_ylim(-0.6, len(order) - 0.4)
    for panel in panels:
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)


def tag_order(rows: pd.DataFrame, name: str) -> list[str]:
    """Return the tags from the smallest to the largest mean over lengths."""
    return [str(tag) for tag in rows.groupby("tag")[name].mean().sort_values().index]


def bits_by_length(table: pd.DataFrame, *, title: str) -> Figure | None:
    """Draw bits per token under null probe, encoder and probe, by length.

    Args:
        table: rows of `bits` of one source.
        title: of the figure.
    """
    rows = table[(table["positions"] == "all")].sort_values("length").reset_index(drop=True)
    series = {
        "null_bits": ("null probe (knows no state)", ORANGE),
        "base_bits": ("encoder from an empty state", SKY),
        "probe_bits": ("probe (reads the state)", BLUE),
    }
    shown = {name: look for name, look in series.items() if rows[name].notna().any()}
    if not len(rows):
        return None
    with canvas(height=3.4, title=title) as (figure, (axes,)):
        for i, (name, (label, colour)) in enumerate(shown.items()):
            places = np.arange(len(rows)) + (i - (len(shown) - 1) / 2) * 0.27
            values = rows[name].to_numpy(dtype=float)
            axes.bar(places, values, width=0.25, color=colour, label=label)
            ends = interval_ends(rows, name)
            axes.errorbar(places, values, yerr=ends, fmt="none", ecolor=BLACK, lw=1.3)
            for place, value, end in zip(places, values, ends[1], strict=True):
                _write(axes, f"{value:.2f}", (place, value + end), 2, fontsize=7.5, color=GREY)
        for place, (_, row) in enumerate(rows.iterrows()):
            _note_bits(axes, place, row, float(np.nanmax(row[list(shown)].to_numpy(dtype=float))))
        axes.margins(y=0.22)
        names = [
            f"{length_name(n)}\nn = {count:,}"
            for n, count in zip(rows["length"], rows["n_tokens"], strict=True)
        ]
        axes.set_xticks(np.arange(len(rows)), names)
        axes.set_ylabel("bits per token")
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _note_bits(axes: Axes, place: int, row: pd.Series, top: float) -> None:
    fraction = float(row["recovered_fraction"])
    lines = [f"{fraction:.1%} recovered"] if np.isfinite(fraction) else []
    if row["null_undertrained"]:
        lines.append("null under-trained")
    colour = VERMILLION if row["null_undertrained"] else BLACK
    _write(axes, "\n".join(lines), (place, top), 15, fontsize=8.5, color=colour)


def _write(axes: Axes, text: str, where: tuple[float, float], above: float, **look: Any) -> None:
    """Write `text` centred `above` points over a place in data coordinates."""
    axes.annotate(text, where, xytext=(0, above), textcoords="offset points", ha="center", **look)
