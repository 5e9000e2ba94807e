import json
import tracemalloc

import numpy as np
import pytest

from selmem.corpora import read_documents
from selmem.documents import Document
from selmem.errors import InputError
from selmem.overlap import (
    Overlap,
    find_overlap,
    read_overlap,
    store_overlap,
    without_overlap,
    write_overlap,
)
from selmem.tables import CHUNKS, read_metadata, write_table


def document(text, doc_id="d"):
    return Document(doc_id=doc_id, source="s", text=text)


def words(first, n_words):
    return " ".join(f"w{n}" for n in range(first, first + n_words))


def shares(texts, corpus, **options):
    documents = [document(text, str(n)) for n, text in enumerate(texts)]
    return [overlap.share for overlap in find_overlap(documents, corpus, **options)]


def reference(text, corpus, n):
    def ngrams(t):
        split = t.lower().split()
        return [tuple(split[i : i + n]) for i in range(len(split) - n + 1)]

    known = {ngram for other in corpus for ngram in ngrams(other)}
    return sum(ngram in known for ngram in ngrams(text))


def test_a_copy_overlaps_whole_and_other_text_not_at_all():
    assert shares([words(0, 40), words(100, 40)], ["x", words(0, 40)]) == [1.0, 0.0]


def test_case_punctuation_and_spaces_do_not_hide_an_overlap():
    changed = words(0, 20).upper().replace(" ", " ,\n")
    assert shares([words(0, 20)], [changed]) == [1.0]


def test_order_of_words_matters():
    backwards = " ".join(reversed(words(0, 20).split()))
    assert shares([words(0, 20)], [backwards]) == [0.0]


def test_an_ngram_does_not_reach_across_documents_of_the_corpus():
    assert shares([words(0, 13)], [words(0, 7), words(7, 6)]) == [0.0]
    assert shares([words(0, 13)], [words(0, 13)]) == [1.0]


def test_part_of_a_document_counts_by_its_ngrams():
    (overlap,) = find_overlap([document(words(0, 32))], [words(0, 16)])
    assert (overlap.n_ngrams, overlap.n_found) == (20, 4)


def test_repeated_ngrams_count_each_time():
    (overlap,) = find_overlap([document("a b a b a b")], ["a b"], n_words=2)
    assert (overlap.n_ngrams, overlap.n_found) == (5, 3)


def test_a_document_shorter_than_an_ngram_has_no_share():
    assert shares([words(0, 12)], [words(0, 12)]) == [None]


def test_counts_equal_those_of_a_plain_search():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcd"), 60)) for _ in range(30)]
    found = find_overlap(
        [document(t, str(i)) for i, t in enumerate(texts[:10])], texts[10:], n_words=4
    )
    assert [o.n_found for o in found] == [reference(t, texts[10:], 4) for t in texts[:10]]
    assert 0 < sum(o.n_found for o in found) < sum(o.n_ngrams for o in found)


def test_memory_does_not_grow_with_the_corpus(monkeypatch):
    monkeypatch.setattr("selmem.overlap._BATCH_NGRAMS", 2_000)
    monkeypatch.setattr("selmem.overlap._CACHED_WORDS", 2_000)

    def peak(n_texts):
        rng = np.random.default_rng(0)
        corpus = (" ".join(map(str, rng.integers(0, 10**9, 200))) for _ in range(n_texts))
        tracemalloc.start()
        find_overlap([document(words(0, 500))], corpus)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(300) < 1.2 * peak(60)


def test_stored_overlap_filters_documents(tmp_path):
    documents = [
        document(words(0, 40), "seen"),
        document(words(90, 40), "new"),
        document("x", "tiny"),
    ]
    write_overlap(find_overlap(documents, [words(0, 40)]), tmp_path / "o.parquet", metadata={})
    overlaps = read_overlap(tmp_path / "o.parquet")
    assert overlaps[0] == Overlap(source="s", doc_id="seen", n_ngrams=28, n_found=28)
    kept = without_overlap(documents, overlaps, max_share=0.1)
    assert [document.doc_id for document in kept] == ["new", "tiny"]
    assert len(list(without_overlap(documents, overlaps, max_share=1.0))) == 3


def test_sources_are_compared_with_all_of_the_corpus(tmp_path):
    for name, text in (("eval", words(0, 40)), ("one", words(0, 20)), ("two", words(20, 20))):
        (tmp_path / f"{name}.txt").write_text(text)
    corpus = [f"{tmp_path}/one.txt", f"{tmp_path}/two.txt"]
    path = store_overlap([f"news={tmp_path}/eval.txt"], corpus, tmp_path / "o.parquet")
    (overlap,) = read_overlap(path)
    assert overlap == Overlap(source="news", doc_id="1", n_ngrams=28, n_found=16)
    assert read_metadata(path)["n_words"] == 13


def test_a_document_without_stored_overlap_is_an_error():
    with pytest.raises(InputError, match="no overlap is stored for document 'd' of s"):
        list(without_overlap([document("x")], [], max_share=0.1))


def test_another_table_is_no_overlap(tmp_path):
    write_table(CHUNKS.empty_table(), tmp_path / "chunks.parquet", metadata={})
    with pytest.raises(InputError, match="has the columns"):
        read_overlap(tmp_path / "chunks.parquet")


def test_overlap_agrees_with_that_computed_by_others(shared_data):
    path = shared_data("domains/pubmed_central_craft.eval.jsonl")
    corpus = shared_data("corpus/pubmed_central_craft.train.jsonl.xz")
    lines = path.read_text(encoding="utf-8").splitlines()
    stored = [json.loads(line)["meta"]["overlap13"] for line in lines]
    found = find_overlap(read_documents(str(path)), (d.text for d in read_documents(str(corpus))))
    assert [o.share for o in found] == pytest.approx(stored, abs=0.03)
