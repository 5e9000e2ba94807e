"""Intervals of rates, and of signed sums of rates, where resampling shows too little variation.

A class of which no word was omitted has no variation at all, in any resample: its rate is uncertain
all the same. Its own interval is then binomial, and intervals of several rates are put together.

Source: Korn and Graubard 1998 (rare proportions of clustered data); Newcombe 1998, method 10, and
Zou and Donner 2008 (intervals of sums and differences from those of the parts).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from selmem.resampling import Floats

# above this share of resamples without any variation the studentised interval means nothing
_MAX_CONSTANT = 0.025
_P_STEPS = 40  # halvings of the interval in which a p-value is looked for


@dataclass(frozen=True, kw_only=True)
class RateTerms:
    """The rates that C quantities are weighted sums of.

    Attributes:
        weights: (J,).
        values: (C, J) rates, or other ratios, of which nothing is then said.
        errors: (C, J) linearised standard errors.
        n_documents: (C, J) documents with data.
        constant: (C, J) share of resamples in which the rate does not vary.
    """

    weights: Floats
    values: Floats
    errors: Floats
    n_documents: Floats
    constant: Floats

    @property
    def are_rare(self) -> NDArray[np.bool_]:
        """(C,) whether one of the rates varies in too few resamples, and all are rates."""
        with np.errstate(invalid="ignore"):
            rates = ((self.values >= 0) & (self.values <= 1)).all(axis=1)
        return np.asarray(rates & (self.constant > _MAX_CONSTANT).any(axis=1))

    def interval(self, level: float | Floats) -> tuple[Floats, Floats]:
        """Return the interval of each weighted sum, (C,) and (C,).

        Args:
            level: one for all, or (C,).
        """
        low, high = self._single(np.asarray(level, float))
        upward = np.where(self.weights > 0, high, low) - self.values
        downward = np.where(self.weights > 0, low, high) - self.values
        value = self.values @ self.weights
        reach = [np.sqrt(((self.weights * step) ** 2).sum(axis=1)) for step in (downward, upward)]
        return value - reach[0], value + reach[1]

    def p_value(self) -> Floats:
        """Return 1 - the highest level at which the interval leaves out 0, (C,)."""
        low, high = np.zeros(len(self.values)), np.ones(len(self.values))
        for _ in range(_P_STEPS):
            middle = (low + high) / 2
            ends = self.interval(1 - middle)
            excluded = (ends[0] > 0) | (ends[1] < 0)
            low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
        return high

    def part(self, cells: slice) -> "RateTerms":
        """Return the quantities `cells` alone."""
        names = ("values", "errors", "n_documents", "constant")
        return replace(self, **{name: getattr(self, name)[cells] for name in names})

    def _single(self, level: Floats) -> tuple[Floats, Floats]:
        """Return each rate's binomial interval at its effective number of trials."""
        with np.errstate(divide="ignore", invalid="ignore"):
            trials = self.values * (1 - self.values) / self.errors**2
        trials = np.where(self.errors > 0, trials, self.n_documents)
        hits = self.values * trials
        tail = (1 - level[..., None]) / 2 if level.ndim else (1 - level) / 2
        low = stats.beta.ppf(tail, hits, trials - hits + 1)
        high = stats.beta.ppf(1 - tail, hits + 1, trials - hits)
        return np.where(hits <= 0, 0.0, low), np.where(hits >= trials, 1.0, high)


def combine_terms(parts: Sequence[RateTerms], weights: Floats) -> RateTerms:
    """Return the terms of the weighted sum of several sums."""
    names = ("values", "errors", "n_documents", "constant")
    joined = {name: np.concatenate([getattr(p, name) for p in parts], axis=1) for name in names}
    own = [weight * part.weights for weight, part in zip(weights, parts, strict=True)]
    return RateTerms(weights=np.concatenate(own), **joined)
