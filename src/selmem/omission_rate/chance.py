# SPDX-License-Identifier: Apache-2.0
"""The chance rate: what a reference shares with reconstructions of other documents."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Rates = npt.NDArray[np.float32]
R = TypeVar("R")
P = TypeVar("P")

DRAWS = 10


def chance_rates(
    rule: Callable[[Sequence[R], Sequence[P]], Sequence[npt.NDArray[Any]]],
    references: Sequence[R],
    reconstructions: Sequence[P],
    donors: Ints,
) -> list[Rates]:
    """Return each word's mean omission against the reconstructions of other documents.

    Args:
        rule: gives one array of word omissions for every pair of reference and reconstruction.
        references: n references.
        reconstructions: their n reconstructions.
        donors: for every draw, whose reconstruction each reference is held against (draws, n).
    """
    draws = [rule(references, [reconstructions[donor] for donor in row]) for row in donors]
    return [
        np.asarray(np.mean(words, axis=0, dtype=np.float64), np.float32)
        for words in zip(*draws, strict=True)
    ]


def derangements(documents: Sequence[object], *, draws: int = DRAWS, seed: int = 0) -> Ints | None:
    """Pair every chunk with chunks of other documents.

    Each draw is a permutation (documents in random order, chunks in random order inside them, all
    shifted by at least the largest document), unless one document holds more than half of the
    chunks: then donors are drawn one by one from the other documents.

    Args:
        documents: the document of each of n chunks.
        draws: how many times.
        seed: of the random numbers.

    Returns:
        Indices of the donors (draws, n); None where all chunks are of one document.
    """
    numbers = {document: index for index, document in enumerate(dict.fromkeys(documents))}
    labels = np.array([numbers[document] for document in documents], np.int64)
    if len(numbers) < 2 or not draws:
        return None
    generator = np.random.default_rng(seed)
    pair = _shifted if 2 * np.bincount(labels).max() <= len(labels) else _drawn
    return np.stack([pair(labels, generator) for _ in range(draws)])


def _shifted(labels: Ints, generator: np.random.Generator) -> Ints:
    largest = int(np.bincount(labels).max())
    document_order = generator.permutation(int(labels.max()) + 1)
    order = np.lexsort((generator.random(len(labels)), document_order[labels]))
    donors = np.empty(len(labels), np.int64)
    donors[order] = np.roll(order, -int(generator.integers(largest, len(labels) - largest + 1)))
    return donors


def _drawn(labels: Ints, generator: np.random.Generator) -> Ints:
    donors = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        others = np.flatnonzero(labels != label)
        donors[labels == label] = generator.choice(others, int(np.sum(labels == label)))
    return donors
