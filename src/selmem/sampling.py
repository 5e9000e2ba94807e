"""A capped sample of chunks: the same for the same documents, whatever else is measured."""

import heapq
from collections.abc import Sequence
from hashlib import blake2b

from selmem.errors import InputError


def pick_chunks(
    doc_ids: Sequence[str], n_chunks: Sequence[int], max_chunks: int, seed: int
) -> dict[int, list[int]]:
    """Return for each document the numbers of the chunks to take: at most `max_chunks` in all.

    Every chunk has a rank, the hash of its document's id, its number and the seed, and those of
    the lowest ranks are taken. So the sample is uniform over chunks, rates keep the corpus's own
    weights, chunks come from as many documents as chance allows, and line-aligned sources
    (dialect pairs) keep the same lines wherever their cut falls alike.

    Args:
        doc_ids: ids of the documents.
        n_chunks: how many chunks each document has.
        max_chunks: the cap, at least 1.
        seed: another seed is another sample.

    Returns:
        from the document's index to chunk numbers in order; documents without a chunk are left out.

    Raises:
        InputError: the cap is below 1.

    >>> pick_chunks(["a", "b", "c"], [2, 0, 1], 10, seed=0)
    {0: [0, 1], 2: [0]}
    """
    if max_chunks < 1:
        raise InputError(f"a cap of {max_chunks} chunks: it must be at least 1")
    ranked = (
        (_rank(doc_id, number, seed), index, number)
        for index, (doc_id, count) in enumerate(zip(doc_ids, n_chunks, strict=True))
        for number in range(count)
    )
    picks: dict[int, list[int]] = {}
    for _, index, number in sorted(
        heapq.nsmallest(max_chunks, ranked), key=lambda item: (item[1], item[2])
    ):
        picks.setdefault(index, []).append(number)
    return picks


def _rank(doc_id: str, number: int, seed: int) -> bytes:
    return blake2b(f"{seed}/{number}/{doc_id}".encode(), digest_size=8).digest()
