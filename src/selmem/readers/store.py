"""The texts of a corpus store, decoded from its tokens."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from selmem.corpus_store import Positions, open_store
from selmem.documents import Document
from selmem.errors import InputError
from selmem.tokenization import load_tokenizer, tokenizer_hash

_BATCH_TOKENS = 1_000_000  # decoded at once, in as many threads as there are cores


def read_store(folder: Path, tokenizer: str) -> Iterator[Document]:
    """Yield the documents of a store, training documents first.

    With a byte-level tokenizer that does not normalise, they are the texts that the store was made
    of, byte for byte.

    Args:
        folder: the store's.
        tokenizer: folder or Hub id of the tokenizer that made it.

    Raises:
        InputError: no tokenizer is given, or another one, or the store is damaged.
    """
    store = open_store(folder)
    if not tokenizer:
        raise InputError(f"{folder} holds tokens; name their tokenizer, as in {folder}#tokenizer")
    decoder = load_tokenizer(tokenizer)
    store.require_tokenizer(tokenizer_hash(decoder))
    table = pq.read_table(folder / "documents.parquet", columns=["doc_id", "source"])
    names = list(zip(table["doc_id"].to_pylist(), table["source"].to_pylist(), strict=True))
    for rows in _batches(store.sizes):
        spans = ((store.offsets[row], store.offsets[row] + store.sizes[row]) for row in rows)
        ids = [store.tokens[begin:end].tolist() for begin, end in spans]
        texts = decoder.backend_tokenizer.decode_batch(ids, skip_special_tokens=False)
        for row, text in zip(rows, texts, strict=True):
            yield Document(doc_id=names[row][0], source=names[row][1], text=text)


def _batches(sizes: Positions) -> Iterator[range]:
    """Yield runs of documents of about `_BATCH_TOKENS` tokens, or of one longer document."""
    batch_of_row = (np.cumsum(sizes) - 1) // _BATCH_TOKENS
    edges = [0, *(np.flatnonzero(np.diff(batch_of_row)) + 1).tolist(), len(sizes)]
    yield from (range(begin, end) for begin, end in pairwise(edges))
