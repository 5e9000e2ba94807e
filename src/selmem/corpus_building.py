"""From documents to a corpus store: tokenise once, hold out whole documents, write atomically."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selmem.corpora import read_documents
from selmem.corpus_store import FORMAT, CorpusStore, Positions, is_store, open_store
from selmem.corpus_tokenising import TokenisedDocument, tokenised
from selmem.errors import InputError
from selmem.tables import write_text
from selmem.tokenization import tokenizer_hash
from selmem.word_pairs import WordSwap

COPY_TOKENS = 1 << 24  # moved at once while sorting the documents
FEW_DOCUMENTS = 20  # held out at the least, or a tenth of a small corpus


@dataclass(frozen=True)
class _Row:
    doc_id: str
    source: str
    n_tokens: int
    digest: bytes


def build_store(
    sources: Sequence[str],
    tokenizer: Any,
    out: Path,
    *,
    held_out: float = 0.005,
    swap: WordSwap | None = None,
    max_tokens: int | None = None,
    jobs: int = 1,
) -> CorpusStore:
    """Tokenise documents into a store at `out`, whole or not at all, and open it.

    Args:
        sources: what `read_documents` takes.
        tokenizer: a fast transformers tokenizer with an end-of-text token.
        out: folder to make; one made before from the same arguments is opened instead.
        held_out: share of the documents held out, chosen by the hash of their text, but at least
            20 documents or a tenth of a small corpus.
        swap: changes each text before it is tokenised; which documents are held out stays.
        max_tokens: no further documents are read once there are so many; all if None.
        jobs: processes that tokenise; the store is the same for any number.

    Raises:
        InputError: no documents, fewer than two, a slow tokenizer, or a folder of other content.
    """
    request = {"sources": list(sources), "tokenizer": tokenizer_hash(tokenizer), "share": held_out}
    if swap is not None:
        request["swap"] = swap.identity()
    if max_tokens is not None:
        request["max_tokens"] = max_tokens
    if out.exists():
        return _reopen(out, request)
    if not getattr(tokenizer, "is_fast", False) or tokenizer.eos_token_id is None:
        raise InputError("the tokenizer must be a fast one with an end-of-text token")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another folder") from error
    try:
        width = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
        raw = partial / "unsorted.bin"
        with raw.open("wb") as file:
            documents = (document for source in sources for document in read_documents(source))
            found = tokenised(documents, tokenizer, width, swap, jobs=jobs)
            rows = list(_up_to(max_tokens, _write_tokens(found, file, swap)))
        _require_two(rows, sources)
        summary: dict[str, Any] = {"request": request}
        if swap is not None:
            summary["n_replaced"] = dict(sorted(swap.n_replaced.items()))
        _write_sorted(raw, rows, width, held_out, summary, partial)
        raw.unlink()
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_store(out)


def _reopen(out: Path, request: dict[str, Any]) -> CorpusStore:
    store = open_store(out) if is_store(out) else None
    if store is None or store.summary.get("request") != request:
        raise InputError(f"{out} exists and holds something else; remove it or choose another")
    return store


def _write_tokens(
    documents: Iterable[TokenisedDocument], file: BinaryIO, swap: WordSwap | None
) -> Iterator[_Row]:
    """Write the tokens of every document, count what was replaced, and yield its row."""
    for document in documents:
        file.write(document.tokens)
        if swap is not None:
            swap.n_replaced.update(document.n_replaced)
        yield _Row(document.doc_id, document.source, document.n_tokens, document.digest)


def _up_to(max_tokens: int | None, rows: Iterator[_Row]) -> Iterator[_Row]:
    n_tokens = 0
    for row in rows:
        yield row
        n_tokens += row.n_tokens
        if max_tokens is not None and n_tokens >= max_tokens:
            return


def _require_two(rows: Sequence[_Row], sources: Sequence[str]) -> None:
    if len(rows) < 2:
        raise InputError(
            f"{', '.join(sources)} hold {len(rows)} documents with text, expected at least 2, "
            "since whole documents are held out; give more, or split the text by blank lines"
        )


def _held_out(rows: Sequence[_Row], share: float) -> NDArray[np.bool_]:
    """Mark the documents of the smallest hashes, so that the choice does not depend on order."""
    at_least = max(1, min(FEW_DOCUMENTS, len(rows) // 10))
    n_held_out = min(max(round(share * len(rows)), at_least), len(rows) - 1)
    limit = sorted(row.digest for row in rows)[n_held_out - 1]
    marked = np.array([row.digest <= limit for row in rows])
    if marked.all():
        raise InputError("every document has the same text; training needs at least two texts")
    return marked


def _write_sorted(
    raw: Path, rows: list[_Row], width: type, share: float, summary: dict[str, Any], folder: Path
) -> None:
    """Write the three files with training documents first, their order else unchanged."""
    held_out = _held_out(rows, share)
    order = np.argsort(held_out, kind="stable")
    sizes = np.array([row.n_tokens for row in rows], np.int64)
    ends = np.cumsum(sizes + 1)
    content = sha256()
    unsorted = np.memmap(raw, width, "r")
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", "w+", width, (len(unsorted),))
    at = 0
    for begin, end in _slices(held_out, ends):
        for start in range(begin, end, COPY_TOKENS):
            piece = unsorted[start : min(start + COPY_TOKENS, end)]
            tokens[at : at + len(piece)] = piece
            content.update(piece.tobytes())
            at += len(piece)
    tokens.flush()
    content.update(sizes[order].tobytes() + held_out[order].tobytes())
    chosen = [rows[i] for i in order]
    _write_documents(chosen, held_out[order], folder)
    totals = _totals(chosen)
    summary |= {
        "format": FORMAT,
        "content_hash": content.hexdigest(),
        "tokenizer_hash": summary["request"]["tokenizer"],
        "n_documents": len(rows),
        "n_held_out": int(held_out.sum()),
        "n_tokens": int(sizes.sum()),
        "sources": totals,
    }
    write_text(folder / "store.json", json.dumps(summary, indent=2) + "\n")


def _slices(held_out: NDArray[np.bool_], ends: Positions) -> Iterator[tuple[int, int]]:
    """Yield the runs of neighbouring documents, those of the training documents first."""
    begins = np.concatenate([[0], ends[:-1]])
    edges = np.flatnonzero(np.diff(held_out.astype(np.int8))) + 1
    first = np.concatenate([[0], edges])
    last = np.concatenate([edges, [len(ends)]]) - 1
    for wanted in (False, True):
        for i, j in zip(first, last, strict=True):
            if held_out[i] == wanted:
                yield int(begins[i]), int(ends[j])


def _write_documents(rows: list[_Row], held_out: NDArray[np.bool_], folder: Path) -> None:
    table = pa.table(
        {
            "doc_id": [row.doc_id for row in rows],
            "source": [row.source for row in rows],
            "n_tokens": pa.array([row.n_tokens for row in rows], pa.int64()),
            "held_out": held_out,
        }
    )
    pq.write_table(table, folder / "documents.parquet", compression="zstd")


def _totals(rows: Iterable[_Row]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        source = totals.setdefault(row.source, {"n_documents": 0, "n_tokens": 0})
        source["n_documents"] += 1
        source["n_tokens"] += row.n_tokens
    return totals
