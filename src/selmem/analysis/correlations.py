"""Rank correlations, raw and partial, with intervals from resampled documents."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from selmem.resampling import Floats, Resampling, resample_weights
from selmem.statistics import MIN_DOCUMENTS_INTERVAL, MIN_DOCUMENTS_TEST

MIN_POINTS = 5


@dataclass(frozen=True)
class Points:
    """The points of a scatter as a function of how often each document is drawn.

    Attributes:
        predictor: name of the first column.
        level: what a point is ("chunk", "word type", "pos").
        outcomes: names of the next columns.
        covariates: names of the last columns.
        draw: document weights (G,) -> (points, 1 + outcomes + covariates); nan where unknown.
        strata: (G,) source of each document, as an integer.
    """

    predictor: str
    level: str
    outcomes: Sequence[str]
    covariates: Sequence[str]
    draw: Callable[[Floats], Floats]
    strata: NDArray[np.int64]


class Row(NamedTuple):
    """One correlation."""

    predictor: str
    level: str
    outcome: str
    adjusted_for: str
    correlation: float
    ci_low: float
    ci_high: float
    p_value: float
    se_z: float  # standard error on Fisher's z scale
    n_points: int
    n_documents: int


def correlations(points: Points, resampling: Resampling) -> Iterator[Row]:
    """Yield the Spearman correlation with each outcome, raw and then (if asked) partial."""
    n_documents = len(points.strata)
    sample = points.draw(np.ones(n_documents))
    found = _rank_correlations(sample, len(points.outcomes))
    replicates = np.array(
        [
            _rank_correlations(points.draw(row), len(points.outcomes))
            for _, weights in resample_weights(points.strata, resampling)
            for row in weights
        ]
    )
    n_points = int(np.isfinite(sample[:, 0]).sum())
    for i, outcome in enumerate(points.outcomes):
        for adjusted in range(1 + bool(points.covariates)):
            value = float(found[adjusted, i])
            if np.isfinite(value):
                se = z_spread(replicates[:, adjusted, i])
                interval = correlation_interval(value, se, n_documents, resampling.level)
                names = ", ".join(points.covariates) if adjusted else ""
                head = (points.predictor, points.level, outcome, names)
                yield Row(*head, value, *interval, se, n_points, n_documents)


def z_spread(replicates: Floats) -> float:
    """Return the standard deviation of correlations on Fisher's z scale."""
    known = replicates[np.isfinite(replicates)]
    return float(_z(known).std(ddof=1)) if len(known) > 1 else np.nan


def correlation_interval(
    value: float, se_z: float, n_documents: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Return (low, high, p), normal on Fisher's z scale.

    All are nan below 10 documents, p also below 30.
    """
    if n_documents < MIN_DOCUMENTS_INTERVAL or not np.isfinite(se_z):
        return np.nan, np.nan, np.nan
    center, half = _z(value), stats.norm.ppf((1 + level) / 2) * se_z
    tested = n_documents >= MIN_DOCUMENTS_TEST and se_z > 0
    p = float(2 * stats.norm.sf(abs(center) / se_z)) if tested else np.nan
    return float(np.tanh(center - half)), float(np.tanh(center + half)), p


def _z(values: Floats | float) -> Floats:
    return np.asarray(np.arctanh(np.clip(values, -1 + 1e-9, 1 - 1e-9)))


def _rank_correlations(columns: Floats, n_outcomes: int) -> Floats:
    """Return correlations of the first column with each outcome, (2, outcomes): raw, partial."""
    found = np.full((2, n_outcomes), np.nan)
    has_values = np.asarray(np.isfinite(columns).any(axis=0))
    columns = columns[np.isfinite(columns[:, has_values]).all(axis=1)]
    if len(columns) < MIN_POINTS:
        return found
    varied = has_values & np.asarray(columns.min(axis=0) < columns.max(axis=0))
    if not varied[0]:
        return found
    used = np.flatnonzero(varied)
    outcomes = used[(used > 0) & (used <= n_outcomes)] - 1
    ranks: Floats = stats.rankdata(columns[:, used], axis=0)
    matrix = np.atleast_2d(np.asarray(np.corrcoef(ranks.T)))
    n_main = 1 + len(outcomes)
    found[0, outcomes] = matrix[0, 1:n_main]
    if len(columns) >= MIN_POINTS + len(used) - n_main:
        found[1, outcomes] = _partial(matrix, n_main)
    return found


def _partial(matrix: Floats, n_main: int) -> Floats:
    """Return the correlations of the first variable with the next given those from `n_main` on."""
    held = matrix[n_main:, n_main:]
    shared = matrix[:n_main, n_main:]
    left = matrix[:n_main, :n_main] - shared @ np.linalg.pinv(held) @ shared.T
    scale = np.sqrt(np.maximum(left[0, 0] * np.diag(left), 0))[1:]
    return np.where(scale > 1e-9, left[0, 1:] / np.maximum(scale, 1e-9), np.nan)
