"""Overlap of evaluation documents with a training corpus: shared word 13-grams.

The n-grams of the evaluation documents are held as sorted 64-bit hashes and the corpus streams by,
so memory depends on the evaluation documents alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from selmem.corpora import read_documents
from selmem.documents import Document
from selmem.errors import InputError
from selmem.tables import read_table, require_writable_file, write_table

OVERLAP = pa.schema(
    [
        ("source", pa.string()),
        ("doc_id", pa.string()),
        ("n_ngrams", pa.int64()),
        ("n_found", pa.int64()),  # of them, in the corpus
    ]
)

N_WORDS = 13  # as in Brown et al. 2020, arXiv:2005.14165, appendix C
_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word's bits are lost
_CACHED_WORDS = 1_000_000
_BATCH_NGRAMS = 1 << 20

_Hashes = npt.NDArray[np.uint64]
_EMPTY: _Hashes = np.empty(0, dtype=np.uint64)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much of a document stands in a corpus.

    Attributes:
        n_ngrams: n-grams of the document, repeated ones counted each time.
        n_found: those of them that stand in the corpus.
    """

    source: str
    doc_id: str
    n_ngrams: int
    n_found: int

    @property
    def share(self) -> float | None:
        """Share of n-grams found, in [0, 1]; None for a document too short to have one."""
        return self.n_found / self.n_ngrams if self.n_ngrams else None

    def within(self, max_share: float) -> bool:
        """Return whether at most `max_share` is found; true of a document too short to tell."""
        return (self.share or 0.0) <= max_share


def find_overlap(
    documents: Iterable[Document], corpus: Iterable[str], *, n_words: int = N_WORDS
) -> list[Overlap]:
    """Return each document's overlap with the texts of a corpus.

    Words are runs of letters, digits and underscores in lower case; punctuation does not count.

    Args:
        documents: evaluation documents; the hashes of their n-grams are held in memory.
        corpus: training texts, streamed.
        n_words: words per n-gram.
    """
    hasher = _NgramHasher(n_words)
    held = [(d.source, d.doc_id, hasher.hashes(d.text)) for d in documents]
    wanted = np.unique(np.concatenate([_EMPTY, *(hashes for _, _, hashes in held)]))
    found = np.zeros(len(wanted), dtype=np.bool_)
    for batch in _batches(hasher.hashes(text) for text in corpus):
        found[np.flatnonzero(np.isin(wanted, batch))] = True
    return [
        Overlap(
            source=source,
            doc_id=doc_id,
            n_ngrams=len(hashes),
            n_found=int(found[np.searchsorted(wanted, hashes)].sum()),
        )
        for source, doc_id, hashes in held
    ]


def store_overlap(sources: Sequence[str], corpus: Sequence[str], out: Path) -> Path:
    """Write the overlap of every document of the sources with a whole corpus, and return `out`.

    Args:
        sources: evaluation sources, as `corpora.read_documents` takes them.
        corpus: training sources, streamed.
        out: Parquet file to write.

    Raises:
        InputError: a source cannot be read, or `out` cannot be written.
    """
    require_writable_file(out)
    documents = (document for source in sources for document in read_documents(source))
    training = (document for source in corpus for document in read_documents(source))
    progress = tqdm(training, desc="overlap", unit=" documents", disable=None)
    overlaps = find_overlap(documents, (document.text for document in progress))
    metadata = {"sources": list(sources), "corpus": list(corpus), "n_words": N_WORDS}
    write_overlap(overlaps, out, metadata=metadata)
    return out


class _NgramHasher:
    """Hashes of word n-grams: a polynomial in the words' own hashes, modulo 2^64."""

    def __init__(self, n_words: int) -> None:
        self._n_words = n_words
        self._cache: dict[str, int] = {}

    def hashes(self, text: str) -> _Hashes:
        """Return a hash per n-gram of the text, in order."""
        words = _WORD.findall(text.lower())
        if len(words) < self._n_words:
            return _EMPTY
        word_hashes = np.fromiter(map(self._word_hash, words), dtype=np.uint64, count=len(words))
        n_ngrams = len(words) - self._n_words + 1
        result = np.zeros(n_ngrams, dtype=np.uint64)
        for offset in range(self._n_words):
            result = result * _MULTIPLIER + word_hashes[offset : offset + n_ngrams]
        return result

    def _word_hash(self, word: str) -> int:
        found = self._cache.get(word)
        if found is None:
            if len(self._cache) >= _CACHED_WORDS:
                self._cache.clear()
            found = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
            self._cache[word] = found
        return found


def _batches(arrays: Iterable[_Hashes]) -> Iterator[_Hashes]:
    """Yield the arrays joined to about `_BATCH_NGRAMS` each."""
    held: list[_Hashes] = []
    n_held = 0
    for array in arrays:
        held.append(array)
        n_held += len(array)
        if n_held >= _BATCH_NGRAMS:
            yield np.concatenate(held)
            held, n_held = [], 0
    if held:
        yield np.concatenate(held)


def write_overlap(overlaps: Sequence[Overlap], path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write the overlaps as a Parquet file, atomically."""
    rows = [asdict(overlap) for overlap in overlaps]
    write_table(pa.Table.from_pylist(rows, schema=OVERLAP), path, metadata=metadata)


def read_overlap(path: Path) -> list[Overlap]:
    """Return the overlaps of a file of `write_overlap`.

    Raises:
        InputError: the file is absent, damaged, or another table.
    """
    table = read_table(path, command="selmem overlap")
    if table.schema.names != OVERLAP.names:
        raise InputError(f"{path} has the columns {table.schema.names}, not {OVERLAP.names}")
    return [Overlap(**row) for row in table.to_pylist()]


def without_overlap(
    documents: Iterable[Document], overlaps: Iterable[Overlap], *, max_share: float
) -> Iterator[Document]:
    """Yield the documents of which at most `max_share` of the n-grams stand in the corpus.

    Documents too short to have an n-gram pass.

    Raises:
        InputError: a document has no entry in `overlaps`.
    """
    stays = {(o.source, o.doc_id): o.within(max_share) for o in overlaps}
    for document in documents:
        key = (document.source, document.doc_id)
        if key not in stays:
            raise InputError(
                f"no overlap is stored for document {key[1]!r} of {key[0]}; compute it again"
            )
        if stays[key]:
            yield document
