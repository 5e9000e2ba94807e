"""Intervals, tests and effect sizes for rates whose errors come in documents.

Every quantity here is a signed sum of ratios of totals over documents (a rate, a difference of two
rates, a recovered fraction), so one bootstrap serves them all: documents are drawn with
replacement, and the interval is studentised with the linearised variance of each resample. It is
symmetric because documents differ much in size: `scripts/coverage.py` shows what it holds.

Where a few documents make most of the variance, resamples without them have almost none, and the
studentised interval can be hundreds of times too wide. It is therefore never wider than Student's,
with half as many degrees of freedom as documents effectively carry the variance; that costs at most
half a point of coverage.

Source: Hall 1988, "On symmetric bootstrap confidence intervals"; Kish 1965, section 8.2 (effective
sample size).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from selmem.linearised import columns_of, effective_documents, linearise
from selmem.rare_events import RateTerms, combine_terms
from selmem.resampling import Floats, Resampling, collapsed, resample_weights

MIN_DOCUMENTS_INTERVAL = 10
MIN_DOCUMENTS_TEST = 30

# Student's t on a logarithmic scale with one degree of freedom would span twelve powers of e
_MIN_FREEDOM, _MIN_FREEDOM_LOG = 1, 2


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Estimates of C quantities with their bootstrap distributions.

    Attributes:
        value: (C,) estimates; nan where a denominator is 0.
        se: (C,) linearised standard errors.
        n_documents: (C,) documents with data (of the smallest group, for a difference).
        n_effective: (C,) documents that effectively carry the variance.
        replicates: (R, C) the quantity in each resample.
        errors: (R, C) its linearised standard error in that resample.
        terms: the ratios that the quantities are sums of.
        level: confidence level of `interval()` and `percentile()`.
    """

    value: Floats
    se: Floats
    n_documents: NDArray[np.int64]
    n_effective: Floats
    replicates: Floats
    errors: Floats
    terms: RateTerms
    level: float

    @cached_property
    def pivots(self) -> Floats:
        """(R, C) distance of each replicate from the value, in its errors; nan where undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots = (self.replicates - self.value) / self.errors
        return np.where(np.isfinite(pivots), pivots, np.nan)

    def interval(
        self, level: float | None = None, *, of_rates: bool = False
    ) -> tuple[Floats, Floats]:
        """Return the symmetric studentised interval, (C,) and (C,); nan below 10 documents.

        Args:
            level: of the interval; default that of the resampling.
            of_rates: the quantities are signed sums of rates in [0, 1]. Where an event is so rare
                (or so common) that more than 2.5 % of the resamples hold no variation of its rate,
                the interval is then that of `rare_events`.
        """
        level = self.level if level is None else level
        half = self._quantile(self.pivots, level, _MIN_FREEDOM) * self.se
        low, high = self.value - half, self.value + half
        if of_rates:
            rare = self.terms.are_rare
            rare_low, rare_high = self.terms.interval(level)
            low, high = np.where(rare, rare_low, low), np.where(rare, rare_high, high)
        return self._masked(low, high)

    def rate_interval(self, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the interval of single rates, which lie in [0, 1]."""
        low, high = self.interval(level, of_rates=True)
        return np.clip(low, 0, 1), np.clip(high, 0, 1)

    def positive_interval(self, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the interval of quantities above 0, symmetric on the logarithmic scale.

        For sums that a few documents dominate, such as lost bits where little is lost.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            pivots = np.log(self.replicates / self.value) / (self.errors / self.replicates)
            pivots = np.where(np.isfinite(pivots), pivots, np.nan)
            level = self.level if level is None else level
            half = self._quantile(pivots, level, _MIN_FREEDOM_LOG) * self.se / self.value
            return self._masked(self.value * np.exp(-half), self.value * np.exp(half))

    def percentile(self, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the percentile interval, (C,) and (C,), for comparison; it is too short."""
        tail = (1 - (self.level if level is None else level)) / 2
        low, high = _quantiles(self.replicates, (tail, 1 - tail))
        return self._masked(low, high)

    def p_value(self, *, of_rates: bool = False) -> Floats:
        """Return two-sided p-values against 0, (C,), as of `interval`; nan below 30 documents."""
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = np.abs(self.value / self.se)
        n_resamples = np.isfinite(self.pivots).sum(axis=0)
        beyond = (np.abs(self.pivots) >= observed).sum(axis=0)
        student = 2 * stats.t.sf(observed, self._freedom(_MIN_FREEDOM))
        p = np.fmax(np.fmin(beyond + 1, student * (n_resamples + 1)), 1) / (n_resamples + 1)
        p = np.where(np.isfinite(observed), p, np.nan)
        if of_rates and (rare := self.terms.are_rare).any():
            p = np.where(rare, self.terms.p_value(), p)
        return np.where(self.n_documents < MIN_DOCUMENTS_TEST, np.nan, p)

    def part(self, cells: slice) -> "Bootstrap":
        """Return the quantities `cells` alone."""
        return replace(
            self,
            value=self.value[cells],
            se=self.se[cells],
            n_documents=self.n_documents[cells],
            n_effective=self.n_effective[cells],
            replicates=self.replicates[:, cells],
            errors=self.errors[:, cells],
            terms=self.terms.part(cells),
        )

    def _quantile(self, pivots: Floats, level: float, min_freedom: int) -> Floats:
        """Return how many standard errors the interval reaches, (C,)."""
        student = stats.t.ppf((1 + level) / 2, self._freedom(min_freedom))
        return np.asarray(np.fmin(_quantiles(np.abs(pivots), (level,))[0], student))

    def _freedom(self, least: int) -> Floats:
        return np.fmax(self.n_effective / 2, least)

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
    columns = columns_of(numerators, denominators, len(coefficients))
    n_documents, n_cells = columns.shape[:2]
    labels = np.zeros(n_documents, int) if strata is None else collapsed(np.asarray(strata))
    signs = np.asarray(coefficients, float)
    observed = linearise(np.ones((1, n_documents)), columns, labels, signs)
    replicates = np.empty((resampling.n_resamples, n_cells))
    variances = np.empty_like(replicates)
    n_varying = np.zeros((n_cells, len(signs)))
    for rows, weights in resample_weights(labels, resampling):
        drawn = linearise(weights, columns, labels, signs)
        replicates[rows], variances[rows] = drawn.value, drawn.variance
        n_varying += (drawn.ratio_variances > 0).sum(axis=0)
    with_data = (columns[:, :, 1::2] != 0).sum(axis=0)
    return Bootstrap(
        value=observed.value[0],
        se=np.sqrt(observed.variance[0]),
        n_documents=with_data.min(axis=-1).astype(np.int64),
        n_effective=effective_documents(columns, labels, signs),
        replicates=replicates,
        errors=np.sqrt(variances),
        terms=RateTerms(
            weights=signs,
            values=observed.ratios[0],
            errors=np.sqrt(observed.ratio_variances[0]),
            n_documents=with_data.astype(float),
            constant=1 - n_varying / resampling.n_resamples,
        ),
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
    variances = w[:, None] ** 2 * np.stack([part.se**2 for part in parts])
    fourth = variances**2 / np.stack([np.fmax(part.n_effective, 1) for part in parts])
    with np.errstate(divide="ignore", invalid="ignore"):
        n_effective = variances.sum(axis=0) ** 2 / fourth.sum(axis=0)
    return Bootstrap(
        value=w @ np.stack([part.value for part in parts]),
        se=np.sqrt(variances.sum(axis=0)),
        n_documents=np.sum([part.n_documents for part in parts], axis=0),
        n_effective=n_effective,
        replicates=np.einsum("p,prc->rc", w, replicates),
        errors=np.sqrt(np.einsum("p,prc->rc", w**2, errors**2)),
        terms=combine_terms([part.terms for part in parts], w),
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


def _quantiles(values: Floats, levels: Sequence[float]) -> Floats:
    """Return quantiles over the rows, (len(levels), C), skipping nan; nan for a column of nan."""
    found = np.full((len(levels), values.shape[1]), np.nan)
    missing = np.isnan(values).any(axis=0)
    found[:, ~missing] = np.quantile(values[:, ~missing], levels, axis=0)
    for column in np.flatnonzero(missing & np.isfinite(values).any(axis=0)):
        found[:, column] = np.nanquantile(values[:, column], levels)
    return found
