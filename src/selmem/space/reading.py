"""One text through the models, as `selmem measure` would put it into its tables."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerFast

from selmem.annotation import annotate, load_spacy, split_documents
from selmem.chunks import Chunk, TokenizedDocument, cut_chunk, tokenize_document
from selmem.documents import Document
from selmem.errors import InputError
from selmem.measurement.cell_tables import Naming, cell_tables
from selmem.measurement.cells import Cell
from selmem.measurement.placement import token_spans
from selmem.measurement.scoring import score_batch
from selmem.omission_rate.alignment import align
from selmem.segmentation import word_spans
from selmem.space.models import LoadedModels
from selmem.space.prefixes import prefix_points, whole_text_point
from selmem.space.records import Piece, Reading, WordRecord
from selmem.tokenization import decode

if TYPE_CHECKING:
    from spacy.language import Language

MAX_CHARACTERS = 8_000  # beyond what any probe reads
MARGIN = 64  # characters that the tagger sees behind what is read
END_GUESS = "■"
NO_TAGGER = (
    "No part-of-speech tagger is installed here, so words are told apart by their kind alone."
)


@dataclass
class Annotator:
    """Finds words, with parts of speech and entities where spaCy and its model are installed."""

    _nlp: "Language | None" = None
    _tried: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, document: Document) -> Document:
        """Return the document with its words."""
        with self._lock:
            nlp = self._pipeline()
            tagged = annotate([document], model=nlp) if nlp else split_documents([document])
            return next(iter(tagged))

    @property
    def has_tags(self) -> bool:
        """Whether words get parts of speech."""
        with self._lock:
            return self._pipeline() is not None

    def _pipeline(self) -> "Language | None":
        if not self._tried:
            self._tried = True
            try:
                self._nlp = load_spacy()
            except InputError:
                self._nlp = None
        return self._nlp


def read_text(loaded: LoadedModels, text: str, annotator: Annotator) -> Reading:
    """Return what the models make of a text, or of its beginning where it is too long.

    Args:
        loaded: the models.
        text: as the user gave it.
        annotator: finds its words.

    Raises:
        InputError: there is no text.
    """
    given = clean(text)
    limit: int = loaded.models.probe.config.max_chunk_tokens
    document = annotator(_beginning(given, loaded.tokenizer, limit))
    tokenized = tokenize_document(document, loaded.tokenizer)
    n_tokens = whole_characters(loaded.tokenizer, tokenized.token_ids, limit)
    chunk = cut_chunk(tokenized, loaded.tokenizer, n_tokens, 0)
    notes = [] if annotator.has_tags else [NO_TAGGER]
    if n_tokens < len(tokenized.token_ids) or len(document.text) < len(given):
        notes.insert(0, _cut_note(chunk, given, limit))
    return _reading(loaded, tokenized, chunk, " ".join(notes))


def clean(text: str) -> str:
    """Return the text without white space around it; half surrogate pairs become U+FFFD.

    Raises:
        InputError: nothing is left.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    if not whole:
        raise InputError("There is no text: type or paste at least one word.")
    return whole


def _beginning(text: str, tokenizer: PreTrainedTokenizerFast, limit: int) -> Document:
    """Return the text, or of a long one what is read and a little more, to spare the tagger."""
    document = Document(doc_id="text", source="text", text=text[:MAX_CHARACTERS])
    token_ids = tokenize_document(document, tokenizer).token_ids
    if len(token_ids) <= limit:
        return document
    n_characters = len(decode(tokenizer, token_ids[:limit])) + MARGIN
    return replace(document, text=document.text[:n_characters])


def written_words(
    token_ids: Sequence[int], written_ids: Sequence[int], tokenizer: PreTrainedTokenizerFast
) -> Iterator[Piece]:
    """Yield the words of a reconstruction; matched are those all of whose tokens are aligned.

    Args:
        token_ids: of the text.
        written_ids: of the reconstruction.
        tokenizer: of both.
    """
    [matches] = align([token_ids], [written_ids])
    aligned = set(matches.tolist())
    text = decode(tokenizer, written_ids)
    spans = token_spans(tokenizer, text, written_ids)
    for start, end in word_spans(text):
        own = [i for i, (low, high) in enumerate(spans) if low < end and high > start]
        yield Piece(start=start, end=end, matched=aligned.issuperset(own))


def whole_characters(
    tokenizer: PreTrainedTokenizerFast, token_ids: tuple[int, ...], limit: int
) -> int:
    """Return how many tokens to read: at most `limit`, and no character's bytes in part."""
    if len(token_ids) <= limit:
        return len(token_ids)
    # UTF-8 has up to four bytes a character, and a token at least one byte
    for n_tokens in range(limit, max(limit - 4, 0), -1):
        if not decode(tokenizer, token_ids[:n_tokens]).endswith("\N{REPLACEMENT CHARACTER}"):
            return n_tokens
    return limit


def _cut_note(chunk: Chunk, given: str, limit: int) -> str:
    return (
        f"Only the beginning of the text was read: {chunk.length} tokens, that is "
        f"{len(chunk.text):,} of {len(given):,} characters. "
        f"This probe was trained on texts of up to {limit} tokens."
    )


def _reading(
    loaded: LoadedModels, tokenized: TokenizedDocument, chunk: Chunk, note: str
) -> Reading:
    arrays = score_batch(loaded.models, torch.tensor([chunk.token_ids]), donors=None, means=None)
    naming = Naming(encoder=loaded.choice.encoder, probe=loaded.choice.probe, controls=())
    cell = Cell("text", chunk.length, [chunk])
    tables = cell_tables(cell, arrays, loaded.tokenizer, naming, frequencies=None, seed=0)
    rows = {name: table.to_pylist() for name, table in tables.items()}
    [summary] = rows["reconstructions"]
    words = tuple(_words(rows["words"], rows["tokens"], loaded.tokenizer))
    shorter = prefix_points(loaded, tokenized, chunk.length, rows["tokens"])
    return Reading(
        model=loaded.choice.name,
        text=chunk.text,
        note=note,
        n_tokens=chunk.length,
        reconstruction=summary["text"],
        exact_match=summary["exact_match"],
        null_bits=_rounded(summary["null_bits"]),
        recovered_bits=_rounded(summary["recovered_bits"]),
        words=words,
        written=tuple(written_words(chunk.token_ids, summary["token_ids"], loaded.tokenizer)),
        lengths=(*shorter, whole_text_point(chunk.length, words, summary)),
    )


def _words(
    words: list[dict[str, Any]], tokens: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast
) -> Iterator[WordRecord]:
    for word in words:
        own = tokens[word["token_start"] : word["token_start"] + word["n_tokens"]]
        confidence = 1.0
        for token in own:
            confidence *= token["forced_confidence"]
        yield WordRecord(
            start=word["char_start"],
            end=word["char_end"],
            pos=word["pos"],
            entity=word["entity"],
            kind=word["kind"],
            cut=word["cut"],
            omitted_count=round(word["omitted_count"], 4),
            omitted_aligned=word["omitted_aligned"],
            omitted_forced=word["omitted_forced"],
            null_bits=_rounded(word["null_bits"]),
            recovered_bits=_rounded(word["recovered_bits"]),
            guess=_guess_text([token["forced_argmax_id"] for token in own], tokenizer),
            confidence=round(confidence, 4),
            **_null_guess(own, tokenizer),
        )


def _null_guess(tokens: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    guesses = [token["null_argmax_id"] for token in tokens]
    if None in guesses:
        return {"null_guess": None, "null_right": None}
    return {
        "null_guess": _guess_text(guesses, tokenizer),
        "null_right": guesses == [token["token_id"] for token in tokens],
    }


def _guess_text(token_ids: list[int], tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the guesses for a word's tokens as text, with a sign for the end of the text."""
    pieces: list[list[int]] = [[]]
    for token_id in token_ids:
        if token_id == tokenizer.eos_token_id:
            pieces.append([])
        else:
            pieces[-1].append(token_id)
    return END_GUESS.join(decode(tokenizer, piece) for piece in pieces)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
