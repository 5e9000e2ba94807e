"""Chunks: windows of T tokens inside a document, and the tokens of each word by characters."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from selmem.documents import Document, Word
from selmem.tokenization import decode

_IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ChunkWord:
    """A word of a chunk and the chunk's tokens that share a character with it.

    Attributes:
        word_index: 0-based within the chunk.
        text: characters of the whole word, as in the document.
        token_start: first token, 0-based within the chunk.
        token_end: one past the last token.
        cut: whether the word also has tokens outside the chunk.
        pos: see `Word`; likewise `entity` and `kind`.
    """

    word_index: int
    text: str
    token_start: int
    token_end: int
    cut: bool
    pos: str | None
    entity: str | None
    kind: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """`length` consecutive tokens of one document.

    Attributes:
        chunk_id: "source/doc_id/length/number within the document"; of a whole text
            "source/doc_id/whole/0".
        text: the decoded tokens.
    """

    chunk_id: str
    doc_id: str
    source: str
    length: int
    text: str
    token_ids: tuple[int, ...]
    words: tuple[ChunkWord, ...]


@dataclass(frozen=True)
class TokenizedDocument:
    """A document, its token ids (n,), their characters and the token span of each of its words."""

    document: Document
    token_ids: tuple[int, ...]
    characters: _IntArray  # (n, 2) first character, and one past the last
    word_starts: _IntArray  # (n_words,) first token
    word_ends: _IntArray  # (n_words,) one past the last token; equal to the start: no token


def tokenize_document(document: Document, tokenizer: PreTrainedTokenizerFast) -> TokenizedDocument:
    """Tokenize a whole document at once, without special tokens.

    Text that looks like a special token ("<|endoftext|>") is tokenized as text.
    """
    encoding = tokenizer(
        document.text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        split_special_tokens=True,
        verbose=False,
    )
    offsets = np.asarray(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    return _placed(document, tuple(encoding["input_ids"]), offsets)


def with_words_of(tokenized: TokenizedDocument, document: Document) -> TokenizedDocument:
    """Return the tokens with the words of `document`, which has the same text."""
    return _placed(document, tokenized.token_ids, tokenized.characters)


def _placed(
    document: Document, token_ids: tuple[int, ...], offsets: _IntArray
) -> TokenizedDocument:
    bounds = np.array([(w.start, w.end) for w in document.words], dtype=np.int64).reshape(-1, 2)
    starts = np.searchsorted(offsets[:, 1], bounds[:, 0], side="right")
    ends = np.searchsorted(offsets[:, 0], bounds[:, 1], side="left")
    return TokenizedDocument(document, token_ids, offsets, starts, ends)


def cut_chunk(
    tokenized: TokenizedDocument, tokenizer: PreTrainedTokenizerFast, length: int, number: int
) -> Chunk:
    """Return window `number`, counted from 0, of `length` tokens of one document."""
    document = tokenized.document
    start = number * length
    token_ids = tokenized.token_ids[start : start + length]
    return Chunk(
        chunk_id=f"{document.source}/{document.doc_id}/{length}/{number}",
        doc_id=document.doc_id,
        source=document.source,
        length=length,
        text=decode(tokenizer, token_ids),
        token_ids=token_ids,
        words=_chunk_words(tokenized, start, start + length),
    )


def whole_text(tokenized: TokenizedDocument, tokenizer: PreTrainedTokenizerFast) -> Chunk:
    """Return a whole document as one chunk."""
    document = tokenized.document
    chunk = cut_chunk(tokenized, tokenizer, len(tokenized.token_ids), 0)
    return replace(chunk, chunk_id=f"{document.source}/{document.doc_id}/whole/0")


def _chunk_words(tokenized: TokenizedDocument, start: int, end: int) -> tuple[ChunkWord, ...]:
    """Return the words with a token in [start, end), their tokens counted from `start`.

    A word without any token is only white space whose characters the tokenizer trims.
    """
    first = int(np.searchsorted(tokenized.word_ends, start, side="right"))
    last = int(np.searchsorted(tokenized.word_starts, end, side="left"))
    spans = (
        (word, int(word_start), int(word_end))
        for word, word_start, word_end in zip(
            tokenized.document.words[first:last],
            tokenized.word_starts[first:last],
            tokenized.word_ends[first:last],
            strict=True,
        )
        if word_start < word_end
    )
    return tuple(
        _chunk_word(
            index,
            word,
            tokenized.document.text,
            (word_start - start, word_end - start),
            end - start,
        )
        for index, (word, word_start, word_end) in enumerate(spans)
    )


def _chunk_word(index: int, word: Word, text: str, span: tuple[int, int], length: int) -> ChunkWord:
    return ChunkWord(
        word_index=index,
        text=text[word.start : word.end],
        token_start=max(span[0], 0),
        token_end=min(span[1], length),
        cut=span[0] < 0 or span[1] > length,
        pos=word.pos,
        entity=word.entity,
        kind=word.kind,
    )
