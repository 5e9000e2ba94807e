import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selmem.corpora import document_record, read_documents
from selmem.errors import InputError
from small_corpora import CONLL, CONLLU, GUM, read


def surfaces(document):
    return [document.text[word.start : word.end] for word in document.words]


def test_a_text_file_is_one_document_with_its_text_untouched(tmp_path):
    text = "First  paragraph.\r\n\r\nSecond\tone.\n"
    (document,) = read(tmp_path, "a.txt", text)
    assert (document.doc_id, document.source, document.text) == ("1", "a", text)
    assert document.words == ()


def test_lines_of_a_text_file_are_documents_named_by_line_number(tmp_path):
    documents = read(tmp_path, "a.txt", "one\n\nthree\r\nfour", "#lines")
    assert [(d.doc_id, d.text) for d in documents] == [("1", "one"), ("3", "three"), ("4", "four")]


def test_blocks_of_a_text_file_are_documents_named_by_first_line(tmp_path):
    documents = read(tmp_path, "a.txt", "one\ntwo\n\n \nfive\n", "#blocks")
    assert [(d.doc_id, d.text) for d in documents] == [("1", "one\ntwo"), ("5", "five")]


def test_a_byte_order_mark_is_not_text(tmp_path):
    assert read(tmp_path, "a.txt", b"\xef\xbb\xbftext")[0].text == "text"


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)]
)
def test_compressed_text_reads_like_plain(tmp_path, ending, compress):
    content = '{"text": "één", "id": 7}\n'.encode()
    (document,) = read(tmp_path, f"a.jsonl.{ending}", compress(content))
    assert (document.doc_id, document.source, document.text) == ("7", "a", "één")


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)]
)
def test_a_truncated_compressed_file_is_an_input_error(tmp_path, ending, compress):
    content = compress(json.dumps({"text": list(range(999)).__repr__()}).encode())[:-20]
    with pytest.raises(InputError, match="damaged or truncated"):
        read(tmp_path, f"a.jsonl.{ending}", content)


def test_a_record_is_named_by_its_id_or_its_line(tmp_path):
    lines = [
        '{"text": "a", "doc_id": "x"}',
        "",
        '{"text": "b"}',
        '{"text": "c", "meta": {"id": 4}}',
    ]
    assert [d.doc_id for d in read(tmp_path, "a.jsonl", "\n".join(lines))] == ["x", "3", "4"]


def test_words_of_a_record_get_classes_and_kinds(tmp_path):
    record = {
        "text": "Ann paid 3",
        "words": [
            {"start": 0, "end": 3, "pos": "NNP", "entity": "B-PER"},
            {"start": 4, "end": 8, "pos": "VERB", "entity": "O"},
            {"start": 9, "end": 10},
        ],
    }
    (document,) = read(tmp_path, "a.jsonl", json.dumps(record))
    assert [(w.pos, w.entity, w.kind) for w in document.words] == [
        ("NOUN", "PER", "word"),
        ("VERB", "O", "word"),
        (None, None, "number"),
    ]


def test_tokens_of_a_record_are_joined_by_spaces(tmp_path):
    record = {"tokens": ["Ann", "'s", "3"], "pos_tags": ["NNP", "POS", "CD"]}
    (document,) = read(tmp_path, "a.jsonl", json.dumps(record))
    assert document.text == "Ann 's 3"
    assert surfaces(document) == ["Ann", "'s", "3"]
    assert [w.pos for w in document.words] == ["NOUN", "PRT", "NUM"]
    assert [w.entity for w in document.words] == [None] * 3


def test_columns_named_after_the_path_are_joined_by_lines(tmp_path):
    record = {"question": "1+1?", "context": None, "answer": ["two\n", "2"], "id": 9}
    option = "#question,context,answer"
    assert read(tmp_path, "a.jsonl", json.dumps(record), option)[0].text == "1+1?\ntwo\n2"


def test_a_document_survives_its_record(tmp_path):
    documents = read(tmp_path, "a.conll", CONLL)
    lines = "\n".join(json.dumps(document_record(document)) for document in documents)
    assert read(tmp_path, "a.jsonl", lines) == documents


def test_parquet_reads_like_json_lines(tmp_path):
    records = [
        {"text": "It is 3.", "id": "x", "words": [{"start": 6, "end": 7, "pos": "CD"}]},
        {"text": "Yes.", "id": "y", "words": None},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    lines = "\n".join(json.dumps(record) for record in records)
    from_parquet = list(read_documents(str(tmp_path / "a.parquet")))
    assert from_parquet == read(tmp_path, "a.jsonl", lines)
    assert from_parquet[0].words[0].pos == "NUM"


def test_a_truncated_parquet_file_is_an_input_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x"] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a whole Parquet file"):
        list(read_documents(str(path)))


def test_conll_sentences_are_lines_and_iob_tags_are_merged(tmp_path):
    first, second = read(tmp_path, "eng.test", CONLL)
    assert first.text == "EU rejects German call .\nPeter Blackburn"
    assert surfaces(first) == ["EU", "rejects", "German", "call", ".", "Peter", "Blackburn"]
    assert [w.entity for w in first.words] == ["ORG", "O", "MISC", "O", "O", "PER", "PER"]
    assert [w.pos for w in first.words[:3]] == ["NOUN", "VERB", "ADJ"]
    assert [w.entity for w in second.words] == ["LOC", "LOC"]
    assert (first.doc_id, second.doc_id, first.source) == ("1", "2", "eng.test")


def test_conllu_text_comes_from_forms_and_space_after(tmp_path):
    first, second = read(tmp_path, "a.conllu", CONLLU)
    assert first.text == "He didn't go.\ndu!"
    assert surfaces(first) == ["He", "did", "n't", "go", ".", "du", "!"]
    assert [w.pos for w in first.words] == ["PRON", "VERB", "ADV", "VERB", "PUNCT", "ADP", "PUNCT"]
    assert {w.entity for w in first.words} == {None}
    assert (first.doc_id, second.doc_id, second.text) == ("first", "second", "Yes")


def test_a_word_of_nested_mentions_belongs_to_the_innermost(tmp_path):
    (document,) = read(tmp_path, "gum.conllu", GUM)
    assert document.text == "The bank of Italy lent Ms Rossiit"
    organization = ["organization"] * 3
    assert [w.entity for w in document.words] == [
        *organization, "place", "O", "person", "object", "object"
    ]  # fmt: skip


def test_the_fields_of_mentions_are_declared_once_for_all_documents(tmp_path):
    second = GUM.replace("# newdoc id = gum\n# global.Entity = GRP-etype-infstat-salience\n", "")
    both = read(tmp_path, "gum.conllu", f"{GUM}\n# newdoc id = again\n{second}")
    first, again = ([word.entity for word in document.words] for document in both)
    assert again == first
    untyped = GUM.replace("etype-infstat", "sort-infstat")
    (document,) = read(tmp_path, "untyped.conllu", untyped)
    assert {word.entity for word in document.words} == {None}


def test_a_mention_that_was_not_opened_is_an_error(tmp_path):
    with pytest.raises(InputError, match="mention 9 of gum closed but not open"):
        read(tmp_path, "gum.conllu", GUM.replace("4)", "9)"))
