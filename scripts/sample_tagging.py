"""Words and tags of one sample document, before any correction by hand.

spaCy tags prose, and in code only comments and messages. Rules tag formal words (mathematical
symbols, code), which a tagger trained on news gets wrong: variables, functions and operators of
mathematics are SYM, numerals NUM, keywords and names in code X.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spacy.language import Language
from spacy.tokens import Doc

from selmem.segmentation import word_spans
from selmem.tags import coarse_entity, kinds, pos_class

# words that the general segmentation would cut differently: 2x, f', ===
_MATHS_WORDS = re.compile(r"\d+(?:\.\d+)?(?=[a-zA-Z]\b)|\b[A-Za-z]'(?!\w)")
_CODE_WORDS = re.compile(r"[!=]==")
# names of functions, and of points and outcomes such as AB or RRB
_MATHS_NAMES = re.compile(r"ln|log2|sqrt|sin|cos|tan|[A-Z]{2,4}|(?![aAI])[A-Za-z]'?")
_PUNCTUATION = re.compile(r"""[][(){},;:.]|["'`]+|\.\.\.""")

_CODE_REGIONS = {
    "python": re.compile(
        r'(?P<comment>#.*|"""[\s\S]*?""")|[rf]?(?P<string>"(?:\\.|[^"\\\n])*")',
    ),
    "other": re.compile(
        r"(?P<comment>//.*|/\*[\s\S]*?\*/)"
        r"""|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)""",
    ),
}
# a value inside a message, up to one level of braces within braces
_VALUE = re.compile(r"\$?\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|%[a-z]")
_MESSAGE = re.compile(r"[A-Za-z]+[,:]? [A-Za-z]+")
_COMMENT_MARK = re.compile(r'[#*/"`]+')

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """One word: its characters in the document and its tags."""

    start: int
    end: int
    pos: str
    entity: str = "O"


def tag_prose(text: str, nlp: Language) -> Iterator[Tagged]:
    """Yield the words of spaCy's own tokenizer, with its tags and names."""
    doc = nlp(text)
    for token, entity in zip(doc, _entities(doc), strict=True):
        if not token.is_space:
            end = token.idx + len(token)
            yield Tagged(start=token.idx, end=end, pos=pos_class(token.tag_), entity=entity)


def _entities(doc: Doc) -> list[str]:
    found = ["O"] * len(doc)
    for entity in doc.ents:
        for token in entity:
            found[token.i] = coarse_entity(entity.label_)
    return found


def tag_maths(text: str, nlp: Language) -> Iterator[Tagged]:
    """Yield words with spaCy's part of speech, except numerals and symbols."""
    spans = list(_spans(text, _MATHS_WORDS))
    surfaces = [text[start:end] for start, end in spans]
    rows = zip(spans, _tag_spans(text, spans, nlp), kinds(surfaces), strict=True)
    for (start, end), pos, kind in rows:
        formal = _maths_class(text, start, end, kind)
        yield Tagged(start=start, end=end, pos=formal or pos)


def _maths_class(text: str, start: int, end: int, kind: str) -> str | None:
    surface = text[start:end]
    if _PUNCTUATION.fullmatch(surface):
        return "PUNCT"
    if surface == "-":
        joins_words = text[start - 1 : start].isalpha() and text[end : end + 1].isalpha()
        return "PUNCT" if joins_words else "SYM"
    if kind == "number":
        return "NUM"
    if kind in {"operator", "variable"} or surface in {"/", "!"} or _MATHS_NAMES.fullmatch(surface):
        return "SYM"
    return None


def tag_code(text: str, nlp: Language) -> Iterator[Tagged]:
    """Yield words; spaCy sees comments and messages only, without the marks before their lines."""
    classes: dict[Span, str] = {}
    for spans in _prose_in_code(text):
        words = [span for span in spans if not _COMMENT_MARK.fullmatch(text[slice(*span)])]
        classes |= dict.fromkeys(spans, "PUNCT")
        classes |= zip(words, _tag_spans(text, words, nlp), strict=True)
    for start, end in _spans(text, _CODE_WORDS):
        pos = classes.get((start, end)) or _code_class(text[start:end])
        yield Tagged(start=start, end=end, pos=pos)


def _code_class(surface: str) -> str:
    if surface[0].isdigit():
        return "NUM"
    if surface[0].isalpha() or surface[0] == "_":
        return "X"
    return "PUNCT" if _PUNCTUATION.fullmatch(surface) else "SYM"


def _prose_in_code(text: str) -> Iterator[list[Span]]:
    """Yield the words of each run of comment lines and of each message."""
    language = "python" if re.search(r"^\s*def \w+\(", text, re.MULTILINE) else "other"
    regions = list(_CODE_REGIONS[language].finditer(text))
    run: list[Span] = []
    for region, following in pairwise([*regions, None]):
        run += _words_of_region(text, region)
        if run and not (following and _continues(text, region, following)):
            yield run
            run = []


def _continues(text: str, region: re.Match[str], following: re.Match[str]) -> bool:
    between = text[region.end() : following.start()]
    return bool(region["comment"] and following["comment"]) and not between.strip()


def _words_of_region(text: str, region: re.Match[str]) -> list[Span]:
    if region["comment"]:
        return list(_spans(text[: region.end()], _CODE_WORDS, region.start()))
    if not _MESSAGE.search(_VALUE.sub("", region["string"])):
        return []
    first, last = region.span("string")
    values = [match.span() for match in _VALUE.finditer(text, first, last)]
    return [
        (start, end)
        for start, end in _spans(text[:last], _CODE_WORDS, first)
        if not any(value_start <= start < value_end for value_start, value_end in values)
    ]


def _spans(text: str, special: re.Pattern[str], position: int = 0) -> Iterator[Span]:
    """Yield the general segmentation from `position`, but each match of `special` as one word."""
    for match in [*special.finditer(text, position), None]:
        until = match.start() if match else len(text)
        for start, end in word_spans(text[position:until]):
            yield position + start, position + end
        if match:
            yield match.span()
            position = match.end()


def _tag_spans(text: str, spans: Sequence[Span], nlp: Language) -> list[str]:
    spaces = [end < start for (_, end), (start, _) in pairwise(spans)] + [False]
    doc = Doc(nlp.vocab, words=[text[start:end] for start, end in spans], spaces=spaces)
    return [pos_class(token.tag_) for token in nlp(doc)]
