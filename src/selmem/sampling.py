"""A capped sample of chunks that keeps as many documents as it can."""

import heapq
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from selmem.chunks import Chunk
from selmem.errors import InputError


def sample_chunks(chunks: Iterable[Chunk], max_chunks: int, seed: int) -> list[Chunk]:
    """Return at most `max_chunks` chunks, spread evenly over documents, in their first order.

    Intervals resample documents, so a cap costs least where it leaves every document some chunks:
    each may give up to k, with the largest k that fits, and the first documents in hash order one
    more. Above `max_chunks` documents, the first in hash order give one each. The order depends on
    `doc_id` and seed only, so line-aligned sources keep the same lines. No more than `max_chunks`
    documents are held in memory.

    Args:
        chunks: of one source and length, those of a document together.
        max_chunks: the cap, at least 1.
        seed: another seed is another sample.

    Raises:
        InputError: the cap is below 1.
    """
    if max_chunks < 1:
        raise InputError(f"a cap of {max_chunks} chunks: it must be at least 1")
    by_document = _first_documents(chunks, max_chunks, seed)
    sizes = [len(held) for held in by_document]
    chosen = [
        item
        for held, quota in zip(by_document, _quotas(sizes, max_chunks), strict=True)
        for item in sorted(held, key=lambda item: _chunk_rank(item[1], seed))[:quota]
    ]
    return [chunk for _, chunk in sorted(chosen, key=lambda item: item[0])]


def _first_documents(
    chunks: Iterable[Chunk], n_documents: int, seed: int
) -> list[list[tuple[int, Chunk]]]:
    """Return the (position, chunk) pairs of the first documents in hash order."""
    held: dict[str, list[tuple[int, Chunk]]] = {}
    last_first: list[tuple[int, str]] = []
    for position, chunk in enumerate(chunks):
        if chunk.doc_id not in held:
            held[chunk.doc_id] = []
            heapq.heappush(last_first, (-_rank(chunk.doc_id, seed), chunk.doc_id))
            if len(last_first) > n_documents:
                del held[heapq.heappop(last_first)[1]]
        if chunk.doc_id in held:
            held[chunk.doc_id].append((position, chunk))
    return [held[doc_id] for _, doc_id in sorted(last_first, reverse=True)]


def _quotas(sizes: Sequence[int], total: int) -> list[int]:
    """Return how many each may give: one more to each that has more, in order, up to `total`."""
    quotas = [0] * len(sizes)
    while total > 0:
        unfilled = [i for i, size in enumerate(sizes) if quotas[i] < size][:total]
        if not unfilled:
            break
        for index in unfilled:
            quotas[index] += 1
        total -= len(unfilled)
    return quotas


def _chunk_rank(chunk: Chunk, seed: int) -> int:
    number = chunk.chunk_id.rpartition("/")[2]
    return _rank(f"{chunk.doc_id}/{number}", seed)


def _rank(key: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}/{key}".encode(), digest_size=8).digest())
