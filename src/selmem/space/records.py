"""What the page shows of one text, as plain records that go to and from JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class WordRecord:
    """A word of the text; the columns of the table `words`, and what was guessed in its place.

    Attributes:
        start: first character in the text that was read.
        end: one past the last.
        pos: part of speech; None where no tagger is installed.
        entity: type of the entity it belongs to, "O" outside; None likewise.
        kind: number, variable, punctuation, ...: see `tags.KINDS`.
        cut: whether the end of what was read cuts it; such words are in no rate.
        omitted_count: share of the words of this surface that the reconstruction lacks.
        omitted_aligned: whether the reconstruction lacks it in its place in the order.
        omitted_forced: whether the probe guesses it wrong when given the true text before it.
        null_bits: what it costs the null probe, which sees no state; None without one.
        recovered_bits: how many of them the state saves; None likewise.
        guess: what the probe guesses when given the true text before; ■ for the end of the text.
        confidence: the probability that the probe gives this guess, in [0, 1].
        null_guess: what the null probe guesses then; None without one.
        null_right: whether that is the word; None likewise.
    """

    start: int
    end: int
    pos: str | None
    entity: str | None
    kind: str
    cut: bool
    omitted_count: float
    omitted_aligned: bool
    omitted_forced: bool
    null_bits: float | None
    recovered_bits: float | None
    guess: str
    confidence: float
    null_guess: str | None
    null_right: bool | None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A word of the reconstruction: its characters, and whether it stands for one of the text."""

    start: int
    end: int
    matched: bool


@dataclass(frozen=True, kw_only=True)
class LengthPoint:
    """What is written back of the first tokens of the text, from a state that saw no more.

    Attributes:
        tokens: how many.
        n_words: whole words among them.
        retained: share of those words that are written back in their place in the order; None
            without a word.
        recovered_fraction: recovered bits / null bits; None without a null probe.
    """

    tokens: int
    n_words: int
    retained: float | None
    recovered_fraction: float | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A text, what the probe wrote from the state after it, and the two compared.

    Attributes:
        model: name of the choice.
        text: what was read; every position of a word counts in it.
        note: says what was left out, or that no tagger is installed; empty if there is nothing.
        n_tokens: tokens of `text`.
        reconstruction: what the probe wrote.
        exact_match: whether it is the text.
        null_bits: of the whole text; None without a null probe.
        recovered_bits: likewise.
        words: of the text, in order.
        written: words of the reconstruction, in order.
        lengths: by ascending number of tokens; the last is the whole text.
    """

    model: str
    text: str
    note: str
    n_tokens: int
    reconstruction: str
    exact_match: bool
    null_bits: float | None
    recovered_bits: float | None
    words: tuple[WordRecord, ...]
    written: tuple[Piece, ...]
    lengths: tuple[LengthPoint, ...]

    @property
    def whole_words(self) -> list[WordRecord]:
        """The words that rates are about: those that the end of the text does not cut."""
        return [word for word in self.words if not word.cut]

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes; JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Reading":
        """Return the reading that was stored."""
        return cls(
            **{
                **content,
                "words": tuple(WordRecord(**word) for word in content["words"]),
                "written": tuple(Piece(**piece) for piece in content["written"]),
                "lengths": tuple(LengthPoint(**point) for point in content["lengths"]),
            }
        )
