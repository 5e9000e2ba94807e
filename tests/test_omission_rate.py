import ast
import doctest
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import evaluate
import numpy as np
import pytest

import selmem.omission_rate
from selmem.omission_rate.rules import split_words

FOLDER = Path(selmem.omission_rate.__file__).parent
load_by_path = evaluate.load


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Keep the scripts and the records that evaluate copies away from the user's."""
    folder = tmp_path_factory.mktemp("evaluate")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(folder))


@pytest.fixture
def metric():
    return load_by_path(str(FOLDER))


def pair(n_documents=12, seed=0):
    generator = np.random.default_rng(seed)
    references = [[f"w{n}" for n in generator.integers(0, 40, 30)] for _ in range(n_documents)]
    predictions = [[word for word in row if generator.random() < 0.7] for row in references]
    return predictions, references


def record(text, words=None, *, cut=()):
    """Return a token record whose pre-tokens and tokens are the space-separated pieces."""
    pieces = text.split(" ") if text else []
    ends = np.cumsum([len(piece) + (i > 0) for i, piece in enumerate(pieces)]).tolist()
    numbers = [zlib.crc32(piece.encode()) >> 1 for piece in pieces]
    prediction = {"text": text, "pretoken_ends": ends, "token_ids": numbers}
    if words is None:
        return prediction
    starts = [end - len(piece) for end, piece in zip(ends, pieces, strict=True)]
    return {
        **prediction,
        "char_start": starts,
        "char_end": ends,
        "token_start": list(range(len(pieces))),
        "n_tokens": [1] * len(pieces),
        "cut": [i in cut for i in range(len(pieces))],
    }


@pytest.mark.parametrize("text", ["The cat sat.", "déjà vu: 3.5 %"])
def test_identical_texts_score_zero_and_empty_ones_one(metric, text):
    forms = [(text, text, ""), (split_words(text), split_words(text), [])]
    forms.append((record(text, words=True), record(text), record("")))
    for reference, same, empty in forms:
        perfect = metric.compute(predictions=[same], references=[reference])
        nothing = metric.compute(predictions=[empty], references=[reference])
        assert perfect["omission_rate"] == perfect["omission_rate_aligned"] == 0.0
        assert nothing["omission_rate"] == nothing["omission_rate_aligned"] == 1.0


def test_three_forms_agree_where_words_are_tokens(metric):
    predictions, references = pair()
    words = metric.compute(predictions=predictions, references=references)
    strings = metric.compute(
        predictions=[" ".join(row) for row in predictions],
        references=[" ".join(row) for row in references],
    )
    records = metric.compute(
        predictions=[record(" ".join(row)) for row in predictions],
        references=[record(" ".join(row), words=True) for row in references],
    )
    assert words == strings == records
    assert 0.2 < words["omission_rate"] <= words["omission_rate_aligned"] + 1e-6 < 0.45
    assert words["chance_rate"] > words["omission_rate"]


def test_rates_by_tag_add_up_to_the_whole(metric):
    predictions, references = pair()
    tags = [["even" if int(word[1:]) % 2 == 0 else "odd" for word in row] for row in references]
    results = metric.compute(predictions=predictions, references=references, tags=tags)
    rows = results["by_tag"]
    assert set(rows) == {"even", "odd"}
    assert sum(row["n_words"] for row in rows.values()) == results["n_words"] == 360
    total = sum(row["n_words"] * row["omission_rate"] for row in rows.values())
    assert total == pytest.approx(360 * results["omission_rate"])
    for row in [results, *rows.values()]:
        low, high = row["interval"]
        assert low <= row["omission_rate"] <= high
        assert row["n_documents"] == 12


def test_words_without_tag_are_in_no_row(metric):
    results = metric.compute(
        predictions=[["a"]], references=[["a", "b"]], tags=[["x", None]], chance_draws=0
    )
    assert results["n_words"] == 2
    assert results["by_tag"]["x"]["n_words"] == 1


def test_cut_words_have_a_row_of_their_own(metric):
    reference = record("a b b", words=True, cut={0})
    results = metric.compute(predictions=[record("a b")], references=[reference], tags=[["x"] * 3])
    assert results["omission_rate"] == 0.5
    assert results["n_words"] == results["by_tag"]["x"]["n_words"] == 2
    assert results["cut"]["n_words"] == 1
    assert results["cut"]["omission_rate"] == 0.0


def test_intervals_resample_documents(metric):
    predictions, references = pair(n_documents=40)
    wide = metric.compute(
        predictions=predictions,
        references=references,
        documents=[i // 4 for i in range(40)],
    )
    assert wide["n_documents"] == 10
    few = metric.compute(
        predictions=predictions, references=references, documents=[i // 5 for i in range(40)]
    )
    assert few["n_documents"] == 8
    assert few["interval"] is None


def test_intervals_are_those_of_the_package(metric):
    from selmem.resampling import Resampling
    from selmem.statistics import bootstrap

    predictions, references = pair(n_documents=40)
    documents = [i // 2 for i in range(40)]
    low, high = metric.compute(predictions=predictions, references=references, documents=documents)[
        "interval"
    ]
    omitted, words = np.zeros((20, 1)), np.zeros((20, 1))
    for document, prediction, reference in zip(documents, predictions, references, strict=True):
        words[document] += len(reference)
        omitted[document] += sum(n for n in (Counter(reference) - Counter(prediction)).values())
    expected = bootstrap(omitted, words, Resampling(n_resamples=1000)).rate_interval()
    assert low == pytest.approx(expected[0][0], abs=0.1 * (high - low))
    assert high == pytest.approx(expected[1][0], abs=0.1 * (high - low))
    assert high > low


def test_a_rate_that_no_document_changes_has_an_interval_without_width(metric):
    _, references = pair()
    results = metric.compute(predictions=references, references=references)
    assert results["n_documents"] == 12
    assert results["interval"] == [0.0, 0.0]


def test_one_document_has_no_chance_rate(metric):
    predictions, references = pair()
    results = metric.compute(
        predictions=predictions, references=references, documents=["one"] * len(references)
    )
    assert results["chance_rate"] is None
    assert results["chance_rate_aligned"] is None


def test_tags_can_follow_after_add_batch(metric):
    predictions, references = pair()
    tags = [["t"] * len(row) for row in references]
    at_once = metric.compute(predictions=predictions, references=references, tags=tags)
    for start in (0, 5):
        stop = start + 5 if start == 0 else None
        metric.add_batch(predictions=predictions[start:stop], references=references[start:stop])
    assert metric.compute(tags=tags) == at_once


def test_combines_with_other_metrics(metric, tmp_path):
    other = tmp_path / "text_count"
    other.mkdir()
    (other / "text_count.py").write_text(
        "import datasets\n"
        "import evaluate\n\n"
        "class TextCount(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        string = datasets.Value('string')\n"
        "        features = datasets.Features({'predictions': string, 'references': string})\n"
        "        return evaluate.MetricInfo(\n"
        "            description='', citation='', inputs_description='', features=features)\n\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'n_texts': len(references)}\n"
    )
    both = evaluate.combine([metric, load_by_path(str(other))])
    results = both.compute(predictions=["a b"], references=["a c"])
    assert results["omission_rate"] == 0.5
    assert results["n_texts"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": ["a"], "references": [""]}, "hold no word"),
        ({"predictions": [], "references": []}, r"predictions is \[\], expected a list of"),
        ({"references": None}, "references is None, expected a list"),
        ({"predictions": "a b", "references": "a c"}, "predictions is 'a b', expected a list"),
        ({"tags": [["x"]]}, "reference 0 has 2 words but 1 tags"),
        ({"tags": []}, "tags for 0 texts came with 1 references"),
        ({"documents": [1, 2]}, "2 documents came with 1 references"),
    ],
    ids=["no words", "no texts", "no references", "strings", "short tags", "no tags", "documents"],
)
def test_bad_input_is_named(metric, arguments, message):
    inputs = {"predictions": ["a b"], "references": ["a b"], **arguments}
    with pytest.raises(ValueError, match=message):
        metric.compute(**inputs)


def test_record_with_unequal_columns_is_named(metric):
    reference = {**record("a b", words=True), "cut": [False]}
    with pytest.raises(ValueError, match="reference 0 describes unequal numbers of words"):
        metric.compute(predictions=[record("a")], references=[reference])


def test_tables_must_know_their_chunks(metric):
    with pytest.raises(ValueError, match="chunk x is not in the table chunks"):
        metric.read_tables([], [{"chunk_id": "x"}], [], tag="pos")


def test_withheld_texts_are_named(metric):
    row = {"chunk_id": "x", "doc_id": "d", "text": None}
    with pytest.raises(ValueError, match="the text of chunk x is not published"):
        metric.read_tables([row], [row], [], tag="pos")


@pytest.mark.parametrize("source", ["inputs_description", "README.md"])
def test_examples_are_true(source, metric, monkeypatch):
    text = metric.inputs_description if source == "inputs_description" else read("README.md")
    monkeypatch.setattr(evaluate, "load", lambda name: {"selmem/omission_rate": metric}[name])
    text = text.replace("```", "")
    examples = doctest.DocTestParser().get_doctest(text, {}, source, None, 0)
    assert len(examples.examples) >= 5
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_card_has_the_fixed_headings():
    headings = [line.strip("# ") for line in read("README.md").splitlines() if line[:1] == "#"]
    expected = [
        *["Metric description", "How to use", "Inputs", "Output values"],
        *["Values from popular papers", "Examples", "Limitations and bias", "Citation"],
    ]
    assert [heading for heading in headings if heading in expected] == expected


def test_scripts_import_nothing_but_what_the_card_promises():
    allowed = {"numpy", "datasets", "evaluate", *sys.stdlib_module_names}
    scripts = [path for path in FOLDER.glob("*.py") if path.name != "app.py"]
    siblings = {path.stem for path in scripts}
    for path in scripts:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed
                assert len(node.names) == 1  # evaluate reads no more from one line
            if isinstance(node, ast.ImportFrom):
                assert (
                    node.module in siblings if node.level else node.module.split(".")[0] in allowed
                )


def test_evaluate_finds_every_sibling_from_the_script():
    tree = ast.parse(read("omission_rate.py"))
    direct = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {p.stem for p in FOLDER.glob("*.py")} - {"omission_rate", "app", "__init__"}
    assert others <= direct


def test_metric_works_without_selmem_and_torch(tmp_path):
    script = (
        "import sys\n"
        "import evaluate\n"
        f"metric = evaluate.load({str(FOLDER)!r})\n"
        "print(metric.compute(predictions=['a'], references=['a b'])['omission_rate'])\n"
        "assert not {'selmem', 'torch', 'transformers', 'scipy'} & set(sys.modules)\n"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_EVALUATE_OFFLINE": "1", "USE_TORCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "0.5\n", done.stderr


def test_count_rule_scores_a_million_words_a_minute(metric):
    predictions, references = pair(n_documents=1000)
    start = time.process_time()
    results = metric.compute(predictions=predictions, references=references, chance_draws=0)
    assert results["n_words"] / (time.process_time() - start) * 60 > 1_000_000


@pytest.mark.slow
def test_page_scores_a_pair():
    pytest.importorskip("gradio", reason="the extra `space` is not installed")
    # in a process of its own: gradio leaves an event loop open
    script = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "import app\n"
        "assert app.build().fn is app.score\n"
        "print(app.score('a b', 'a')['omission_rate'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "0.5\n", done.stderr


def read(name):
    return (FOLDER / name).read_text(encoding="utf-8")
