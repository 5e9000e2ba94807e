import logging
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selmem.corpora import licence_of, parse_source, read_documents
from selmem.errors import InputError
from small_corpora import CONLL, CONLLU, read, write


def test_formats_without_their_ending_are_told_by_their_first_bytes(tmp_path):
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "table")
    assert next(read_documents(str(tmp_path / "table"))).text == "x"
    assert len(read(tmp_path, "eng.testb", CONLL)) == 2
    assert len(read(tmp_path, "treebank", CONLLU)) == 2


@pytest.mark.parametrize(
    ("src", "name", "address", "option"),
    [
        ("dir/a.eval.jsonl.xz", "a.eval", "dir/a.eval.jsonl.xz", ""),
        ("news=dir/a.txt#lines", "news", "dir/a.txt", "lines"),
        ("dir/eng.testb", "eng.testb", "dir/eng.testb", ""),
        ("hub:org/set@v1:en:test#q,a", "set", "org/set@v1:en:test", "q,a"),
        ("mine=hub:set", "mine", "set", ""),
    ],
)
def test_a_source_has_a_name_an_address_and_an_option(src, name, address, option):
    source = parse_source(src)
    assert (source.name, source.address, source.option) == (name, address, option)
    assert source.is_hub == ("hub:" in src)


def test_a_path_that_exists_is_taken_as_it_is(tmp_path):
    path = write(tmp_path, "a=b#c.txt", "text")
    assert parse_source(path).address == path
    assert next(read_documents("n=" + path)).source == "n"


BAD_FILES = [
    ("a.docx", "x", "unknown file type '.docx'; known: .txt"),
    ("a.txt", "", "has no text"),
    ("a.txt", " \n\n", "has no text"),
    ("a.jsonl", '{"text": ""}\n', "has no text"),
    ("a.txt", b"line\nab\xff", "line 2: byte 0xff at offset 7 is not UTF-8"),
    ("a.jsonl", '{"text": "a"}\n{"text": ', "line 2: not JSON"),
    ("a.jsonl", '"text"', "line 1: expected an object"),
    ("a.jsonl", '{"body": "a"}', "line 1: no column `text` or `tokens`; it has body"),
    ("a.jsonl", '{"text": 3}', "line 1: column `text` holds int"),
    (
        "a.jsonl",
        '{"text": "ab\\ud800"}',
        "line 1: column `text` holds half a surrogate pair at char",
    ),
    ("a.jsonl", '{"tokens": ["a", "b"], "pos_tags": ["NN"]}', "line 1: 2 tokens but 1 `pos_tags`"),
    ("a.jsonl", '{"tokens": ["a"], "ner_tags": ["O", "O"]}', "line 1: 1 tokens but 2 `ner_tags`"),
    (
        "a.jsonl",
        '{"text": "ab", "words": [{"start": 1}]}',
        "line 1: a word needs `start` and `end`",
    ),
    ("a.jsonl", '{"text": "ab", "words": [{"start": 0, "end": 3}]}', "leaves the text of 2 char"),
    ("a.jsonl", '{"tokens": ["a"], "pos_tags": ["QQ"]}', "line 1: part-of-speech tag 'QQ'"),
    ("a.conll", "-DOCSTART- -X- -X- O\n\nEU NNP I-NP\n", "line 3: 3 columns, expected 4"),
    ("a.conll", CONLL.replace("VBZ", "QQ"), "from line 1: part-of-speech tag 'QQ' is not in"),
    ("a.conllu", "1\tHe\n", "line 1: 2 columns, expected 10"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_a_defect_of_a_file_is_named_with_its_place(tmp_path, name, content, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, name, content)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("src", "message"),
    [
        ("{folder}/absent.txt", "does not exist"),
        ("{folder}", "is a folder; name its files"),
        ("name=", "names no file"),
        ("{folder}/a.txt#words", "#words is none of file, lines, blocks"),
        ("{folder}/a.conll#lines", "takes no option, but #lines was given"),
        ("{folder}/a.jsonl#body", "no column `body`; it has text"),
    ],
)
def test_a_wrong_source_says_what_is_wrong(tmp_path, src, message):
    write(tmp_path, "a.txt", "text")
    write(tmp_path, "a.conll", CONLL)
    write(tmp_path, "a.jsonl", '{"text": "a"}')
    with pytest.raises(InputError, match=message):
        list(read_documents(src.format(folder=tmp_path)))


def test_empty_documents_are_left_out_and_counted(tmp_path, caplog):
    lines = '{"text": "a"}\n{"text": " "}\n{"text": ""}\n{"text": null}\n'
    with caplog.at_level(logging.WARNING):
        assert [d.doc_id for d in read(tmp_path, "a.jsonl", lines)] == ["1"]
    assert "3 documents without text left out" in caplog.text


def test_unknown_tags_become_the_class_asked_for_and_are_counted(tmp_path, caplog):
    path = write(tmp_path, "a.conll", CONLL.replace("VBZ", "QQ"))
    with caplog.at_level(logging.WARNING):
        documents = list(read_documents(path, unknown_pos="X"))
    assert documents[0].words[1].pos == "X"
    assert "unknown tags read as X: {'QQ': 1}" in caplog.text


@pytest.fixture
def hub_dataset(tmp_path):
    """Return a local dataset repository with class labels, as the Hub would hold it."""
    import datasets

    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER", "I-PER"])),
        }
    )
    rows = {"tokens": [["Ann", "Bo", "ran"], ["Go"]], "ner_tags": [[1, 2, 0], [0]]}
    table = datasets.Dataset.from_dict(rows, features=features)
    for split in ("train", "test"):
        table.to_parquet(str(tmp_path / f"{split}.parquet"))
    return tmp_path


def test_a_dataset_of_the_hub_streams_with_labels_by_name(hub_dataset):
    documents = list(read_documents(f"hub:{hub_dataset}:default:test"))
    assert [d.text for d in documents] == ["Ann Bo ran", "Go"]
    assert [w.entity for w in documents[0].words] == ["PER", "PER", "O"]
    assert (documents[1].doc_id, documents[1].split) == ("2", "test")


def test_rows_of_the_hub_may_lack_their_labels(tmp_path):
    import datasets

    label = datasets.ClassLabel(names=["bad", "good"])
    columns = {"text": datasets.Value("string"), "ner_tags": datasets.List(label), "label": label}
    rows = {"text": ["a b", "c", "d"], "ner_tags": [[], [-1], None], "label": [1, -1, None]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(columns))
    table.to_parquet(str(tmp_path / "train.parquet"))
    assert [d.text for d in read_documents(f"hub:{tmp_path}#text,label")] == ["a b\ngood", "c", "d"]


def test_a_dataset_with_several_splits_asks_which(hub_dataset):
    with pytest.raises(InputError, match="which split\\? It has train, test"):
        list(read_documents(f"hub:{hub_dataset}"))
    with pytest.raises(InputError, match="no split 'dev'"):
        list(read_documents(f"hub:{hub_dataset}:default:dev"))


def test_a_dataset_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot load the dataset"):
        list(read_documents(f"hub:{tmp_path}/absent"))


def test_only_known_sources_with_a_fitting_licence_may_be_republished():
    assert licence_of("gsm8k").republish
    assert licence_of("wikipedia_en.eval").republish
    assert not any(licence_of(name).republish for name in ("conll2003", "eng.testb", "aave", "gum"))
    assert not licence_of("never_heard_of").republish


def test_conll_2003_test_counts_are_the_published_ones(shared_data):
    documents = list(read_documents(str(shared_data("conll2003/eng.testb"))))
    words = [word for document in documents for word in document.words]
    assert (len(documents), len(words)) == (231, 46_435)
    assert sum(document.text.count("\n") + 1 for document in documents) == 3_453
    entities = Counter(word.entity for word in words)
    assert entities == {"O": 38_323, "PER": 2_773, "ORG": 2_496, "LOC": 1_925, "MISC": 918}
    classes = Counter(word.pos for word in words)
    assert [classes[name] for name in ("NOUN", "NUM", "PUNCT", "VERB", "ADP", "DET", "ADJ")] == [
        15_860, 5_985, 5_675, 5_083, 4_836, 2_914, 2_541,
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["ud_ewt/en_ewt-ud-test.conllu", "gum/gum_test.conllu"])
def test_treebank_text_is_the_text_of_its_sentences(shared_data, path):
    lines = shared_data(path).read_text(encoding="utf-8").splitlines()
    sentences = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
    documents = list(read_documents(str(shared_data(path))))
    whole = "".join(document.text for document in documents)
    assert "".join(whole.split()) == "".join("".join(sentences).split())
    assert len(documents) == sum(line.startswith("# newdoc") for line in lines)
    n_words = sum(line.partition("\t")[0].isdecimal() for line in lines)
    assert n_words - sum(len(document.words) for document in documents) <= 2


def test_gum_entities_are_types_of_its_guidelines(shared_data):
    documents = read_documents(str(shared_data("gum/gum_test.conllu")))
    types = {word.entity for document in documents for word in document.words}
    assert types == {
        "O", "abstract", "animal", "event", "object", "organization", "person", "place",
        "plant", "substance", "time",
    }  # fmt: skip


def test_dialect_lines_pair_by_number(shared_data):
    pairs = [
        {d.doc_id for d in read_documents(f"{shared_data(f'aae_sae/{name}_samples.txt')}#lines")}
        for name in ("aave", "sae")
    ]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) == 2_019


@pytest.mark.parametrize(
    "src",
    [
        "gsm8k/test.jsonl#question,answer",
        "humaneval/HumanEval.jsonl#prompt,canonical_solution",
        "math_extra/minerva_math.jsonl#problem,solution",
        "math_extra/olympiadbench.jsonl#context,question,solution",
        "math_extra/svamp.jsonl#Body,Question",
    ],
)
def test_problem_sets_read_by_their_columns(shared_data, src):
    path, _, columns = src.partition("#")
    documents = list(read_documents(f"{shared_data(path)}#{columns}"))
    assert len({document.doc_id for document in documents}) == len(documents) > 100
