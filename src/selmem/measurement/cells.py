"""The chunks of one source and one length, and the batches they are measured in."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from selmem.chunks import Chunk
from selmem.tables import WHOLE_TEXT


@dataclass(frozen=True)
class Cell:
    """Chunks of one source and one length, in the order of the source; whole texts by length."""

    source: str
    length: int  # tokens, or WHOLE_TEXT
    chunks: list[Chunk]

    @property
    def n_documents(self) -> int:
        """The number of documents that the chunks are from."""
        return len({chunk.doc_id for chunk in self.chunks})

    @property
    def n_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each chunk."""
        return np.array([chunk.length for chunk in self.chunks], dtype=np.int64)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.source}, {length_name(self.length)}"

    def batches(self, batch_tokens: int) -> Iterator[slice]:
        """Yield the rows of each batch: chunks of one length, together about `batch_tokens`."""
        first = 0
        for n_tokens, same in groupby(self.n_tokens.tolist()):
            end = first + len(list(same))
            rows = max(1, batch_tokens // n_tokens)
            for start in range(first, end, rows):
                yield slice(start, min(start + rows, end))
            first = end


def length_name(length: int) -> str:
    """Return what messages call a length.

    >>> length_name(16), length_name(WHOLE_TEXT)
    ('16 tokens', 'whole texts')
    """
    return "whole texts" if length == WHOLE_TEXT else f"{length} tokens"
