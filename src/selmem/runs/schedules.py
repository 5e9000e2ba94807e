"""Which windows of the corpus stand in which batch: a pure function of the seed and the step.

So an interrupted run continues exactly, a probe and its null probe read the same data in the same
order, and how many processes share a batch does not change what is in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selmem.corpus_store import CorpusStore, Positions, Windows
from selmem.errors import InputError


@dataclass(frozen=True)
class Batch:
    """The windows of one optimiser step.

    Args:
        length: tokens of each window.
        starts: positions of their first tokens in the store, (B,).
    """

    length: int
    starts: Positions

    def share(self, index: int, count: int) -> "Batch":
        """Return every `count`-th window from the `index`-th on."""
        return Batch(self.length, np.ascontiguousarray(self.starts[index::count]))


class BatchSchedule:
    """Batches of one length each, with about the same number of tokens in every batch.

    Args:
        windows: the windows to draw from, one entry per length.
        weights: share of the batches, hence of the tokens, that each length gets; any scale.
        tokens_per_batch: tokens; a batch has `tokens_per_batch // length` windows.
        seed: of the draws.

    Raises:
        InputError: a length without windows, longer than a batch, or of no positive weight.
    """

    def __init__(
        self,
        windows: Sequence[Windows],
        weights: Sequence[float],
        *,
        tokens_per_batch: int,
        seed: int,
    ) -> None:
        self._windows = tuple(windows)
        self._seed = seed
        self._rows = [tokens_per_batch // entry.length for entry in windows]
        _check(self._windows, weights, tokens_per_batch)
        edges = np.cumsum(weights, dtype=np.float64)
        self._edges: NDArray[np.float64] = edges / edges[-1]  # the last one is exactly 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of the windows."""
        return tuple(entry.length for entry in self._windows)

    def rows(self, length: int) -> int:
        """Return the number of windows in a batch of `length`."""
        return self._rows[self.lengths.index(length)]

    def batch(self, step: int) -> Batch:
        """Return the windows of the step with number `step`, counted from 0."""
        generator = np.random.Generator(np.random.Philox(key=[self._seed, step]))
        drawn = int(np.searchsorted(self._edges, generator.random(), side="right"))
        windows = self._windows[drawn]
        index = generator.integers(windows.total, size=self._rows[drawn])
        return Batch(windows.length, windows.starts(index))


def held_out_batches(
    store: CorpusStore, lengths: Sequence[int], *, tokens: int, packed: bool = False
) -> list[Batch]:
    """Return the fixed held-out windows, one entry per length that the held-out documents reach.

    Args:
        store: the corpus.
        lengths: tokens of the windows.
        tokens: tokens per length, spread evenly over all held-out windows.
        packed: windows of running text, across documents.

    Raises:
        InputError: no held-out document is as long as the shortest length.
    """
    found = [store.windows(length, "held_out", packed=packed) for length in lengths]
    batches = [
        Batch(windows.length, windows.spread(max(1, tokens // windows.length)))
        for windows in found
        if windows.total
    ]
    if not batches:
        raise InputError(
            f"no held-out document has {min(lengths)} tokens; give longer documents or hold out "
            "a larger share"
        )
    return batches


def _check(windows: Sequence[Windows], weights: Sequence[float], tokens_per_batch: int) -> None:
    if len(weights) != len(windows) or not windows or min(weights) < 0 or sum(weights) <= 0:
        raise InputError(
            f"expected one weight for each of the {len(windows)} lengths, none negative and not "
            f"all zero; got {list(weights)}"
        )
    longest = max(entry.length for entry in windows)
    if longest > tokens_per_batch:
        raise InputError(
            f"a batch of {tokens_per_batch} tokens holds no window of {longest}; raise "
            "tokens_per_batch"
        )
    if short := [entry.length for entry in windows if not entry.total]:
        raise InputError(
            f"no training document is long enough for windows of {short} tokens; leave these "
            "lengths out, or give longer documents"
        )
