"""Counting the tokens and words of a text stream in bounded memory.

Tokenizing is most of the work, and natural text repeats itself, so the text is first cut into
pieces that tokenize alike wherever they stand; each distinct piece is then tokenized once.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from selmem.segmentation import split_words
from selmem.tokenization import n_token_ids, plain_backend

_MAX_PIECES = 500_000  # distinct ones held before they are tokenized
_MAX_CHARACTERS = 1 << 26  # taken in before they are tokenized: about 0.3 GB at worst
_MAX_WORDS = 2_000_000  # distinct ones held before the rarest are dropped
_ENCODE_BATCH = 8192  # pieces

_SPACE = r" \t\n\r"
_PUNCTUATION = r"!-/:-@\[-`{-~"
# Pieces end before a space that follows a non-space, and between an ASCII letter or digit and ASCII
# punctuation: "x  f(a, b)" -> "x", "  f", "(a", ",", " b", ")". Spaces of other kinds never border.
_PIECE = re.compile(
    rf"[{_SPACE}]?[A-Za-z0-9]+(?=[{_SPACE}{_PUNCTUATION}])"
    rf"|[{_SPACE}]*(?:[^{_SPACE}]*?[A-Za-z0-9](?=[{_PUNCTUATION}])"
    rf"|[^{_SPACE}]+(?:(?<=\s)[{_SPACE}]+[^{_SPACE}]*)*)"
    rf"|[{_SPACE}]+"
)
_BORDER = re.compile(rf"(?<=\S)(?=[{_SPACE}])|(?<=[A-Za-z0-9])(?=[{_PUNCTUATION}])")


@dataclass(frozen=True, kw_only=True)
class CorpusCounts:
    """Counts of a corpus.

    Attributes:
        token_counts: occurrences of every token id, (V,) int64, exact.
        word_counts: occurrences of words, each at most `word_count_error` too low.
        word_count_error: largest possible count of a word that is missing; 0 where none was
            dropped.
        n_words: occurrences of all words, exact.
        n_documents: documents counted.
    """

    token_counts: npt.NDArray[np.int64]
    word_counts: Mapping[str, int]
    word_count_error: int
    n_words: int
    n_documents: int


def count_texts(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_words: int = _MAX_WORDS,
    max_pieces: int = _MAX_PIECES,
) -> CorpusCounts:
    """Count the tokens and words (`segmentation.split_words`) of texts in one pass.

    Above `max_words` distinct words the rarest half is dropped, and the largest count dropped is
    added to the error: lossy counting (Manku and Motwani 2002), which never loses a word that is
    more frequent than the error.

    Args:
        texts: documents.
        tokenizer: text that looks like a special token is counted as text.
        max_words: distinct words held in memory.
        max_pieces: distinct pieces of text held in memory.
    """
    counter = _Counter(tokenizer, max_words)
    for text in texts:
        counter.add(text)
        if counter.n_held > max_pieces or counter.n_characters > _MAX_CHARACTERS:
            counter.flush()
    counter.flush()
    return CorpusCounts(
        token_counts=counter.token_counts,
        word_counts=counter.words,
        word_count_error=counter.word_count_error,
        n_words=counter.n_words,
        n_documents=counter.n_documents,
    )


class _Counter:
    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_words: int) -> None:
        self._backend = plain_backend(tokenizer)
        self._cut = _PIECE.findall if tokenizes_by_pieces(tokenizer) else _whole
        self._max_words = max_words
        self._pieces: Counter[str] = Counter()
        self._strings: Counter[str] = Counter()  # between white space, which no word contains
        self.token_counts = np.zeros(n_token_ids(tokenizer), dtype=np.int64)
        self.words: Counter[str] = Counter()
        self.word_count_error = self.n_words = self.n_documents = self.n_characters = 0

    @property
    def n_held(self) -> int:
        return max(len(self._pieces), len(self._strings))

    def add(self, text: str) -> None:
        self._pieces.update(self._cut(text))
        self._strings.update(text.split())
        self.n_characters += len(text)
        self.n_documents += 1

    def flush(self) -> None:
        """Tokenize the distinct pieces and segment the distinct strings, each times its count."""
        pieces = iter(self._pieces.items())
        while batch := list(islice(pieces, _ENCODE_BATCH)):
            self._count_tokens(batch)
        self._count_words()
        self._pieces.clear()
        self._strings.clear()
        self.n_characters = 0

    def _count_tokens(self, batch: list[tuple[str, int]]) -> None:
        encodings = self._backend.encode_batch_fast(
            [piece for piece, _ in batch], add_special_tokens=False
        )
        ids = [encoding.ids for encoding in encodings]
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64)
        repeats = np.repeat([count for _, count in batch], [len(of_piece) for of_piece in ids])
        np.add.at(self.token_counts, flat, repeats)

    def _count_words(self) -> None:
        for string, count in self._strings.items():
            words = [string] if string.isalpha() else split_words(string)
            self.n_words += count * len(words)
            for word in words:
                self.words[word] += count
        while len(self.words) > self._max_words:
            self._drop_rare_words()

    def _drop_rare_words(self) -> None:
        counts = np.fromiter(self.words.values(), dtype=np.int64)
        largest_dropped = int(np.partition(counts, len(counts) // 2)[len(counts) // 2])
        self.words = Counter({w: n for w, n in self.words.items() if n > largest_dropped})
        self.word_count_error += largest_dropped


def _whole(text: str) -> list[str]:
    return [text]


def tokenizes_by_pieces(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether neither a rule nor an added token of the tokenizer looks across a border of pieces.

    So it is for byte-level BPE with the usual pattern (GPT-2, GPT-NeoX), also behind a splitter of
    digits or punctuation, without normalizer or with NFC.
    """
    stored: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    normalizer, rule = stored["normalizer"], stored["pre_tokenizer"] or {}
    *splitters, last = rule.get("pretokenizers", [rule])
    return (
        (normalizer is None or normalizer["type"] == "NFC")
        and all(splitter["type"] in {"Digits", "Punctuation"} for splitter in splitters)
        and last.get("type") == "ByteLevel"
        and last.get("use_regex", True)
        and not last["add_prefix_space"]
        and not any(_crosses_border(token) for token in stored["added_tokens"])
    )


def _crosses_border(added: Mapping[str, Any]) -> bool:
    """Whether an added token that is not special (those are taken for text) spans a border."""
    looks_around = added["lstrip"] or added["rstrip"] or added["single_word"]
    return not added["special"] and (looks_around or bool(_BORDER.search(added["content"])))
