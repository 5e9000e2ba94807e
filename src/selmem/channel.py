"""A channel with a known loss, to test the measurement where the truth is known.

Slots are the words of one class that are single tokens. In every text each slot is refilled with
an independent uniform draw from the class; the encoder reads the text with some slots erased, that
is, replaced by one reserved token. What a state can tell about an erased slot is that a word of
the class stood there, and nothing about which: log2(K) bits are lost, exactly.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selmem.corpus_store import CorpusStore
from selmem.errors import InputError

WORD = re.compile(r" [a-z]{4,}")  # a lower-case word of four letters or more, with its space


@dataclass(frozen=True)
class Transmission:
    """What a channel made of texts.

    Args:
        target: the texts with their slots refilled, int64, (B, T).
        read: the target with its erased slots replaced, what the encoder reads, (B, T).
        slots: where the words of the class stand, bool, (B, T).
        erased: the slots that the encoder does not see, bool, (B, T).
    """

    target: Tensor
    read: Tensor
    slots: Tensor
    erased: Tensor


class ErasureChannel:
    """Refills slots and erases some, the same way whenever it meets the same text.

    The draws are a hash of the text, the place and the seed, so training and measurement, probe
    and null probe, and an interrupted run and its continuation see the same.

    Args:
        words: token ids of the class, at least two.
        begins_word: whether a token with this id begins a word; a slot ends where one follows.
        reserved: token id that stands for an erased slot.
        erasure: probability that a slot is erased.
        seed: of the draws.
    """

    def __init__(
        self,
        words: Sequence[int],
        begins_word: Sequence[bool],
        *,
        reserved: int,
        erasure: float,
        seed: int = 0,
    ) -> None:
        if len(words) < 2 or not 0 <= erasure <= 1:
            raise InputError(
                f"expected at least 2 words and an erasure from 0 to 1, got {len(words)} and "
                f"{erasure}"
            )
        self.words, self.reserved, self.erasure, self.seed = tuple(words), reserved, erasure, seed
        self._begins_word = torch.tensor(begins_word)
        self._in_class = torch.zeros(len(begins_word), dtype=torch.bool)
        self._in_class[list(words)] = True
        self._words = torch.tensor(self.words)

    def __call__(self, windows: Tensor) -> Transmission:
        """Return what becomes of texts (B, T)."""
        device = windows.device
        self._begins_word = self._begins_word.to(device)
        self._in_class, self._words = self._in_class.to(device), self._words.to(device)
        slots = self._in_class[windows]
        # the word of the last place may go on beyond the text
        slots[:, :-1] &= self._begins_word[windows[:, 1:]]
        slots[:, -1] = False
        mixed = _mix(_row_hash(windows) + torch.arange(windows.shape[1], device=device))
        drawn = self._words[_uniform(mixed, self.seed).mul(len(self.words)).long()]
        erased = slots & (_uniform(mixed, self.seed + 1) < self.erasure)
        target = torch.where(slots, drawn, windows)
        read = torch.where(erased, self.reserved, target)
        return Transmission(target, read, slots, erased)

    def summary(self) -> dict[str, Any]:
        """Return the settings, for the record of a run."""
        return {
            "words": list(self.words),
            "continues_word": torch.nonzero(~self._begins_word).flatten().tolist(),
            "n_tokens": len(self._begins_word),
            "reserved": self.reserved,
            "erasure": self.erasure,
            "seed": self.seed,
        }

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> "ErasureChannel":
        """Return the channel with these settings."""
        begins_word = np.ones(summary["n_tokens"], bool)
        begins_word[summary["continues_word"]] = False
        return cls(
            summary["words"],
            begins_word.tolist(),
            reserved=summary["reserved"],
            erasure=summary["erasure"],
            seed=summary["seed"],
        )


def erasure_channel(
    store: CorpusStore, tokenizer: Any, *, n_words: int, erasure: float, seed: int = 0
) -> ErasureChannel:
    """Return the channel whose class are the most frequent single-token words of a corpus.

    The reserved token is one that the corpus never uses.

    Raises:
        InputError: too few such words, or no unused token.
    """
    texts = [tokenizer.decode([token_id]) for token_id in range(len(tokenizer))]
    counts = np.bincount(store.tokens, minlength=len(texts))
    common = [int(i) for i in np.argsort(-counts, kind="stable") if WORD.fullmatch(texts[i])]
    unused = np.flatnonzero(counts == 0)
    if len(common) < n_words or not len(unused):
        raise InputError(
            f"the corpus has {len(common)} single-token words and {len(unused)} unused tokens; the "
            f"channel needs {n_words} and 1"
        )
    begins_word = [not text[:1].isalpha() for text in texts]
    return ErasureChannel(
        common[:n_words], begins_word, reserved=int(unused[0]), erasure=erasure, seed=seed
    )


def _row_hash(windows: Tensor) -> Tensor:
    """Return a 64-bit hash of each row, as int64 (B, 1)."""
    places = torch.arange(windows.shape[1], device=windows.device)
    return _mix(_mix(windows + (places << 32)).sum(1, keepdim=True))


def _uniform(mixed: Tensor, seed: int) -> Tensor:
    """Return numbers in [0, 1) that follow from 64-bit hashes and a seed, float64."""
    return _shifted(_mix(mixed ^ (seed * 0x632BE59BD9B4E019 % 2**63)), 11).double() / 2**53


def _mix(values: Tensor) -> Tensor:
    """Return the finaliser of splitmix64 on int64, whose products wrap around."""
    values = (values ^ _shifted(values, 30)) * -0x40A7B892E31B1A47
    values = (values ^ _shifted(values, 27)) * -0x6B2FB644ECCEEE15
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Return an unsigned right shift."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
