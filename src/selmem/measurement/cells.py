"""The chunks of one source and one length, and the batches they are measured in."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selmem.chunks import Chunk
from selmem.tables import length_name


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
        """Yield the rows of each batch; filled up, a batch has about `batch_tokens` tokens."""
        widths = self.n_tokens  # ascending, so the last row is the longest
        start = 0
        while start < len(widths):
            sizes = widths[start:] * np.arange(1, len(widths) - start + 1)
            end = start + max(1, int((sizes <= batch_tokens).sum()))
            yield slice(start, end)
            start = end
