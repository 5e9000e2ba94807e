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
    workers: int = 1  # processes that share the groups of a table; no number depends on it

    def __post_init__(self) -> None:
        if self.n_resamples < 1:
            raise ValueError(f"n_resamples is {self.n_resamples}; give at least 1")
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; give at least 1")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}; give a number between 0 and 1, such as 0.95")


def collapsed(strata: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the strata as numbers (G,), those of one document put together.

    A document drawn from itself alone would not vary; a single such stratum joins the smallest of
    the others.

    Source: Cochran 1977, section 5A.12 (collapsed strata).
    """
    _, numbers, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    numbers = np.asarray(numbers, np.int64)
    lonely = sizes == 1
    if not lonely.any() or len(sizes) == 1:
        return numbers
    target = int(np.argmax(lonely))
    if lonely.sum() == 1:
        target = int(np.argmin(np.where(lonely, len(strata) + 1, sizes)))
    return np.where(lonely[numbers], target, numbers)


def resample_weights(
    strata: NDArray[np.generic], resampling: Resampling
) -> Iterator[tuple[slice, Floats]]:
    """Yield (rows, weights (rows, G)): how often each document was drawn, within its stratum.

    Strata of one document are `collapsed`.
    """
    strata = collapsed(strata)
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
