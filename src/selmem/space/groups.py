"""A text's words counted by part of speech, entity and kind, and the loss told in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selmem.space.records import Reading, WordRecord
from selmem.tags import COARSE_ENTITIES, coarse_entity

SCHEMES: Mapping[str, str] = {
    "pos": "Part of speech",
    "entity": "Named entity",
    "kind": "Kind of word",
}

TAG_LABELS: Mapping[str, Mapping[str, str]] = {
    "pos": {
        "NOUN": "nouns",
        "VERB": "verbs",
        "ADJ": "adjectives",
        "ADV": "adverbs",
        "PRON": "pronouns",
        "DET": "determiners",
        "ADP": "prepositions",
        "CONJ": "conjunctions",
        "PRT": "particles",
        "NUM": "numerals",
        "PUNCT": "punctuation marks",
        "SYM": "symbols",
        "INTJ": "interjections",
        "X": "other words",
    },
    "entity": {
        "PER": "names of people",
        "ORG": "names of organisations",
        "LOC": "names of places",
        "MISC": "other names",
        "O": "words outside names",
    },
    "kind": {
        "word": "plain words",
        "number": "numbers",
        "variable": "variables",
        "operator": "operators",
        "identifier": "identifiers",
        "command": "commands",
        "address": "addresses",
        "mixed": "letters with digits",
        "punctuation": "punctuation marks",
        "symbol": "symbols",
    },
    "all": {
        "whole": "all words",
        "without_last_4": "all but the last four tokens",
        "cut": "words cut by a border",
    },
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The words of one tag in one text.

    Attributes:
        scheme: pos, entity or kind.
        tag: as in the table `omission`.
        n_words: how many.
        n_omitted: how many of them the reconstruction lacks in their place in the order.
    """

    scheme: str
    tag: str
    n_words: int
    n_omitted: int

    @property
    def label(self) -> str:
        """The tag in words."""
        return tag_label(self.scheme, self.tag)

    @property
    def omission_rate(self) -> float:
        """Omitted words / words."""
        return self.n_omitted / self.n_words


def tag_label(scheme: str, tag: str) -> str:
    """Return a tag in words; one that is not known stays as it is.

    >>> tag_label("pos", "ADP"), tag_label("pos_without_last_4", "ADP"), tag_label("entity", "GPE")
    ('prepositions', 'prepositions', 'GPE')
    """
    return TAG_LABELS.get(scheme.removesuffix("_without_last_4"), {}).get(tag, tag)


def group_words(reading: Reading, scheme: str) -> list[Group]:
    """Return the words by tag, the most frequent tag first; empty where no word has one."""
    flags: dict[str, list[bool]] = {}
    for word in reading.whole_words:
        tag = _tag(word, scheme)
        if tag is not None:
            flags.setdefault(tag, []).append(word.omitted_aligned)
    groups = [
        Group(scheme=scheme, tag=tag, n_words=len(omitted), n_omitted=sum(omitted))
        for tag, omitted in flags.items()
    ]
    return sorted(groups, key=lambda group: (-group.n_words, group.tag))


def _tag(word: WordRecord, scheme: str) -> str | None:
    if scheme == "entity" and word.entity is not None and word.entity in COARSE_ENTITIES:
        return coarse_entity(word.entity)
    return {"pos": word.pos, "entity": word.entity, "kind": word.kind}[scheme]


def summary_sentences(reading: Reading) -> str:
    """Return in words what was not recovered, of which classes, and what the state was worth."""
    words = reading.whole_words
    n_omitted = sum(word.omitted_aligned for word in words)
    if not words:
        return "There is no whole word in this text."
    if reading.exact_match:
        found = f"This probe wrote the whole text back, all {_words(len(words))}."
    elif not n_omitted:
        found = f"This probe recovered all {_words(len(words))}, and wrote more besides."
    else:
        found = f"{n_omitted} of {_words(len(words))} were not recovered by this probe."
    parts = [found, *_extremes(reading, n_omitted, len(words)), *_bits(reading)]
    return " ".join(parts)


def _words(count: int) -> str:
    return f"{count} word" if count == 1 else f"{count} words"


def _extremes(reading: Reading, n_omitted: int, n_words: int) -> list[str]:
    """Return which classes lost most and least, where they differ from the text as a whole."""
    scheme = "pos" if any(word.pos for word in reading.words) else "kind"
    groups = [group for group in group_words(reading, scheme) if group.n_words >= 3]
    if not 0 < n_omitted < n_words or len(groups) < 2:
        return []
    ranked = sorted(groups, key=lambda group: (-group.omission_rate, -group.n_words))
    sentences = []
    if ranked[0].omission_rate > n_omitted / n_words:
        sentences.append(f"Lost most: {_share(ranked[0])}.")
    if ranked[-1].omission_rate < n_omitted / n_words:
        sentences.append(f"Lost least: {_share(ranked[-1])}.")
    return sentences


def _share(group: Group) -> str:
    return f"{group.label} ({group.n_omitted} of {group.n_words})"


def _bits(reading: Reading) -> Sequence[str]:
    if reading.null_bits is None or reading.recovered_bits is None or reading.null_bits <= 0:
        return []
    share = reading.recovered_bits / reading.null_bits
    if share < 0:
        return [
            "When it guesses each next word from the true text before, the state does not help it."
        ]
    return [
        "When it guesses each next word from the true text before, the state saves it "
        f"{reading.recovered_bits:.0f} of {reading.null_bits:.0f} bits ({share:.0%})."
    ]
