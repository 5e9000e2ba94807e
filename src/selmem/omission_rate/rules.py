# SPDX-License-Identifier: Apache-2.0
"""Which words of a reference are omitted from its reconstruction, under the rule `count`.

A word is found where its surface (without the white space around it) stands in the
reconstruction, from one pre-token boundary to another, on pre-tokens that no other word has used.
Of n words with the same surface of which m are found, each is omitted (n - m) / n.
Words that share a pre-token ("do" and "n't" in "don" + "'t") are matched together, as one unit.
Words that a chunk's border cuts take only what the whole words leave.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from .alignment import align

Span = tuple[int, int]
Rates = npt.NDArray[np.float32]
Key = tuple[str, bool]  # a unit's surface, and whether it is cut

MAX_BEGINNING = 32  # characters

_WORD = re.compile(r"\w+|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Return the runs of letters, digits and underscores, and every other visible character.

    >>> split_words("It's 3.5 km.")
    ['It', "'", 's', '3', '.', '5', 'km', '.']
    """
    return _WORD.findall(text)


@dataclass(frozen=True, slots=True)
class Pretokens:
    """A text and its pre-tokens, the pieces that no token crosses."""

    text: str
    ends: tuple[int, ...]  # where each pre-token ends, characters
    inner: tuple[Span, ...]  # each pre-token without the white space around it, characters

    @classmethod
    def of_text(cls, text: str, ends: Sequence[int]) -> "Pretokens":
        """Cut `text` after the characters `ends`, which increase.

        Raises:
            ValueError: the ends do not increase, or lie outside of the text.
        """
        spans = list(zip([0, *ends], ends, strict=False))
        if any(start >= end for start, end in spans) or (ends and ends[-1] > len(text)):
            raise ValueError(
                f"pre-token ends must increase up to the {len(text)} characters of the text; "
                f"they are {list(ends)}"
            )
        return cls(text, tuple(ends), tuple(_strip(text, start, end) for start, end in spans))

    @classmethod
    def of_words(cls, words: Sequence[str]) -> "Pretokens":
        """Take every word as one pre-token, with a separator that joins none to the next.

        Raises:
            ValueError: a word is empty.
        """
        if not all(words):
            raise ValueError(f"word {list(words).index('')} is empty; leave empty words out")
        text = "".join(f"{word}\x1f" for word in words)
        return cls.of_text(text, list(accumulate(len(word) + 1 for word in words)))

    def surface(self, first: int, last: int) -> str:
        """Return the text from pre-token `first` to `last`, without white space around it."""
        return self.text[self.inner[first][0] : self.inner[last][1]]

    def without_blanks(self, first: int, last: int) -> Span:
        """Return the run without the pre-tokens of white space at its ends, if any are left."""
        visible = [i for i in range(first, last + 1) if not self.surface(i, i).isspace()]
        return (visible[0], visible[-1]) if visible else (first, last)


def _strip(text: str, start: int, end: int) -> Span:
    """Return the span without white space around it; white space alone stays as it is."""
    piece = text[start:end]
    if not (stripped := piece.strip()):
        return start, end
    start += piece.index(stripped)
    return start, start + len(stripped)


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest run of words that starts and ends at pre-token boundaries."""

    first: int  # pre-token
    last: int  # pre-token, inclusive
    words: tuple[int, ...]
    surface: str
    cut: bool  # a chunk's border cuts one of the words


@dataclass(frozen=True)
class Reference:
    """The words of a reference, as the units in which the rule `count` looks for them."""

    pretokens: Pretokens
    units: tuple[Unit, ...]
    n_words: int

    @cached_property
    def needed(self) -> "Counter[Key]":
        """How many units of each key there are."""
        return Counter((unit.surface, unit.cut) for unit in self.units)

    @cached_property
    def surfaces(self) -> frozenset[str]:
        """What the units look like."""
        return frozenset(unit.surface for unit in self.units)

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """What the surfaces begin with, up to `MAX_BEGINNING` characters."""
        starts = {surface[:MAX_BEGINNING] for surface in self.surfaces}
        return frozenset(start[:end] for start in starts for end in range(1, len(start) + 1))

    @cached_property
    def longest(self) -> int:
        """Characters of the longest surface."""
        return max(map(len, self.surfaces), default=0)

    @classmethod
    def of_spans(
        cls, pretokens: Pretokens, spans: Sequence[Span], cut: Sequence[bool] | None = None
    ) -> "Reference":
        """Group words into units.

        White space around a word does not count. Where a pre-token holds characters of no word,
        they belong to the unit's surface too.

        Args:
            pretokens: of the reference's text.
            spans: each word's characters in the text, in the order of the text.
            cut: whether a chunk's border cuts the word; default no word is.

        Raises:
            ValueError: a span is empty, outside of the pre-tokens, or before the one in front.
        """
        cut = [False] * len(spans) if cut is None else cut
        groups: list[tuple[int, int, list[int]]] = []
        for word, (start, end) in enumerate(spans):
            if not 0 <= start < end <= (pretokens.ends[-1] if pretokens.ends else 0):
                raise ValueError(f"word {word} has the span ({start}, {end}), outside of the text")
            if word and start < spans[word - 1][0]:
                raise ValueError(f"word {word} starts before word {word - 1}")
            start, end = _strip(pretokens.text, start, end)
            first = bisect_right(pretokens.ends, start)
            last = bisect_left(pretokens.ends, end)
            if groups and first <= groups[-1][1]:
                groups[-1][2].append(word)
                groups[-1] = (groups[-1][0], max(last, groups[-1][1]), groups[-1][2])
            else:
                groups.append((first, last, [word]))
        units = []
        for first, last, words in groups:
            a, b = pretokens.without_blanks(first, last)
            is_cut = any(cut[word] for word in words)
            units.append(Unit(a, b, tuple(words), pretokens.surface(a, b), is_cut))
        return cls(pretokens, tuple(units), len(spans))

    @classmethod
    def of_words(cls, words: Sequence[str]) -> "Reference":
        """Take every word as one pre-token and one unit."""
        pretokens = Pretokens.of_words(words)
        units = tuple(
            Unit(i, i, (i,), pretokens.surface(i, i), False) for i in range(len(pretokens.ends))
        )
        return cls(pretokens, units, len(words))

    def per_word(self, values: Iterable[float]) -> Rates:
        """Give every word the value of its unit."""
        rates = [0.0] * self.n_words
        for unit, value in zip(self.units, values, strict=True):
            for word in unit.words:
                rates[word] = value
        return np.array(rates, np.float32)


def count_omissions(
    references: Sequence[Reference], reconstructions: Sequence[Pretokens]
) -> list[Rates]:
    """Return for every word of every reference the fraction omitted under the rule `count`.

    Units are found at aligned positions first, so that an identical text has no omission, then
    elsewhere, longest first and leftmost. The alignment is left out where it cannot matter:
    where no pre-token of the reconstruction could serve two units of different surface.
    """
    rates: list[Rates] = [np.zeros(0, np.float32)] * len(references)
    contested = []
    for index, (reference, other) in enumerate(zip(references, reconstructions, strict=True)):
        places = _places(reference, other)
        if _disjoint(places):
            found = _found_without_contest(reference, places)
            rates[index] = reference.per_word(_omitted_shares(reference, found))
        else:
            contested.append((index, reference, other, places))
    codes = [_codes(reference.pretokens, other) for _, reference, other, _ in contested]
    matches = align([a for a, _ in codes], [b for _, b in codes])
    for (index, reference, other, places), match in zip(contested, matches, strict=True):
        found = _found(reference.units, other, places, match.tolist())
        rates[index] = reference.per_word(_omitted_shares(reference, found))
    return rates


def _places(reference: Reference, other: Pretokens) -> dict[str, list[Span]]:
    """Return for each surface of a unit the runs of pre-tokens (first, last) at which it stands."""
    surfaces, beginnings, longest = reference.surfaces, reference.beginnings, reference.longest
    text, inner = other.text, other.inner
    places: dict[str, list[Span]] = {}
    for first, (start, _) in enumerate(inner):
        for last in range(first, len(inner)):
            piece = text[start : inner[last][1]]
            if piece[:MAX_BEGINNING] not in beginnings or len(piece) > longest:
                break
            if piece in surfaces:
                places.setdefault(piece, []).append((first, last))
    return places


def _disjoint(places: dict[str, list[Span]]) -> bool:
    spans = sorted(span for spans in places.values() for span in spans)
    return all(a[1] < b[0] for a, b in pairwise(spans))


def _found_without_contest(reference: Reference, places: dict[str, list[Span]]) -> Counter[Key]:
    needed = reference.needed
    found: Counter[Key] = Counter()
    for surface, spans in places.items():
        found[surface, False] = min(needed[surface, False], len(spans))
        found[surface, True] = min(needed[surface, True], len(spans) - found[surface, False])
    return found


def _found(
    units: Sequence[Unit], other: Pretokens, places: dict[str, list[Span]], match: Sequence[int]
) -> Counter[Key]:
    """Count the units found, each on pre-tokens of its own; cut ones last."""
    used = [False] * len(other.ends)
    found: Counter[Key] = Counter()
    for cut in (False, True):
        missing = []
        for unit in (unit for unit in units if unit.cut == cut):
            place = match[unit.first], match[unit.last]
            if place in places.get(unit.surface, ()) and _take(used, place):
                found[unit.surface, cut] += 1
            else:
                missing.append(unit)
        for unit in sorted(missing, key=lambda unit: -len(unit.surface)):
            if any(_take(used, place) for place in places.get(unit.surface, ())):
                found[unit.surface, cut] += 1
    return found


def _take(used: list[bool], place: Span) -> bool:
    """Mark the pre-tokens of `place` as used, unless one of them is."""
    run = slice(place[0], place[1] + 1)
    if any(used[run]):
        return False
    used[run] = [True] * (place[1] - place[0] + 1)
    return True


def _omitted_shares(reference: Reference, found: Counter[Key]) -> list[float]:
    shares = {key: (needed - found[key]) / needed for key, needed in reference.needed.items()}
    return [shares[unit.surface, unit.cut] for unit in reference.units]


def _codes(reference: Pretokens, other: Pretokens) -> tuple[list[int], list[int]]:
    """Number the stripped pre-tokens of two texts, equal ones alike."""
    numbers: dict[str, int] = {}
    a, b = (
        [numbers.setdefault(text.surface(i, i), len(numbers)) for i in range(len(text.ends))]
        for text in (reference, other)
    )
    return a, b
