"""Which documents each bootstrap resample draws, and how often."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# weights of one batch of resamples, in numbers
_BATCH_NUMBERS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How documents are resampled; equal settings on equal documents draw equal resamples."""

    n_resamples: int = 2000
    seed: int = 0
    level: float = 0.95  # of the intervals

    def __post_init__(self) -> None:
        if self.n_resamples < 1:
            raise ValueError(f"n_resamples is {self.n_resamples}; give at least 1")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}; give a number between 0 and 1, such as 0.95")


def resample_weights(
    strata: NDArray[np.generic], resampling: Resampling
) -> Iterator[tuple[slice, Floats]]:
    """Yield (rows, weights (rows, G)): how often each document was drawn, within its stratum."""
    members = [np.flatnonzero(strata == label) for label in np.unique(strata)]
    generators = [np.random.default_rng([resampling.seed, i]) for i in range(len(members))]
    n_rows = max(1, _BATCH_NUMBERS // max(len(strata), 1))
    for start in range(0, resampling.n_resamples, n_rows):
        rows = slice(start, min(start + n_rows, resampling.n_resamples))
        weights = np.zeros((rows.stop - rows.start, len(strata)))
        for generator, documents in zip(generators, members, strict=True):
            weights[:, documents] = _multinomial(generator, len(weights), len(documents))
        yield rows, weights


def _multinomial(generator: np.random.Generator, n_rows: int, n_documents: int) -> Floats:
    draws = generator.integers(0, n_documents, (n_rows, n_documents))
    draws += np.arange(n_rows)[:, None] * n_documents
    counts = np.bincount(draws.ravel(), minlength=draws.size)
    return counts.reshape(draws.shape).astype(float)
