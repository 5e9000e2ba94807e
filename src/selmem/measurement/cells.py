"""What is measured: for every source and length, at most a given number of chunks."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from selmem.annotation import annotate, split_documents
from selmem.chunks import Chunk, cut_chunk, tokenize_document
from selmem.corpora import parse_source, read_documents
from selmem.documents import Document
from selmem.errors import InputError
from selmem.sampling import pick_chunks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """Chunks of one source and one length, in the order of the source."""

    source: str
    length: int
    chunks: list[Chunk]

    @property
    def n_documents(self) -> int:
        """The number of documents that the chunks are from."""
        return len({chunk.doc_id for chunk in self.chunks})

    def batches(self, batch_tokens: int) -> Iterator[slice]:
        """Yield the rows of each batch; a batch has about `batch_tokens` tokens."""
        rows = max(1, batch_tokens // self.length)
        for start in range(0, len(self.chunks), rows):
            yield slice(start, min(start + rows, len(self.chunks)))


def read_cells(
    data: Sequence[str],
    lengths: Sequence[int],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_chunks: int,
    annotator: str,
    seed: int,
) -> tuple[list[Cell], list[tuple[str, int]]]:
    """Cut every source into chunks of every length.

    Where a source has more chunks than wanted, a random sample of all its chunks is taken
    (`sampling.pick_chunks`). Only documents with a chunk are annotated.

    Args:
        data: sources, as `corpora.read_documents` takes them.
        lengths: tokens per chunk.
        tokenizer: a fast one.
        max_chunks: most chunks of a source and length.
        annotator: "spacy" or "none", for documents without words.
        seed: of the samples.

    Returns:
        the cells, by source and then length, and those (source, length) with no chunk at all.

    Raises:
        InputError: two sources of one name, two documents of one id, or no source that is long
            enough for any length.
    """
    names = [parse_source(source).name for source in data]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"two sources are named {sorted(twice)[0]!r}; name them apart, as in a=PATH b=PATH"
        )
    cells: list[Cell] = []
    longest = 0
    for name, source in zip(names, data, strict=True):
        documents = _unique(read_documents(source))
        sizes = _token_counts(name, documents, tokenizer)
        longest = max(longest, *sizes)
        ids = [document.doc_id for document in documents]
        picks = {
            length: pick_chunks(ids, [size // length for size in sizes], max_chunks, seed)
            for length in lengths
        }
        cells += _cut(name, documents, picks, tokenizer, annotator)
    if not any(cell.chunks for cell in cells):
        raise InputError(
            f"text is shorter than a chunk: the longest document has {longest} tokens, "
            f"{min(lengths)} are needed"
        )
    too_short = [(cell.source, cell.length) for cell in cells if not cell.chunks]
    for source, length in too_short:
        logger.warning("%s: no document has %d tokens", source, length)
    return [cell for cell in cells if cell.chunks], too_short


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
    add_words = annotate if annotator == "spacy" else split_documents
    annotated = add_words(documents[index] for index in wanted)
    chunks: dict[int, list[Chunk]] = {length: [] for length in picks}
    progress = tqdm(
        zip(wanted, annotated, strict=True),
        desc=f"annotating {name}",
        unit="document",
        total=len(wanted),
        disable=None,
        leave=False,
    )
    for index, document in progress:
        tokenized = tokenize_document(document, tokenizer)
        for length, numbers in picks.items():
            chunks[length] += [
                cut_chunk(tokenized, tokenizer, length, number) for number in numbers.get(index, [])
            ]
    return [Cell(name, length, found) for length, found in chunks.items()]
