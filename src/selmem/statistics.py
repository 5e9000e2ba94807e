"""Intervals, tests and effect sizes for rates whose errors come in documents.

Every quantity here is a signed sum of ratios of totals over documents (a rate, a difference of two
rates, a recovered fraction), so one bootstrap serves them all: documents are drawn with
replacement, and the interval is studentised with the linearised variance of each resample. It is
symmetric because documents differ much in size: `scripts/coverage.py` shows what it holds.

Source: Hall 1988, "On symmetric bootstrap confidence intervals"; Särndal, Swensson and Wretman
1992, section 5.5 (linearised variance of a ratio); Korn and Graubard 1998 (rare proportions).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from selmem.resampling import Floats, Resampling, resample_weights

MIN_DOCUMENTS_INTERVAL = 10
MIN_DOCUMENTS_TEST = 30

# above this share of resamples without any variation the studentised interval means nothing
_MAX_DEGENERATE = 0.025


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Estimates of C quantities with their bootstrap distributions.

    Attributes:
        value: (C,) estimates; nan where a denominator is 0.
        se: (C,) linearised standard errors.
        n_documents: (C,) documents with data (of the smallest group, for a difference).
        replicates: (R, C) the quantity in each resample.
        errors: (R, C) its linearised standard error in that resample.
        level: confidence level of `interval()` and `percentile()`.
    """

    value: Floats
    se: Floats
    n_documents: NDArray[np.int64]
    replicates: Floats
    errors: Floats
    level: float

    @cached_property
    def pivots(self) -> Floats:
        """(R, C) distance of each replicate from the value, in its errors; nan where undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots = (self.replicates - self.value) / self.errors
        return np.where(np.isfinite(pivots), pivots, np.nan)

    def interval(self, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the symmetric studentised interval, (C,) and (C,); nan below 10 documents."""
        level = self.level if level is None else level
        half = _quantiles(np.abs(self.pivots), (level,))[0] * self.se
        return self._masked(self.value - half, self.value + half)

    def rate_interval(self, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the interval of quantities that lie in [0, 1].

        Where an event is so rare (or so common) that more than 2.5 % of the resamples hold no
        variation, it is Korn and Graubard's binomial interval at the effective number of trials.
        """
        low, high = self.interval(level)
        rare = np.mean(~np.isfinite(self.pivots), axis=0) > _MAX_DEGENERATE
        rare_low, rare_high = self._rare(self.level if level is None else level)
        low, high = np.where(rare, rare_low, low), np.where(rare, rare_high, high)
        return self._masked(np.clip(low, 0, 1), np.clip(high, 0, 1))

    def positive_interval(self, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the interval of quantities above 0, symmetric on the logarithmic scale.

        For sums that a few documents dominate, such as lost bits where little is lost.
        """
        level = self.level if level is None else level
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            pivots = np.log(self.replicates / self.value) / (self.errors / self.replicates)
            pivots = np.where(np.isfinite(pivots), pivots, np.nan)
            half = _quantiles(np.abs(pivots), (level,))[0] * self.se / self.value
            return self._masked(self.value * np.exp(-half), self.value * np.exp(half))

    def percentile(self, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the percentile interval, (C,) and (C,), for comparison; it is too short."""
        tail = (1 - (self.level if level is None else level)) / 2
        low, high = _quantiles(self.replicates, (tail, 1 - tail))
        return self._masked(low, high)

    def p_value(self) -> Floats:
        """Return two-sided p-values against 0, (C,); nan below 30 documents."""
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = np.abs(self.value / self.se)
        beyond = (np.abs(self.pivots) >= observed).sum(axis=0)
        p = (beyond + 1) / (np.isfinite(self.pivots).sum(axis=0) + 1)
        return np.where((self.n_documents < MIN_DOCUMENTS_TEST) | ~np.isfinite(observed), np.nan, p)

    def part(self, cells: slice) -> "Bootstrap":
        """Return the quantities `cells` alone."""
        return replace(
            self,
            value=self.value[cells],
            se=self.se[cells],
            n_documents=self.n_documents[cells],
            replicates=self.replicates[:, cells],
            errors=self.errors[:, cells],
        )

    def _rare(self, level: float) -> tuple[Floats, Floats]:
        with np.errstate(divide="ignore", invalid="ignore"):
            trials = self.value * (1 - self.value) / self.se**2
        trials = np.where(self.se > 0, trials, self.n_documents)
        hits = self.value * trials
        tail = (1 - level) / 2
        low = stats.beta.ppf(tail, hits, trials - hits + 1)
        high = stats.beta.ppf(1 - tail, hits + 1, trials - hits)
        return np.where(hits <= 0, 0.0, low), np.where(hits >= trials, 1.0, high)

    def _masked(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        known = (self.n_documents >= MIN_DOCUMENTS_INTERVAL) & np.isfinite(self.value)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)


def bootstrap(
    numerators: ArrayLike,
    denominators: ArrayLike,
    resampling: Resampling,
    *,
    coefficients: Sequence[float] = (1.0,),
    strata: ArrayLike | None = None,
) -> Bootstrap:
    """Return estimates and resamples of C signed sums of ratios, sum_j c_j (sum_d n / sum_d m).

    Args:
        numerators: sums per document, (G, C) or (G, C, J).
        denominators: likewise.
        resampling: the resamples.
        coefficients: J signs or weights; (1, -1) is a difference of two ratios, paired because
            both are taken from the same resample.
        strata: (G,) labels; documents are drawn within each (the sources of a pooled rate).
    """
    columns = _columns(numerators, denominators, len(coefficients))
    n_documents, n_cells = columns.shape[:2]
    labels = np.zeros(n_documents, int) if strata is None else np.asarray(strata)
    signs = np.asarray(coefficients, float)
    value, variance = _estimate(np.ones((1, n_documents)), columns, labels, signs)
    replicates = np.empty((resampling.n_resamples, n_cells))
    variances = np.empty_like(replicates)
    for rows, weights in resample_weights(labels, resampling):
        replicates[rows], variances[rows] = _estimate(weights, columns, labels, signs)
    with_data = (columns[:, :, 1::2] != 0).sum(axis=0).min(axis=-1)
    return Bootstrap(
        value=value[0],
        se=np.sqrt(variance[0]),
        n_documents=with_data.astype(np.int64),
        replicates=replicates,
        errors=np.sqrt(variances),
        level=resampling.level,
    )


def difference(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    resampling: Resampling,
    *,
    strata: ArrayLike | None = None,
) -> Bootstrap:
    """Return first ratio minus second ratio, both from the same resample of documents.

    Args:
        first: (numerators, denominators) per document, each (G, C).
        second: likewise.
        resampling: as in `bootstrap`.
        strata: as in `bootstrap`.
    """
    numerators = np.stack([np.asarray(first[0], float), np.asarray(second[0], float)], axis=-1)
    denominators = np.stack([np.asarray(first[1], float), np.asarray(second[1], float)], axis=-1)
    return bootstrap(numerators, denominators, resampling, coefficients=(1, -1), strata=strata)


def combine(parts: Sequence[Bootstrap], weights: Sequence[float]) -> Bootstrap:
    """Return the weighted sum of quantities that rest on disjoint documents.

    The parts must come from resamplings with different seeds, so that they are independent.
    """
    w = np.asarray(weights, float)
    replicates = np.stack([part.replicates for part in parts])  # (parts, R, C)
    errors = np.stack([part.errors for part in parts])
    return Bootstrap(
        value=w @ np.stack([part.value for part in parts]),
        se=np.sqrt(w**2 @ np.stack([part.se**2 for part in parts])),
        n_documents=np.sum([part.n_documents for part in parts], axis=0),
        replicates=np.einsum("p,prc->rc", w, replicates),
        errors=np.sqrt(np.einsum("p,prc->rc", w**2, errors**2)),
        level=parts[0].level,
    )


def holm(p_values: ArrayLike) -> tuple[Floats, Floats]:
    """Return Holm-adjusted p-values and the confidence level that each interval then needs.

    A nan is left out of the family and keeps level 0.95. A rejected hypothesis's interval at its
    level excludes 0; the first that is not rejected sets the level of all behind it.
    """
    p = np.asarray(p_values, float)
    adjusted, levels = np.full(p.shape, np.nan), np.full(p.shape, 0.95)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    n_left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * n_left))
    n_rejected = int((adjusted[order] <= 0.05).sum())
    stop = np.minimum(np.arange(len(order)), min(n_rejected, len(order) - 1))
    levels[order] = 1 - 0.05 / n_left[stop]
    return adjusted, levels


def odds_ratio(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return the odds of rate `first` over the odds of rate `second`; nan or inf at 0 and 1."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((a / (1 - a)) / (b / (1 - b)))


def _columns(numerators: ArrayLike, denominators: ArrayLike, n_ratios: int) -> Floats:
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    if top.shape != bottom.shape:
        raise ValueError(f"numerators are {top.shape} but denominators {bottom.shape}")
    if top.ndim == 2:
        top, bottom = top[:, :, None], bottom[:, :, None]
    if top.ndim != 3 or top.shape[2] != n_ratios or not len(top):
        raise ValueError(
            f"got {top.shape} for {n_ratios} coefficients; expected (documents, cells, {n_ratios})"
        )
    return np.stack([top, bottom], axis=-1).reshape(*top.shape[:2], 2 * n_ratios)


def _estimate(
    weights: Floats, columns: Floats, strata: NDArray[np.generic], signs: Floats
) -> tuple[Floats, Floats]:
    """Return the quantity and its linearised variance in each of R weightings, (R, C) each."""
    totals, covariances = _moments(weights, columns, strata)
    top, bottom = totals[..., 0::2], totals[..., 1::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = top / bottom
        gradient = np.stack([signs / bottom, -signs * ratios / bottom], axis=-1)
    gradient = gradient.reshape(totals.shape)
    variance = np.einsum("rci,rcij,rcj->rc", gradient, covariances, gradient)
    noise = 1e-13 * np.einsum("rci,rcii->rc", gradient**2, np.abs(covariances))
    return (ratios * signs).sum(axis=-1), np.where(variance > noise, variance, 0.0)


def _moments(
    weights: Floats, columns: Floats, strata: NDArray[np.generic]
) -> tuple[Floats, Floats]:
    """Return totals (R, C, k) and the covariance matrices of the totals (R, C, k, k)."""
    n_cells, k = columns.shape[1:]
    first, second = np.triu_indices(k)
    totals = np.zeros((len(weights), n_cells, k))
    triangles = np.zeros((len(weights), n_cells, len(first)))
    for label in np.unique(strata):
        inside = strata == label
        w, x = weights[:, inside], columns[inside]
        n = len(x)
        sums = (w @ x.reshape(n, -1)).reshape(totals.shape)
        totals += sums
        if n > 1:
            products = (w @ (x[..., first] * x[..., second]).reshape(n, -1)).reshape(
                triangles.shape
            )
            triangles += (products - sums[..., first] * sums[..., second] / n) * (n / (n - 1))
    covariances = np.empty((len(weights), n_cells, k, k))
    covariances[..., first, second] = triangles
    covariances[..., second, first] = triangles
    return totals, covariances


def _quantiles(values: Floats, levels: Sequence[float]) -> Floats:
    """Return quantiles over the rows, (len(levels), C), skipping nan; nan for a column of nan."""
    found = np.full((len(levels), values.shape[1]), np.nan)
    missing = np.isnan(values).any(axis=0)
    found[:, ~missing] = np.quantile(values[:, ~missing], levels, axis=0)
    for column in np.flatnonzero(missing & np.isfinite(values).any(axis=0)):
        found[:, column] = np.nanquantile(values[:, column], levels)
    return found
