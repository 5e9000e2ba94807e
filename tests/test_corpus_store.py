import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from selmem.corpora import read_documents
from selmem.corpus_building import build_store
from selmem.corpus_store import TokenReader, open_store
from selmem.errors import InputError
from selmem.tokenization import tokenizer_hash
from selmem.word_pairs import WordSwap
from small_corpus import small_texts, small_tokenizer, write_corpus

TEXTS = small_texts()


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("store")
    sources = [
        "a=" + write_corpus(folder / "a.jsonl", TEXTS[:25]),
        "b=" + write_corpus(folder / "b.jsonl", TEXTS[25:]),
    ]
    return build_store(sources, tokenizer, folder / "store", held_out=0.1)


def document_ids(store, row):
    begin = store.offsets[row]
    return store.tokens[begin : begin + store.sizes[row]].tolist()


def test_every_document_is_in_the_store_once_and_ends_with_the_end_of_text(store, tokenizer):
    expected = sorted(tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS)
    assert sorted(document_ids(store, row) for row in range(len(TEXTS))) == expected
    assert (store.tokens[store.offsets[1:] - 1] == tokenizer.eos_token_id).all()
    assert store.tokens.dtype == np.uint16


def test_documents_keep_their_source_and_name(store, tokenizer):
    table = pq.read_table(store.path / "documents.parquet").to_pylist()
    for row, entry in enumerate(table):
        texts = TEXTS[:25] if entry["source"] == "a" else TEXTS[25:]
        text = tokenizer.decode(document_ids(store, row))
        assert texts[int(entry["doc_id"].removeprefix("d"))] == text
        assert store.sources[store.source_ids[row]] == entry["source"]


def test_whole_documents_are_held_out_and_come_last(store):
    held_out = pq.read_table(store.path / "documents.parquet")["held_out"].to_pylist()
    assert held_out == sorted(held_out)
    assert sum(held_out) == 4
    assert store.n_train == 36


def test_which_documents_are_held_out_does_not_depend_on_their_order(store, tmp_path, tokenizer):
    reordered = write_corpus(tmp_path / "c.jsonl", TEXTS[::-1])
    other = build_store([reordered], tokenizer, tmp_path / "store", held_out=0.1)
    ours, theirs = (
        sorted(document_ids(s, row) for row in range(s.n_train, len(TEXTS))) for s in (store, other)
    )
    assert ours == theirs


@pytest.mark.parametrize("length", [1, 4, 63])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_windows_are_all_that_fit_into_one_document_and_no_others(store, length, split):
    windows = store.windows(length, split)
    rows = range(len(TEXTS))[store.documents(split)]
    expected = [
        int(store.offsets[row]) + shift
        for row in rows
        for shift in range(int(store.sizes[row]) - length + 1)
    ]
    assert windows.total == len(expected)
    assert windows.starts(np.arange(windows.total)).tolist() == expected


def test_packed_windows_cover_the_running_text_of_one_split(store):
    windows = store.windows(500, "train", packed=True)
    assert windows.starts(np.array([0])).tolist() == [0]
    assert windows.starts(np.array([windows.total - 1])) + 500 == store.offsets[store.n_train]
    held_out = store.windows(100, "held_out", packed=True)
    assert held_out.starts(np.array([0])) == store.offsets[store.n_train]
    assert held_out.starts(np.array([held_out.total - 1])) + 100 == len(store.tokens)


def test_a_length_beyond_every_document_has_no_windows(store):
    assert store.windows(10_000, "train").total == 0
    assert store.windows(10_000, "train").spread(5).tolist() == []


def test_spread_windows_are_distinct_and_reach_both_ends(store):
    windows = store.windows(8, "train")
    spread = windows.spread(20)
    assert len(set(spread.tolist())) == 20
    assert windows.spread(10**9).tolist() == windows.starts(np.arange(windows.total)).tolist()


def test_reader_returns_the_tokens_at_the_starts(store):
    starts = store.windows(7, "train").spread(9)
    read = TokenReader(store, "cpu").read(starts, 7)
    expected = [store.tokens[start : start + 7].tolist() for start in starts]
    assert read.tolist() == expected


def test_reader_returns_token_ids_above_32767(tmp_path, store):
    tokens = np.array([65_535, 40_000, 7], np.uint16)
    high = type(store)(tmp_path, tokens, np.array([2]), np.zeros(1, np.int32), ("x",), 1, {})
    assert TokenReader(high, "cpu").read(np.array([0]), 3).tolist() == [[65_535, 40_000, 7]]


def test_same_request_opens_the_store_and_another_is_refused(store, tokenizer):
    request = json.loads((store.path / "store.json").read_text())["request"]
    again = build_store(request["sources"], tokenizer, store.path, held_out=0.1)
    assert again.content_hash == store.content_hash
    with pytest.raises(InputError, match="holds something else"):
        build_store(request["sources"], tokenizer, store.path, held_out=0.2)
    assert store.tokenizer_hash == tokenizer_hash(tokenizer)


def test_text_that_looks_like_the_end_of_text_is_text(tmp_path, tokenizer):
    source = write_corpus(tmp_path / "s.jsonl", ["a <|endoftext|> b", "second text", "third"])
    made = build_store([source], tokenizer, tmp_path / "store")
    assert (made.tokens == tokenizer.eos_token_id).sum() == 3


def test_one_document_is_too_few_and_leaves_nothing_behind(tmp_path, tokenizer):
    source = write_corpus(tmp_path / "one.jsonl", ["only one text"])
    with pytest.raises(InputError, match="1 documents with text, expected at least 2"):
        build_store([source], tokenizer, tmp_path / "out" / "store")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_truncated_store_is_refused(tmp_path, tokenizer):
    source = write_corpus(tmp_path / "s.jsonl", TEXTS)
    made = build_store([source], tokenizer, tmp_path / "store")
    file = made.path / "tokens.npy"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InputError, match="no whole corpus store"):
        open_store(made.path)
    np.save(file, np.zeros(3, np.uint16))
    with pytest.raises(InputError, match="holds 3 tokens, expected"):
        open_store(made.path)
    with pytest.raises(InputError, match="no whole corpus store"):
        open_store(tmp_path / "absent")


@pytest.mark.parametrize("swapped", [False, True])
def test_several_processes_make_the_same_store_byte_for_byte(tmp_path, tokenizer, swapped):
    word = TEXTS[0].split()[0].strip(".").lower()
    source = write_corpus(tmp_path / "s.jsonl", TEXTS)
    for jobs in (1, 2):
        swap = WordSwap({word: "other"}) if swapped else None
        made = build_store([source], tokenizer, tmp_path / str(jobs), swap=swap, jobs=jobs)
        assert swap is None or made.summary["n_replaced"][word] > 10
    for name in ("tokens.npy", "documents.parquet", "store.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_reader_that_fails_fails_the_build_of_several_processes_too(tmp_path, tokenizer):
    with pytest.raises(InputError, match="does not exist"):
        build_store([str(tmp_path / "absent.jsonl")], tokenizer, tmp_path / "store", jobs=2)


def test_a_store_read_back_has_the_documents_it_was_made_of(store, tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    source = f"{store.path}#{tmp_path / 'tokenizer'}"
    found = {(d.source, d.doc_id): d.text for d in read_documents(source)}
    texts = [
        (name, f"d{i}")
        for name, part in (("a", TEXTS[:25]), ("b", TEXTS[25:]))
        for i in range(len(part))
    ]
    assert found == dict(zip(texts, TEXTS, strict=True))
    again = build_store([source], tokenizer, tmp_path / "again", held_out=0.1)
    assert again.content_hash == store.content_hash


def test_a_store_is_read_back_with_its_own_tokenizer_only(store, tmp_path):
    small_tokenizer(["other text"] * 9).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="was made with a tokenizer of hash"):
        next(read_documents(f"{store.path}#{tmp_path / 'other'}"))
    with pytest.raises(InputError, match="name their tokenizer"):
        next(read_documents(str(store.path)))
