"""What a reader yields: a document, and the words in it as spans of characters."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Word:
    """An annotated unit of text: the characters `text[start:end]` of its document.

    Attributes:
        start: first character.
        end: one past the last character.
        pos: one of `tags.POS_CLASSES`; None where the source has no part of speech.
        entity: entity type, "O" outside every entity; None where the source has no entities.
        kind: one of `tags.KINDS`, from the surface alone.
    """

    start: int
    end: int
    pos: str | None = None
    entity: str | None = None
    kind: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text; chunks never cross its border and intervals resample whole documents.

    Attributes:
        doc_id: unique within its source, the same at every reading.
        source: name of the corpus.
        text: the text as found, never normalised.
        words: in text order, not overlapping; empty where the source has none.
        split: name of the part of the corpus ("test"), None where the source has no parts.
    """

    doc_id: str
    source: str
    text: str
    words: tuple[Word, ...] = ()
    split: str | None = None
