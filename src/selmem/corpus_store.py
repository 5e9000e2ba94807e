"""A tokenised corpus on disk: documents are tokenised once, then read in windows of any length.

A store is a folder of three files. `tokens.npy` holds every document's tokens followed by one
end-of-text token, the training documents first and the held-out ones last, so a window of packed
text is one slice. `documents.parquet` has a row per document in that order, `store.json` the
totals, the tokenizer's hash and the hash of the content.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selmem.errors import InputError
from selmem.tables import read_table

FORMAT = 1

Split = Literal["train", "held_out"]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """All windows of `length` tokens inside the documents of one split, numbered from 0.

    Args:
        length: tokens of a window.
        first: position in the token array of each document's first window, (n_documents,).
        ends: number of windows up to and including each document, (n_documents,).
    """

    length: int
    first: Positions
    ends: Positions

    @property
    def total(self) -> int:
        """The number of windows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def starts(self, index: Positions) -> Positions:
        """Return the positions of the first tokens of the windows `index`."""
        document = np.searchsorted(self.ends, index, side="right")
        before = np.where(document > 0, self.ends[document - 1], 0)
        return self.first[document] + index - before

    def spread(self, n_windows: int) -> Positions:
        """Return the starts of at most `n_windows` windows, evenly spaced over all of them."""
        n_windows = min(n_windows, self.total)
        return self.starts((2 * np.arange(n_windows) + 1) * self.total // (2 * max(n_windows, 1)))


@dataclass(frozen=True)
class CorpusStore:
    """An open store.

    Args:
        path: its folder.
        tokens: every document's tokens and an end-of-text token after each, uint16 or uint32.
        sizes: tokens of each document without its end-of-text token, (n_documents,).
        source_ids: index into `sources` of each document, (n_documents,).
        sources: names of the sources.
        n_train: number of training documents; they come first, the held-out ones follow.
        summary: the content of `store.json`.
    """

    path: Path
    tokens: NDArray[np.unsignedinteger[Any]]
    sizes: Positions
    source_ids: NDArray[np.int32]
    sources: tuple[str, ...]
    n_train: int
    summary: dict[str, Any]

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over tokens, document sizes and the split."""
        return str(self.summary["content_hash"])

    @property
    def tokenizer_hash(self) -> str:
        """Hash of the tokenizer that made the token ids."""
        return str(self.summary["tokenizer_hash"])

    def require_tokenizer(self, expected: str) -> None:
        """Refuse a store that another tokenizer than the one of this hash has made.

        Raises:
            InputError: names both hashes.
        """
        if self.tokenizer_hash != expected:
            raise InputError(
                f"{self.path} was made with a tokenizer of hash {self.tokenizer_hash}, but the "
                f"model has {expected}; build the store with the model's tokenizer"
            )

    @cached_property
    def offsets(self) -> Positions:
        """Position of each document's first token, and the end of the array, (n_documents + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes + 1)])

    def documents(self, split: Split) -> slice:
        """Return the rows of the documents of `split`."""
        return slice(0, self.n_train) if split == "train" else slice(self.n_train, None)

    def windows(self, length: int, split: Split, *, packed: bool = False) -> Windows:
        """Return the windows of `length` tokens of one split.

        Args:
            length: tokens of a window.
            split: which documents.
            packed: windows of the running text, across documents and their end-of-text tokens;
                otherwise no window leaves its document.
        """
        rows = self.documents(split)
        begin = self.offsets[:-1][rows]
        sizes = self.sizes[rows]
        if packed:
            begin, sizes = begin[:1], np.array([(sizes + 1).sum()])
        counts = np.maximum(sizes - length + 1, 0)
        kept = counts > 0
        return Windows(length, begin[kept], np.cumsum(counts[kept]))


class TokenReader:
    """The tokens of a store in the memory of the device that trains on them."""

    def __init__(self, store: CorpusStore, device: torch.device | str) -> None:
        # signed integers of the same width: few operations take unsigned ones
        signed = np.int16 if store.tokens.dtype == np.uint16 else np.int32
        self._mask = int(np.iinfo(store.tokens.dtype).max)
        self._tokens = torch.from_numpy(np.array(store.tokens).view(signed)).to(device)

    def read(self, starts: Positions, length: int) -> Tensor:
        """Return the windows of `length` tokens at `starts` (B,) as int64 (B, length)."""
        device = self._tokens.device
        first = torch.from_numpy(starts)
        if device.type == "cuda":
            # from ordinary memory the copy would wait for the GPU
            first = first.pin_memory().to(device, non_blocking=True)
        index = first[:, None] + torch.arange(length, device=device)
        return self._tokens[index].long() & self._mask


def open_store(path: Path) -> CorpusStore:
    """Open a store.

    Raises:
        InputError: no store, a store of a later format, or a truncated one.
    """
    try:
        summary = json.loads((path / "store.json").read_text(encoding="utf-8"))
        tokens = np.load(path / "tokens.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no whole corpus store ({error}); build it again") from error
    if summary["format"] != FORMAT:
        raise InputError(f"{path} has format {summary['format']}, expected {FORMAT}; build it anew")
    table = read_table(path / "documents.parquet")
    sizes = table["n_tokens"].to_numpy()
    if len(tokens) != int(sizes.sum()) + len(sizes):
        raise InputError(
            f"{path} holds {len(tokens)} tokens, expected {int(sizes.sum()) + len(sizes)}; "
            "build it again"
        )
    names = tuple(summary["sources"])
    source_ids = np.array([names.index(name) for name in table["source"].to_pylist()], np.int32)
    n_train = len(sizes) - int(table["held_out"].to_numpy(zero_copy_only=False).sum())
    return CorpusStore(path, tokens, sizes, source_ids, names, n_train, summary)


def is_store(path: str | Path) -> bool:
    """Return whether `path` is the folder of a store."""
    return (Path(path) / "store.json").is_file()
