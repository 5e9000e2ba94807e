"""Ratios of sums by group, with document-bootstrap intervals.

The rows of a table are first summed within each document and group; everything after works on those
few sums, so the number of words hardly matters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selmem.analysis.measurements import POOLED
from selmem.resampling import Floats, Resampling
from selmem.statistics import Bootstrap, bootstrap

Group = tuple[str, int, pd.DataFrame]  # source, length in tokens, rows


@dataclass(frozen=True)
class Ratio:
    """Sum of one column over the sum of another; rows where either is missing are left out."""

    name: str  # of the result's column; its interval is in `<name>_low` and `<name>_high`
    numerator: str
    denominator: str
    is_rate: bool = False  # lies in [0, 1]
    is_relative: bool = False  # a rate over another rate, at least 0
    is_positive: bool = False  # lies above 0, with a long tail
    complement: bool = False  # report 1 - ratio


def recovered_ratio(name: str) -> Ratio:
    """Return the recovered fraction, for rows with `null_bits` and `lost_bits`.

    Lost bits are what the probe itself still needs: null bits minus recovered bits.
    """
    return Ratio(name, "lost_bits", "null_bits", is_positive=True, complement=True)


@dataclass(frozen=True)
class DocumentSums:
    """Columns summed within document and group.

    Attributes:
        strata: (G,) source of each document, as an integer.
        n_rows: (G, C) rows.
        sums: {column pair: (numerators (G, C), denominators (G, C))}.
    """

    strata: NDArray[np.int64]
    n_rows: Floats
    sums: Mapping[tuple[str, str], tuple[Floats, Floats]]


def each_group(frame: pd.DataFrame, *, pooled: bool = True) -> Iterator[Group]:
    """Yield (source, length in tokens, rows), then the same over all sources if there are several.

    Args:
        frame: with `source` (category) and `length`.
        pooled: whether to add the rows of all sources together.
    """
    sources = [str(s) for s in frame["source"].cat.categories]
    for length, part in frame.groupby("length", sort=True):
        present = [s for s in sources if (part["source"] == s).any()]
        for source in present:
            yield source, int(str(length)), part[part["source"] == source]
        if pooled and len(present) > 1:
            yield POOLED, int(str(length)), part


def document_sums(
    frame: pd.DataFrame, codes: NDArray[np.int64], n_groups: int, pairs: Sequence[tuple[str, str]]
) -> DocumentSums:
    """Sum column pairs within document and group.

    Args:
        frame: rows with `document`, `source` and the columns.
        codes: (rows,) group of each row, -1 for none.
        n_groups: C.
        pairs: (numerator, denominator) column names.
    """
    documents, document = np.unique(frame["document"].to_numpy(), return_inverse=True)
    first = np.unique(document, return_index=True)[1]
    strata = frame["source"].cat.codes.to_numpy()[first].astype(np.int64)
    cell = document * n_groups + codes
    shape = (len(documents), n_groups)
    sums: dict[tuple[str, str], tuple[Floats, Floats]] = {}
    for pair in pairs:
        top, bottom = (frame[name].to_numpy(dtype=float) for name in pair)
        known = np.isfinite(top) & np.isfinite(bottom) & (codes >= 0)
        sums[pair] = (
            _summed(cell[known], top[known], shape),
            _summed(cell[known], bottom[known], shape),
        )
    inside = codes >= 0
    n_rows = _summed(cell[inside], np.ones(int(inside.sum())), shape)
    return DocumentSums(strata, n_rows, sums)


def _summed(cell: NDArray[np.int64], values: Floats, shape: tuple[int, int]) -> Floats:
    counted = np.bincount(cell, values, minlength=shape[0] * shape[1])
    return counted.astype(float).reshape(shape)


def ratio_table(
    frame: pd.DataFrame,
    groups: pd.Series | NDArray[np.int64],
    labels: Sequence[Any],
    ratios: Sequence[Ratio],
    resampling: Resampling,
) -> pd.DataFrame:
    """Return one row per group with its ratios, their intervals and its number of documents.

    Args:
        frame: rows with `document`, `source` and the columns of the ratios.
        groups: (rows,) index into `labels`, -1 for none.
        labels: names of the groups.
        ratios: what to compute.
        resampling: the resamples.

    Returns:
        Columns group, n_rows, n_documents, and per ratio its name, `_low` and `_high`.
    """
    codes = np.asarray(groups, dtype=np.int64)
    pairs = list(dict.fromkeys((r.numerator, r.denominator) for r in ratios))
    found = document_sums(frame, codes, len(labels), pairs)
    top = np.concatenate([found.sums[pair][0] for pair in pairs], axis=1)
    bottom = np.concatenate([found.sums[pair][1] for pair in pairs], axis=1)
    result = bootstrap(top, bottom, resampling, strata=found.strata)
    used = found.n_rows.sum(axis=0) > 0
    columns: dict[str, Any] = {
        "group": [label for label, kept in zip(labels, used, strict=True) if kept],
        "n_rows": found.n_rows[:, used].sum(axis=0).astype(int),
        "n_documents": (found.n_rows[:, used] > 0).sum(axis=0),
    }
    for ratio in ratios:
        place = pairs.index((ratio.numerator, ratio.denominator)) * len(labels)
        part = result.part(slice(place, place + len(labels)))
        for suffix, values in zip(("", "_low", "_high"), _limits(ratio, part), strict=True):
            columns[ratio.name + suffix] = values[used]
    return pd.DataFrame(columns)


def _limits(ratio: Ratio, result: Bootstrap) -> tuple[Floats, Floats, Floats]:
    value = np.where(np.isfinite(result.value), result.value, np.nan)
    if ratio.is_positive:
        low, high = result.positive_interval()
    elif ratio.is_rate:
        low, high = result.rate_interval()
    else:
        low, high = result.interval(of_rates=ratio.is_relative)
        low = np.maximum(low, 0) if ratio.is_relative else low
    return (1 - value, 1 - high, 1 - low) if ratio.complement else (value, low, high)
