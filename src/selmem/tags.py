"""Tag schemes as tables: part of speech, entity type, and kind of token from its surface.

The 14 part-of-speech classes are those of Hossain et al. 2025 (arXiv:2512.15653), the map from
Penn Treebank tags is theirs too. Universal tags go to the same classes; where the two disagree
about a word the difference is one of annotation ("to": ADP from its Penn tag TO, PRT from PART).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from selmem.errors import InputError

POS_CLASSES = (
    "NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP",
    "CONJ", "PRT", "NUM", "PUNCT", "SYM", "INTJ", "X",
)  # fmt: skip

_PENN_BY_CLASS: Mapping[str, str] = {
    "NOUN": "NN NNS NNP NNPS NN|SYM",
    "VERB": "MD VB VBD VBG VBN VBP VBZ",
    "ADJ": "JJ JJR JJS",
    "ADV": "EX RB RBR RBS WRB",
    "PRON": "PRP PRP$ WP WP$",
    "DET": "DT PDT WDT",
    "ADP": "IN TO",
    "CONJ": "CC",
    "PRT": "POS RP",
    "NUM": "CD LS",
    "PUNCT": "\" '' `` ( ) , . :",
    "SYM": "# $ SYM",
    "INTJ": "UH",
    "X": "FW",
}

# tags of OntoNotes, the English Web Treebank and GUM that the paper's corpus does not have
_PENN_LATER_BY_CLASS: Mapping[str, str] = {
    "PUNCT": "-LRB- -RRB- -LSB- -RSB- -LCB- -RCB- HYPH NFP",
    "VERB": "BES HVS",
    "ADJ": "AFX",
    "X": "ADD GW XX",
}


def _by_tag(*tables: Mapping[str, str]) -> dict[str, str]:
    return {tag: name for table in tables for name, tags in table.items() for tag in tags.split()}


PENN: Mapping[str, str] = _by_tag(_PENN_BY_CLASS, _PENN_LATER_BY_CLASS)

# SCONJ: Penn's IN covers prepositions and subordinators alike, so it joins ADP to stay comparable
UNIVERSAL: Mapping[str, str] = {
    "ADJ": "ADJ",
    "ADP": "ADP",
    "ADV": "ADV",
    "AUX": "VERB",
    "CCONJ": "CONJ",
    "DET": "DET",
    "INTJ": "INTJ",
    "NOUN": "NOUN",
    "NUM": "NUM",
    "PART": "PRT",
    "PRON": "PRON",
    "PROPN": "NOUN",
    "PUNCT": "PUNCT",
    "SCONJ": "ADP",
    "SYM": "SYM",
    "VERB": "VERB",
    "X": "X",
}

CLASSES: Mapping[str, str] = {name: name for name in POS_CLASSES}

# "any" is safe because the three tables agree wherever they share a tag
SCHEMES: Mapping[str, Mapping[str, str]] = {
    "penn": PENN,
    "universal": UNIVERSAL,
    "classes": CLASSES,
    "any": {**PENN, **UNIVERSAL, **CLASSES},
}


def pos_class(tag: str, scheme: str = "any", *, unknown: str | None = None) -> str:
    """Return the part-of-speech class of `tag`.

    Args:
        tag: a tag of the scheme.
        scheme: "penn", "universal", "classes" (the 14 names themselves) or "any" of the three.
        unknown: class for a tag that the scheme lacks; None makes that an error.

    Raises:
        InputError: the tag is not in the scheme and `unknown` is None.

    >>> pos_class("NNP"), pos_class("NN|SYM"), pos_class("SCONJ"), pos_class("WP$")
    ('NOUN', 'NOUN', 'ADP', 'PRON')
    """
    table = SCHEMES[scheme]
    found = table.get(tag, unknown)
    if found is None:
        raise InputError(
            f"part-of-speech tag {tag!r} is not in the scheme {scheme!r}; "
            f"known tags: {' '.join(sorted(table))}"
        )
    return found


@dataclass
class PosMap:
    """Maps tags of any known scheme to classes, and counts those it does not know.

    Attributes:
        unknown: class for unknown tags; None makes them an error.
        unknown_counts: how often each unknown tag was met.
    """

    unknown: str | None = None
    unknown_counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.unknown not in {None, *POS_CLASSES}:
            raise InputError(f"{self.unknown!r} is no class; known: {' '.join(POS_CLASSES)}")

    def __call__(self, tag: str) -> str:
        """Return the class of the tag."""
        if tag not in SCHEMES["any"]:
            self.unknown_counts[tag] += 1
        return pos_class(tag, unknown=self.unknown)


def entity_type(tag: str) -> str:
    """Return the entity type of a BIO, IOB1, IOBES or bare tag; "O" outside.

    >>> entity_type("B-PER"), entity_type("I-LOC"), entity_type("O"), entity_type("GPE")
    ('PER', 'LOC', 'O', 'GPE')
    """
    prefix, dash, name = tag.partition("-")
    return name if dash and prefix in {"B", "I", "E", "S", "L", "U"} else tag


_COARSE_BY_TYPE: Mapping[str, str] = {
    "PER": "PER PERSON person",
    "LOC": "LOC GPE FAC place",
    "ORG": "ORG organization",
    "MISC": "MISC NORP EVENT PRODUCT WORK_OF_ART LAW LANGUAGE",
    "O": "O DATE TIME MONEY PERCENT QUANTITY ORDINAL CARDINAL "
    "object event time substance animal plant abstract",
}
COARSE_ENTITIES: Mapping[str, str] = _by_tag(_COARSE_BY_TYPE)


def coarse_entity(name: str) -> str:
    """Return the CoNLL-2003 type (PER, LOC, ORG, MISC, "O") of an OntoNotes or GUM type.

    OntoNotes' dates and quantities are no entities in CoNLL-2003. GUM's types cover mentions that
    are no names ("the students" is a person), so GUM rates stand beside CoNLL's, not among them.

    Raises:
        InputError: a type of none of the three schemes.

    >>> coarse_entity("GPE"), coarse_entity("NORP"), coarse_entity("DATE"), coarse_entity("person")
    ('LOC', 'MISC', 'O', 'PER')
    """
    if name not in COARSE_ENTITIES:
        raise InputError(
            f"entity type {name!r} has no CoNLL-2003 type; known: {' '.join(COARSE_ENTITIES)}"
        )
    return COARSE_ENTITIES[name]


KINDS = (
    "word", "number", "variable", "operator", "identifier", "command",
    "address", "mixed", "punctuation", "symbol",
)  # fmt: skip

_MINUS = "\N{MINUS SIGN}"
_PRIME = "\N{PRIME}"
_APOSTROPHE = "'\N{RIGHT SINGLE QUOTATION MARK}"
_DASH = "\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{EN DASH}-"
_ARROWS_AND_DOTS = "\N{MULTIPLICATION SIGN}÷·∙⋅±∓→←↔⇒⇔"
_FORMAL = {"number", "operator", "command", "variable"}
_AMBIGUOUS = re.compile("[aA-Z-]")
_LETTER = r"[^\W\d_]"
_NUMBER = (
    rf"[-+{_MINUS}±]?[$€£#]?(?:\d+(?:[.,:/{_APOSTROPHE}{_DASH}]\d+)*\.?|\.\d+)"
    r"(?:[eE][-+]?\d+)?[%°]?"
)
_SUBSCRIPT = r"(?:_(?:\w|\d+|\{\w+\}))"

# first match wins; each pattern must match the whole surface
_PATTERNS: Sequence[tuple[str, re.Pattern[str]]] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("address", r"\w+://\S+|www\.\S+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
        ("address", r"[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|info)(?:/\S*)?"),
        ("number", r"0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+"),
        ("number", _NUMBER),
        ("number", r"\d+(?:,\d{3})*(?:st|nd|rd|th|ST|ND|RD|TH)"),
        ("command", r"\\(?:[A-Za-z@]+\*?|[^\w\s])"),
        ("variable", r"(?![a])[^\W\d_A-Z]"),
        ("variable", rf"{_LETTER}(?:{_SUBSCRIPT}['{_PRIME}]*|['{_PRIME}]+)|[a-z]\d+|_[A-Za-z]"),
        ("identifier", r"(?=.*[A-Za-z])(?=\w*_)\w+"),
        ("identifier", r"(?!Mac|Mc)[A-Za-z]+[a-z][A-Z]\w*|[a-z]+[A-Z]\w*"),
        ("identifier", r"[A-Za-z_]\w+(?:\.[A-Za-z_]\w+)+(?:\(\))?|[A-Za-z_]\w*\(\)|@[A-Za-z_]\w+"),
        ("operator", r"(?:[+*/%&|^=!<>:~-]|//|\*\*|<<|>>)=|[+*<>=^|]|\*\*|//|<<|>>|&&|\|\||\+\+"),
        ("operator", rf"->|=>|<-|<->|<=>|===|!==|::=?|:=|\.\*|\.\^|[{_MINUS}{_ARROWS_AND_DOTS}]"),
        (
            "word",
            rf"[{_APOSTROPHE}]?{_LETTER}+(?:[./{_APOSTROPHE}{_DASH}]{_LETTER}+)*[.{_APOSTROPHE}]?",
        ),
        ("mixed", rf"(?=.*\d)(?=.*{_LETTER}).*"),
    )
)


@lru_cache(maxsize=2**16)
def token_kind(text: str) -> str:
    r"""Return the kind of a word from its surface.

    A code keyword or a lower-case name without underscore ("return", "foo") is a "word": its
    surface does not tell. What only its neighbours tell, `kinds` adds.

    Returns:
        One of `KINDS`.

    >>> [token_kind(t) for t in ("1,234.5", "-3", "1996-12-06", "2nd", "0x1F", "1e-5", "50%")]
    ['number', 'number', 'number', 'number', 'number', 'number', 'number']
    >>> [token_kind(t) for t in ("x", "x_1", "y'", "z2", "α")]
    ['variable', 'variable', 'variable', 'variable', 'variable']
    >>> [token_kind(t) for t in ("+=", "==", "**", "≤", "∈", "->")]
    ['operator', 'operator', 'operator', 'operator', 'operator', 'operator']
    >>> [token_kind(t) for t in ("foo_bar", "camelCase", "HttpServer", "os.path", "__init__")]
    ['identifier', 'identifier', 'identifier', 'identifier', 'identifier']
    >>> [token_kind(t) for t in ("\\alpha", "\\{", "me@example.org", "F-16", "1990s", "%")]
    ['command', 'command', 'address', 'mixed', 'mixed', 'symbol']
    >>> [token_kind(t) for t in ("don't", "n't", "U.S.", "McDonald", "AL-AIN", "I", "(", "...")]
    ['word', 'word', 'word', 'word', 'word', 'word', 'punctuation', 'punctuation']
    """
    if text.isnumeric():
        return "number"
    for kind, pattern in _PATTERNS:
        if pattern.fullmatch(text):
            return kind
    return _kind_by_category(text)


def _kind_by_category(text: str) -> str:
    categories = {unicodedata.category(character) for character in text}
    if categories == {"Sm"} and text != "~":
        return "operator"
    if any(category[0] in "LM" for category in categories):
        return "word"
    if any(category[0] == "N" for category in categories):
        return "number"
    if text in {"%", "#", "@", "&"} or any(category[0] == "S" for category in categories):
        return "punctuation" if set(text) == {"`"} else "symbol"
    return "punctuation"


def kinds(words: Sequence[str]) -> list[str]:
    """Return the kind of every word of a text, given in order.

    "a" and single capitals ("I", "Group C") are variables, and "-" is an operator, only beside a
    number, an operator, a command, a variable or a "$".

    >>> kinds(["a", "-", "B", "is", "a", "sum", "-", "I", "think"])
    ['word', 'punctuation', 'word', 'word', 'word', 'word', 'punctuation', 'word', 'word']
    >>> kinds(["a", "-", "2", "*", "B", "is", "a", "sum"])
    ['variable', 'operator', 'number', 'operator', 'variable', 'word', 'word', 'word']
    """
    found = [token_kind(word) for word in words]
    ambiguous = [i for i, word in enumerate(words) if _AMBIGUOUS.fullmatch(word)]
    for index in [*ambiguous, *reversed(ambiguous)]:
        neighbours = (i for i in (index - 1, index + 1) if 0 <= i < len(words))
        if any(found[i] in _FORMAL or words[i] == "$" for i in neighbours):
            found[index] = "operator" if words[index] == "-" else "variable"
    return found
