"""What is measured: for every source and length, at most a given number of chunks."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee

from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from selmem.annotation import annotate, split_documents
from selmem.chunks import (
    Chunk,
    TokenizedDocument,
    cut_chunk,
    tokenize_document,
    whole_text,
    with_words_of,
)
from selmem.corpora import parse_source, read_documents
from selmem.documents import Document
from selmem.errors import InputError
from selmem.measurement.cells import Cell
from selmem.overlap import Overlap, without_overlap
from selmem.sampling import pick_chunks
from selmem.tables import WHOLE_TEXT

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a measurement takes of its sources, and what not.

    Attributes:
        cells: by source and then length.
        missing: (source, length) without any chunk: every document is too short, or for whole
            texts too long.
        n_overlapping: documents of each source left out because they stand in the training corpus;
            empty where that was not asked for.
        n_too_long: documents of each source too long to be measured whole; likewise.
    """

    cells: list[Cell]
    missing: list[tuple[str, int]]
    n_overlapping: dict[str, int]
    n_too_long: dict[str, int]


def select_chunks(
    data: Sequence[str],
    lengths: Sequence[int],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_chunks: int,
    max_tokens: int,
    annotator: str,
    seed: int,
    overlaps: Sequence[Overlap] | None = None,
    max_overlap: float = 1.0,
) -> Selection:
    """Cut every source into chunks of every length.

    Where a source has more chunks than wanted, a random sample of all its chunks is taken
    (`sampling.pick_chunks`). Only text about a chunk is annotated.

    Args:
        data: sources, as `corpora.read_documents` takes them.
        lengths: tokens per chunk, or `WHOLE_TEXT`.
        tokenizer: a fast one.
        max_chunks: most chunks of a source and length.
        max_tokens: longest whole text.
        annotator: "spacy" or "none", for documents without words.
        seed: of the samples.
        overlaps: of all documents with the training corpus, if some are to be left out.
        max_overlap: largest share of a document's n-grams that may stand in the corpus.

    Raises:
        InputError: two sources of one name, two documents of one id, a document without an entry
            in `overlaps`, or no chunk at all.
    """
    names = [parse_source(source).name for source in data]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"two sources are named {sorted(twice)[0]!r}; name them apart, as in a=PATH b=PATH"
        )
    cells: list[Cell] = []
    n_overlapping: dict[str, int] = {}
    n_too_long: dict[str, int] = {}
    longest = 0
    for name, source in zip(names, data, strict=True):
        documents = _unique(read_documents(source))
        if overlaps is not None:
            kept = list(without_overlap(documents, overlaps, max_share=max_overlap))
            n_overlapping[name], documents = len(documents) - len(kept), kept
        sizes = _token_counts(name, documents, tokenizer)
        longest = max([longest, *sizes])
        if WHOLE_TEXT in lengths:
            n_too_long[name] = sum(size > max_tokens for size in sizes)
        ids = [document.doc_id for document in documents]
        picks = {
            length: pick_chunks(
                ids, [_n_chunks(size, length, max_tokens) for size in sizes], max_chunks, seed
            )
            for length in lengths
        }
        cells += _cut(name, documents, picks, tokenizer, annotator)
    if not any(cell.chunks for cell in cells):
        raise InputError(_why_nothing(lengths, longest, max_tokens, max_overlap))
    found = Selection(
        cells=[cell for cell in cells if cell.chunks],
        missing=[(cell.source, cell.length) for cell in cells if not cell.chunks],
        n_overlapping=n_overlapping,
        n_too_long=n_too_long,
    )
    _warn(found, max_tokens, max_overlap)
    return found


def _n_chunks(size: int, length: int, max_tokens: int) -> int:
    return int(0 < size <= max_tokens) if length == WHOLE_TEXT else size // length


def _why_nothing(lengths: Sequence[int], longest: int, max_tokens: int, max_overlap: float) -> str:
    if not longest:
        return (
            f"every document shares over {max_overlap:.0%} of its n-grams with the training "
            "corpus; raise --max-overlap or take other text"
        )
    if WHOLE_TEXT in lengths:
        return f"every document is longer than the {max_tokens} tokens that the probe can write"
    return (
        f"text is shorter than a chunk: the longest document has {longest} tokens, "
        f"{min(lengths)} are needed; choose a shorter length or give longer text"
    )


def _warn(selection: Selection, max_tokens: int, max_overlap: float) -> None:
    for source, length in selection.missing:
        needed = f"at most {max_tokens}" if length == WHOLE_TEXT else length
        logger.warning("%s: no document has %s tokens", source, needed)
    for source, n_documents in selection.n_overlapping.items():
        logger.info(
            "%s: left out %d documents of which over %s stands in the training corpus",
            source,
            n_documents,
            f"{max_overlap:.0%}",
        )
    for source, n_documents in selection.n_too_long.items():
        logger.info("%s: %d documents have over %d tokens", source, n_documents, max_tokens)
    for cell in selection.cells:
        if cell.n_documents < 2:
            logger.warning(
                "%s: all chunks are of one document, so there is no chance rate", cell.name
            )


def _unique(documents: Iterable[Document]) -> list[Document]:
    found = list(documents)
    seen: set[str] = set()
    for document in found:
        if document.doc_id in seen:
            raise InputError(f"two documents of {document.source} have the id {document.doc_id!r}")
        seen.add(document.doc_id)
    return found


def _token_counts(
    name: str, documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast
) -> list[int]:
    progress = tqdm(
        documents, desc=f"tokenizing {name}", unit="document", disable=None, leave=False
    )
    return [
        len(tokenize_document(replace(document, words=()), tokenizer).token_ids)
        for document in progress
    ]


def _cut(
    name: str,
    documents: Sequence[Document],
    picks: dict[int, dict[int, list[int]]],
    tokenizer: PreTrainedTokenizerFast,
    annotator: str,
) -> list[Cell]:
    wanted = sorted(set().union(*picks.values()))
    plain: Iterator[TokenizedDocument] = (
        tokenize_document(replace(documents[i], words=()), tokenizer) for i in wanted
    )
    needed = [documents[index] for index in wanted]
    if annotator == "spacy":
        plain, ahead = tee(plain)  # the tagger is some documents ahead
        spans = (_spans(tokens, i, picks) for i, tokens in zip(wanted, ahead, strict=True))
        annotated = annotate(needed, spans=spans)
    else:
        annotated = split_documents(needed)
    chunks: dict[int, list[Chunk]] = {length: [] for length in picks}
    progress = tqdm(
        zip(wanted, plain, annotated, strict=True),
        desc=f"annotating {name}",
        unit="document",
        total=len(wanted),
        disable=None,
        leave=False,
    )
    for index, tokens, document in progress:
        tokenized = with_words_of(tokens, document)
        for length, numbers in picks.items():
            chunks[length] += [
                whole_text(tokenized, tokenizer)
                if length == WHOLE_TEXT
                else cut_chunk(tokenized, tokenizer, length, number)
                for number in numbers.get(index, [])
            ]
    return [
        Cell(name, length, sorted(found, key=lambda chunk: chunk.length))
        for length, found in chunks.items()
    ]


def _spans(
    tokens: TokenizedDocument, index: int, picks: dict[int, dict[int, list[int]]]
) -> list[tuple[int, int]]:
    """Return the characters of the picked chunks of a document."""
    characters = tokens.characters
    return [
        (int(characters[number * size, 0]), int(characters[(number + 1) * size - 1, 1]))
        for length, numbers in picks.items()
        for size in [len(characters) if length == WHOLE_TEXT else length]
        for number in numbers.get(index, [])
    ]
