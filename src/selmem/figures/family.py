"""Figures that set the sizes of a family of models side by side.

Every table has the model's size in a column `size`; its order is that of the rows.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from selmem.analysis.curves import POSITION_BINS
from selmem.analysis.measurements import POOLED
from selmem.figures.bars import MARGIN, counts, name_rows
from selmem.figures.curves import all_words
from selmem.figures.forest import dots_of_series, marker_key, series_shift
from selmem.figures.style import (
    BLACK,
    GREY,
    canvas,
    curve,
    keep_in_view,
    length_axis,
    percent,
)
from selmem.tables import length_name

_ROW = 0.30  # inches


def by_size(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each size."""
    return {str(size): part for size, part in table.groupby("size", sort=False)}


def retention(omission: pd.DataFrame, common_words: pd.DataFrame, *, title: str) -> Figure:
    """Draw what comes back against length: of all words, and of the same words at every length.

    Args:
        omission: rows of `omission` over all sources.
        common_words: rows of `common_words` over all sources.
        title: of the figure.
    """
    words = all_words(omission)
    panels = (
        (words, "retained_over_chance", "words retained over chance"),
        (words, "recovered_fraction", "null bits recovered"),
        (common_words, "recovered_fraction", "null bits recovered, same words"),
    )
    with canvas(len(panels), height=3.7, title=title, sharey=True) as (figure, axes):
        for axis, (table, name, label) in zip(axes, panels, strict=True):
            table = table[table["length"] > 0].sort_values("length", kind="stable")
            for i, size in enumerate(dict.fromkeys(omission["size"])):
                part = table[table["size"] == size]
                curve(axis, part, "length", name, label=size, index=i)
            axis.set_title(label, fontsize=9.5)
            length_axis(axis, sorted({int(n) for n in table["length"]}))
            axis.set_xlabel("chunk length (tokens)")
        axes[0].set_ylim(top=1.02)
        percent(axes[0])
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def loss_by_row(
    table: pd.DataFrame,
    rows_column: str,
    order: Sequence[str],
    *,
    length: int,
    title: str,
    breaks: Sequence[int] = (),
) -> Figure:
    """Draw omission, beside chance, and recovered bits of classes or sources.

    Args:
        table: rows of `omission` under the rule count.
        rows_column: tag or source.
        order: the rows, from the bottom up.
        length: of the chunks.
        title: of the figure.
        breaks: rows below which a line is drawn.
    """
    order = list(order)
    series = by_size(table[(table["length"] == length) & table[rows_column].isin(order)])
    rows = list(series.values())
    with canvas(2, height=MARGIN + _ROW * len(order), title=title, sharey=True) as (figure, axes):
        for axis, name in zip(axes, ("omission_rate", "recovered_fraction"), strict=True):
            dots_of_series(axis, rows, rows_column, name, order)
            percent(axis, axis="x")
        _chance(axes[0], rows, rows_column, order)
        axes[0].set_xlim(0, 1.02)
        axes[0].set_xlabel(f"words not recovered, {length_name(length)}")
        axes[1].set_xlabel(f"null bits recovered, {length_name(length)}")
        keep_in_view(axes[1], pd.concat(rows), "recovered_fraction")
        counts(axes[1], rows[0].set_index(rows_column).reindex(order), "n_words")
        name_rows(axes, order)
        for axis, place in product(axes, breaks):
            axis.axhline(place - 0.5, color=GREY, lw=0.6)
        chance = Line2D([], [], ls="", marker="|", ms=8, mew=1.5, color=GREY, label="by chance")
        key = [*marker_key(list(series)), chance]
        figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    return figure


def _chance(
    axes: Axes, series: Sequence[pd.DataFrame], rows_column: str, order: Sequence[str]
) -> None:
    for i, part in enumerate(series):
        chance = part.set_index(rows_column)["chance_rate"].reindex(list(order))
        places = np.arange(len(order)) + series_shift(i, len(series))
        axes.plot(chance, places, ls="", marker="|", ms=5, mew=1.5, color=GREY)


def positions(table: pd.DataFrame, lengths: Sequence[int], *, title: str) -> Figure:
    """Draw the recovered fraction along the chunk, one panel per length.

    Args:
        table: rows of `positions` over all sources, of the scale relative.
        lengths: of the panels.
        title: of the figure.
    """
    with canvas(len(lengths), height=3.5, title=title, sharey=True) as (figure, axes):
        for axis, length in zip(axes, lengths, strict=True):
            rows = table[table["length"] == length]
            rows = rows.assign(place=(rows["position"] + 0.5) / POSITION_BINS)
            for i, (size, part) in enumerate(by_size(rows).items()):
                curve(axis, part, "place", "recovered_fraction", label=size, index=i)
            axis.set_title(length_name(length))
            axis.set_xlabel("position in the chunk")
            axis.set_xlim(0, 1)
            percent(axis, axis="x")
        axes[0].set_ylabel("null bits recovered")
        percent(axes[0])
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def claims(verdicts: pd.DataFrame, statements: Mapping[str, str], *, title: str) -> Figure:
    """Draw each claim's effect by the paper's measure and on bits, positive where it holds.

    Args:
        verdicts: one row for each claim and size.
        statements: what the rows are called, from the top down.
        title: of the figure.
    """
    effects: Mapping[str, tuple[str | None, ...]] = {
        "by_paper": ("ours_paper_rule", None, None),
        "by_bits": ("ours_controlled", "ci_low", "ci_high"),
    }
    for name, columns in effects.items():
        for end, column in zip(("", "_low", "_high"), columns, strict=True):
            verdicts = verdicts.assign(**{name + end: verdicts[column] if column else np.nan})
    is_rank = verdicts["measure"].str.contains("correlation")
    blocks = [(verdicts[~is_rank], 100.0, "points"), (verdicts[is_rank], 1.0, "rank correlation")]
    blocks = [block for block in blocks if len(block[0])]
    orders = [
        [c for c in reversed(list(statements)) if c in set(rows["claim"])] for rows, *_ in blocks
    ]
    n_rows = [len(order) for order in orders]
    height = MARGIN + 0.7 + 0.36 * sum(n_rows)
    grid = {"height_ratios": [n + 0.8 for n in n_rows]}
    with canvas(2, height=height, title=title, **grid) as (figure, axes):
        for line, ((rows, scale, unit), order) in enumerate(zip(blocks, orders, strict=True)):
            pair = axes[2 * line : 2 * line + 2]
            named = [statements[claim] for claim in order]
            _claim_panels(pair, rows, order, named, scale=scale, unit=unit)
        axes[0].set_title("by the paper's measure")
        axes[1].set_title("by bits not recovered")
        key = marker_key(list(dict.fromkeys(verdicts["size"])))
        figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    return figure


def _claim_panels(
    pair: Sequence[Axes],
    rows: pd.DataFrame,
    order: Sequence[str],
    named: Sequence[str],
    *,
    scale: float,
    unit: str,
) -> None:
    columns = [f"{name}{end}" for name in ("by_paper", "by_bits") for end in ("", "_low", "_high")]
    rows = rows.assign(**{name: scale * rows[name] for name in columns})
    for axis, name in zip(pair, ("by_paper", "by_bits"), strict=True):
        dots_of_series(axis, list(by_size(rows).values()), "claim", name, order)
        axis.axvline(0, color=BLACK, lw=0.9)
        axis.set_xlabel(unit)
    name_rows(pair, named)
    pair[1].set_ylim(pair[0].get_ylim())
    pair[1].set_yticks(np.arange(len(order)), [""] * len(order))


def outcomes(
    panels: Sequence[tuple[pd.DataFrame, str, str, float]], rows_column: str, *, title: str
) -> Figure:
    """Draw rows with intervals in panels that each have their own rows.

    Args:
        panels: table with `rows_column`, the column that is drawn, its label, and what it is
            multiplied by.
        rows_column: what a row is.
        title: of the figure.
    """
    n_rows = max(table[rows_column].nunique() for table, *_ in panels)
    with canvas(len(panels), height=MARGIN + 0.36 * n_rows, title=title) as (figure, axes):
        for axis, (table, name, label, scale) in zip(axes, panels, strict=True):
            ends = {n: scale * table[n] for n in (name, "ci_low", "ci_high")}
            order = list(reversed(list(dict.fromkeys(table[rows_column]))))
            series = by_size(table.assign(**ends))
            dots_of_series(axis, list(series.values()), rows_column, name, order)
            axis.axvline(0, color=BLACK, lw=0.9)
            name_rows([axis], order)
            axis.set_xlabel(label)
        key = marker_key(list(dict.fromkeys(pd.concat([t for t, *_ in panels])["size"])))
        figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    return figure


def class_order(table: pd.DataFrame, *, n_entities: int = 8) -> tuple[list[str], list[str]]:
    """Return entities, and parts of speech, each from the least to the most omitted.

    Entities are the most frequent ones, without the lower-case types of GUM, whose mentions are not
    only names.

    Args:
        table: rows of `omission` over all sources under the rule count, of one length.
        n_entities: at most.
    """
    orders = []
    for scheme, most in (("entity", n_entities), ("pos", None)):
        rows = table[(table["scheme"] == scheme) & ~table["tag"].str.islower()]
        means = rows.groupby("tag").agg(n=("n_words", "sum"), rate=("omission_rate", "mean"))
        kept = means.sort_values("n", ascending=False).head(most or len(means))
        orders.append([str(tag) for tag in kept.sort_values("rate").index])
    return orders[0], orders[1]


def source_order(table: pd.DataFrame) -> list[str]:
    """Return the sources from the least to the most recovered, as a mean over sizes."""
    rows = all_words(table)
    rows = rows[rows["source"] != POOLED]
    return [str(x) for x in rows.groupby("source")["recovered_fraction"].mean().sort_values().index]
