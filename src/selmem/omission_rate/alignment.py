# SPDX-License-Identifier: Apache-2.0
"""Which words are omitted under the rules that look at tokens in their order.

`aligned`: one of the word's tokens is not in the longest common subsequence of token ids.
`forced`: one of them is not the probe's best guess when it is given the true text before it.

Of all longest common subsequences the one with the least sum of |i - j| counts; of several such,
the one that is found going back from both ends, leaving out elements of the reference first.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Span = tuple[int, int]

MAX_CELLS = 400_000_000  # of one pair's score table: 20,000 by 20,000 elements
BATCH_CELLS = 4_000_000  # of the tables of one batch


class TokenWords(NamedTuple):
    """A reference as token ids, and the tokens (first, one past the last) of each word."""

    token_ids: Sequence[int]
    spans: Sequence[Span]


def aligned_omissions(
    references: Sequence[TokenWords], reconstructions: Sequence[Sequence[int]]
) -> list[Flags]:
    """Return for every word of every reference whether it is omitted under the rule `aligned`.

    Args:
        references: token ids and word spans.
        reconstructions: token ids, one sequence for each reference.
    """
    matches = align([reference.token_ids for reference in references], reconstructions)
    return [
        any_missed(match >= 0, reference.spans)
        for match, reference in zip(matches, references, strict=True)
    ]


def any_missed(kept: Flags, spans: Sequence[Span]) -> Flags:
    """Return for every word whether one of its tokens is not kept.

    Args:
        kept: one flag for every token of the reference: aligned, or rightly guessed when forced.
        spans: each word's tokens (first, one past the last).

    Raises:
        ValueError: a span is empty or outside of the tokens.
    """
    bounds = np.asarray(spans, np.int64).reshape(-1, 2)
    if np.any((bounds[:, 0] < 0) | (bounds[:, 0] >= bounds[:, 1]) | (bounds[:, 1] > len(kept))):
        raise ValueError(
            f"a word's tokens must be among the {len(kept)} of its text, at least one; "
            f"the spans are {bounds.tolist()}"
        )
    missed = np.concatenate([[0], np.cumsum(~kept)])
    return np.asarray(missed[bounds[:, 1]] > missed[bounds[:, 0]])


def align(references: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> list[Ints]:
    """Return, for every element of every reference, the index of its match or -1.

    Args:
        references: sequences of non-negative integers.
        others: one sequence for each reference.

    Returns:
        One array for each pair, as long as its reference.

    Raises:
        ValueError: the two lists differ in length, or a pair is too long for its score table.
    """
    if len(references) != len(others):
        raise ValueError(f"{len(references)} references cannot be aligned with {len(others)}")
    matches: list[Ints] = [np.full(len(reference), -1, np.int64) for reference in references]
    for batch in _batches([(len(a), len(b)) for a, b in zip(references, others, strict=True)]):
        a = _padded([references[index] for index in batch], padding=-1)
        b = _padded([others[index] for index in batch], padding=-2)
        for index, row in zip(batch, _trace(_scores(a, b)), strict=True):
            matches[index] = row[: len(references[index])]
    return matches


def align_ref(references: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> list[Ints]:
    """Return what `align` returns, by the textbook table of (matches, -cost)."""
    return [_align_pair_ref(a, b) for a, b in zip(references, others, strict=True)]


def _align_pair_ref(a: Sequence[int], b: Sequence[int]) -> Ints:
    best = [[(0, 0)] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            best[i][j] = max(best[i - 1][j], best[i][j - 1])
            if a[i - 1] == b[j - 1]:
                matches, cost = best[i - 1][j - 1]
                best[i][j] = max(best[i][j], (matches + 1, cost - abs(i - j)))
    match = np.full(len(a), -1, np.int64)
    i, j = len(a), len(b)
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            match[i] = j
    return match


def _batches(shapes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield the indices of pairs of similar size whose tables fit in `BATCH_CELLS` together."""
    batch: list[int] = []
    rows = columns = 0
    for index in sorted(range(len(shapes)), key=lambda index: shapes[index]):
        n, m = shapes[index]
        if n * m > MAX_CELLS:
            raise ValueError(
                f"a reference of {n} and a prediction of {m} elements are too long to align; "
                f"cut texts so that the product of the two is at most {MAX_CELLS:,}"
            )
        rows, columns = max(rows, n), max(columns, m)
        if batch and (len(batch) + 1) * (rows + 1) * (columns + 1) > BATCH_CELLS:
            yield batch
            batch, rows, columns = [], n, m
        batch.append(index)
    if batch:
        yield batch


def _padded(sequences: Sequence[Sequence[int]], *, padding: int) -> Ints:
    table = np.full((len(sequences), max(map(len, sequences))), padding, np.int64)
    for row, sequence in zip(table, sequences, strict=True):
        row[: len(sequence)] = sequence
    return table


def _scores(a: Ints, b: Ints) -> npt.NDArray[np.integer]:
    """Return the best score of every pair of prefixes, (n + 1, B, m + 1).

    A match at (i, j) is worth `big` - |i - j|, with `big` above any possible sum of shifts, so that
    a larger score means more matches first and smaller shifts second.
    """
    (size, n), m = a.shape, b.shape[1]
    big = min(n, m) * max(n, m) + 1
    dtype = np.int32 if big * (min(n, m) + 1) < np.iinfo(np.int32).max else np.int64
    scores = np.zeros((n + 1, size, m + 1), dtype)
    columns = np.arange(m)
    for i in range(n):
        worth = (big - np.abs(columns - i)).astype(dtype)
        matched = np.where(a[:, i, None] == b, scores[i, :, :-1] + worth, 0)
        np.maximum(matched, scores[i, :, 1:], out=matched)
        np.maximum.accumulate(matched, axis=1, out=scores[i + 1, :, 1:])
    return scores


def _trace(scores: npt.NDArray[np.integer]) -> Ints:
    """Return the matches (B, n) that the score table stands for, going back from its end."""
    n, size, m = (scores.shape[0] - 1, scores.shape[1], scores.shape[2] - 1)
    match = np.full((size, n), -1, np.int64)
    rows = np.arange(size)
    i, j = np.full(size, n), np.full(size, m)
    while rows.size:
        here = scores[i, rows, j]
        up = here == scores[i - 1, rows, j]
        left = ~up & (here == scores[i, rows, j - 1])
        matched = ~up & ~left
        i, j = i - ~left, j - ~up
        match[rows[matched], i[matched]] = j[matched]
        running = (i > 0) & (j > 0)
        rows, i, j = rows[running], i[running], j[running]
    return match
