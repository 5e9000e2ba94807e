"""Dots with intervals, one row each: classes, sources, controls, fates, effects, pairs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from selmem.analysis.regression_model import MODELS
from selmem.figures.bars import MARGIN, counts, name_rows, tag_order
from selmem.figures.style import (
    BLACK,
    GREY,
    LINES,
    MARKERS,
    canvas,
    interval_ends,
    keep_in_view,
    limits,
    percent,
    pick,
    points,
)
from selmem.tables import length_name

_ROW = 0.25  # inches per row


def recovered_by_tag(table: pd.DataFrame, schemes: Sequence[str], *, title: str) -> Figure | None:
    """Draw the recovered fraction by class of several schemes, one panel per length.

    Args:
        table: rows of `omission` of one source.
        schemes: drawn below one another.
        title: of the figure.
    """
    rows = table[(table["rule"] == "count") & table["recovered_fraction"].notna()]
    overall = rows[(rows["scheme"] == "all") & (rows["tag"] == "whole")].set_index("length")
    rows = rows[rows["scheme"].isin(schemes)]
    if not len(rows):
        return None
    lengths = pick(rows["length"].unique())
    rows = rows[rows["length"].isin(lengths)]
    order = [
        (scheme, tag)
        for scheme in reversed(schemes)
        for tag in tag_order(rows[rows["scheme"] == scheme], "recovered_fraction")
    ]
    height = MARGIN + _ROW * len(order)
    with canvas(len(lengths), height=height, title=title, sharey=True) as (figure, axes):
        for panel, length in zip(axes, lengths, strict=True):
            part = rows[rows["length"] == length].set_index(["scheme", "tag"]).reindex(list(order))
            part = part.reset_index()
            for i, scheme in enumerate(schemes):
                dots(panel, part, part["scheme"] == scheme, "recovered_fraction", index=i)
            panel.axvline(
                float(overall["recovered_fraction"].get(length, np.nan)), color=GREY, lw=1, ls="--"
            )
            keep_in_view(panel, part[part["recovered_fraction"].notna()], "recovered_fraction")
            counts(panel, part, "n_words")
            panel.set_title(length_name(length))
            panel.set_xlabel("null bits recovered")
            percent(panel, axis="x")
        name_rows(axes, [tag for _, tag in order])
        names = {"pos": "part of speech", "entity": "entity", "kind": "kind of token"}
        key = marker_key([names.get(scheme, scheme) for scheme in schemes])
        key.append(Line2D([], [], color=GREY, ls="--", label="all words"))
        figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    return figure


def dots(
    axes: Axes,
    part: pd.DataFrame,
    wanted: pd.Series,
    name: str,
    *,
    index: int = 0,
    shift: float = 0.0,
) -> None:
    """Draw the wanted rows of `part` at their own height; hollow where there is no interval."""
    mine = wanted.to_numpy(dtype=bool) & part[name].notna().to_numpy()
    bare = mine & ~np.isfinite(limits(part, name)[0])
    values = part[name].to_numpy(dtype=float)
    colour, marker = LINES[index % len(LINES)], MARKERS[index % len(MARKERS)]
    axes.errorbar(
        values[mine],
        np.flatnonzero(mine) + shift,
        xerr=interval_ends(part[mine], name),
        fmt=marker,
        color=colour,
        ms=5,
        elinewidth=1.4,
    )
    axes.plot(
        values[bare],
        np.flatnonzero(bare) + shift,
        ls="",
        marker=marker,
        mfc="white",
        mec=colour,
        zorder=3,  # above the filled markers
    )


def marker_key(labels: Sequence[str]) -> list[Line2D]:
    """Return the legend of series that are drawn by `dots`."""
    return [
        Line2D(
            [], [], ls="", marker=MARKERS[i % len(MARKERS)], color=LINES[i % len(LINES)], label=x
        )
        for i, x in enumerate(labels)
    ]


def by_length(
    table: pd.DataFrame,
    rows_column: str,
    name: str,
    order: Sequence[str],
    *,
    title: str,
    xlabel: str,
    unit: Literal["percent", "points", "plain"] = "plain",
    n_column: str | None = None,
    names: Mapping[str, str] | None = None,
) -> Figure | None:
    """Draw one row per value of `rows_column`, one colour per length.

    Args:
        table: one row per value and length, with `name` and its interval.
        rows_column: what a row of the figure is.
        name: what is drawn.
        order: the rows, from the bottom up.
        title: of the figure.
        xlabel: of its x axis.
        unit: of the x axis; points also draws a line at 0.
        n_column: count to write at the right edge, of the length with the most.
        names: labels of the rows, where they differ from the values.
    """
    table = table[table[rows_column].isin(order) & table[name].notna()]
    if not len(table):
        return None
    lengths = pick(table["length"].unique(), 5)
    order = [value for value in order if (table[rows_column] == value).any()]
    most = lengths[0]
    if n_column:
        most = max(lengths, key=lambda n: float(table.loc[table["length"] == n, n_column].sum()))
    height = MARGIN + max(_ROW, 0.11 * len(lengths)) * len(order)
    series = {length_name(n): table[table["length"] == n] for n in lengths}
    with canvas(height=height, title=title) as (figure, (axes,)):
        dots_of_series(axes, list(series.values()), rows_column, name, order)
        if n_column:
            heading = f"n ({length_name(most)})" if len(lengths) > 1 else "n"
            part = series[length_name(most)].set_index(rows_column).reindex(order).reset_index()
            counts(axes, part, n_column, heading=heading)
        keep_in_view(axes, table, name)
        if unit == "points" or table[name].min() < 0:
            axes.axvline(0, color=BLACK, lw=0.9)
        name_rows([axes], [(names or {}).get(value, value) for value in order])
        axes.set_xlabel(xlabel)
        if unit == "percent":
            percent(axes, axis="x")
        elif unit == "points":
            points(axes)
        key = marker_key(list(series))
        figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    return figure


def dots_of_series(
    axes: Axes,
    series: Sequence[pd.DataFrame],
    rows_column: str,
    name: str,
    order: Sequence[str],
) -> None:
    """Draw several tables into the same rows, the first of them highest in each row.

    Args:
        axes: whose y is the place in `order`.
        series: tables of one row for each value of `rows_column`, with `name` and its interval.
        rows_column: what a row of the figure is.
        name: what is drawn.
        order: the rows, from the bottom up.
    """
    for i, table in enumerate(series):
        part = table.set_index(rows_column).reindex(list(order))
        everything = pd.Series(data=True, index=part.index)
        shift = series_shift(i, len(series))
        dots(axes, part.reset_index(), everything, name, index=i, shift=shift)


def series_shift(index: int, n_series: int) -> float:
    """Return how far above the middle of its row a series is drawn."""
    return 0.72 * (0.5 - (index + 0.5) / n_series)


def effects_by_tag(table: pd.DataFrame, *, title: str) -> Figure | None:
    """Draw what the class of a word explains, raw and after each set of covariates.

    The model that takes tokens for independent is left to the tables.

    Args:
        table: rows of `effects` of one subset of words.
        title: of the figure.
    """
    table = table[table["model"] != MODELS[0]]
    if not len(table):
        return None
    parts = [part for _, part in table.groupby("model", sort=False)]
    first = parts[0].sort_values("raw_difference")
    order = list(first["tag"])
    with canvas(height=MARGIN + 0.36 * len(order), title=title) as (figure, (axes,)):
        raw = first["raw_difference"].to_numpy(dtype=float)
        axes.plot(raw, np.arange(len(order)) + 0.27, ls="", marker="o", mfc="white", mec=BLACK)
        for i, own in enumerate(parts):
            part = own.set_index("tag").reindex(order).reset_index()
            shift = 0.27 - 0.18 * (i + 1)
            dots(axes, part, part["effect"].notna(), "effect", index=i, shift=shift)
        counts(axes, first, "n_words")
        axes.axvline(0, color=BLACK, lw=0.9)
        name_rows([axes], order)
        reference = table["reference"].iloc[0]
        axes.set_xlabel(f"omission (aligned) minus that of {reference}, in percentage points")
        points(axes)
        plain = Line2D([], [], ls="", marker="o", mfc="white", mec=BLACK, label="plain difference")
        key = [plain, *marker_key(_added([str(part["given"].iloc[0]) for part in parts]))]
        figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    return figure


def _added(given: Sequence[str]) -> list[str]:
    """Return what each model holds fixed, those behind the first as what they add.

    >>> _added(["tokens", "tokens, place, length"])
    ['given tokens', '... and place, length']
    """
    sets = [text.split(", ") for text in given]
    added = [
        ", ".join(name for name in now if name not in before) or "nothing"
        for before, now in pairwise(sets)
    ]
    return [f"given {given[0]}", *(f"... and {names}" for names in added)]
