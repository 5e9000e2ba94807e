import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selmem.analysis import load_measurement, load_measurements
from selmem.errors import InputError
from synthetic_tables import CONTROLS, loaded, write_measurement


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_measurement(tmp_path_factory.mktemp("made"), n_documents=4, lengths=(8,))


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "measured")


def rewrite(folder, name, change):
    path = folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def test_words_and_tokens_know_their_document_source_and_length():
    m = loaded(sources=("news", "code"), n_documents=5, controls=CONTROLS)
    for frame in (m.words, m.tokens):
        chunk = m.chunks.iloc[frame["chunk"].to_numpy()]
        for name in ("document", "source", "length"):
            assert (frame[name].to_numpy() == chunk[name].to_numpy()).all()
    assert m.chunks["document"].nunique() == 10
    assert m.sources == ("code", "news")
    assert m.lengths == (16, 64)
    assert m.controls == CONTROLS


def test_forced_chance_is_whether_the_null_probe_misses_a_token_of_the_word():
    m = loaded(n_documents=5)
    word = m.words.iloc[321]
    own = m.tokens[(m.tokens["chunk"] == word["chunk"])]
    own = own[own["position"].between(word["first_position"], word["last_position"])]
    expected = (own["null_argmax_id"] != own["token_id"]).any()
    assert word["chance_forced"] == expected
    assert set(m.words["chance_forced"].unique()) == {0, 1}


def test_words_and_tokens_agree_about_positions():
    m = loaded(n_documents=5)
    covered = m.tokens.merge(m.words[["chunk", "word_index", "first_position", "last_position"]])
    assert covered["position"].between(covered["first_position"], covered["last_position"]).all()


def test_whole_texts_have_length_zero_and_keep_their_tokens(folder):
    def whole(table):
        ids = [i.as_py().replace("/8/", "/whole/") for i in table["chunk_id"]]
        return table.set_column(0, "chunk_id", pa.array(ids))

    for name in ("chunks", "reconstructions", "tokens", "words"):
        rewrite(folder, name, whole)
    chunks = load_measurement(folder).chunks
    assert set(chunks["length"]) == {0}
    assert set(chunks["n_tokens"]) == {8}


@pytest.mark.parametrize("name", ["chunks", "reconstructions", "tokens", "words"])
def test_a_missing_or_damaged_table_is_named(folder, name):
    path = folder / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{name}\.parquet is not a whole Parquet file"):
        load_measurement(folder)
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}\.parquet does not exist"):
        load_measurement(folder)


def test_a_missing_column_is_named(folder):
    rewrite(folder, "words", lambda table: table.drop_columns(["omitted_count"]))
    with pytest.raises(InputError, match="lacks the columns omitted_count"):
        load_measurement(folder)


def test_tables_of_different_runs_are_refused(folder):
    rewrite(
        folder,
        "words",
        lambda table: table.set_column(0, "chunk_id", pa.array(["other/x/8/0"] * len(table))),
    )
    with pytest.raises(InputError, match="speaks of chunk other/x/8/0"):
        load_measurement(folder)


def test_an_interrupted_measurement_is_refused(folder):
    rewrite(folder, "tokens", lambda table: table.slice(0, len(table) - 3))
    with pytest.raises(InputError, match=r"has 5 tokens of chunk .* expected 8"):
        load_measurement(folder)
    rewrite(folder, "reconstructions", lambda table: table.slice(1))
    with pytest.raises(InputError, match="has 0 rows for a chunk, expected one"):
        load_measurement(folder)


def test_words_outside_of_their_chunk_are_refused(folder):
    starts = pa.array([7] * len(pq.read_table(folder / "words.parquet")), pa.int32())

    def late(table):
        return table.set_column(table.schema.get_field_index("token_start"), "token_start", starts)

    rewrite(folder, "words", late)
    with pytest.raises(InputError, match="words outside of their chunk"):
        load_measurement(folder)


def test_repeated_chunks_and_two_probes_are_refused(folder):
    def mixed(table):
        probes = ["a", *(["b"] * (len(table) - 1))]
        return table.set_column(table.schema.get_field_index("probe"), "probe", pa.array(probes))

    rewrite(folder, "reconstructions", mixed)
    with pytest.raises(InputError, match=r"2 values of probe \(a, b\)"):
        load_measurement(folder)
    rewrite(folder, "chunks", lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    with pytest.raises(InputError, match="twice"):
        load_measurement(folder)


def test_no_chunk_at_all_is_refused(folder):
    rewrite(folder, "chunks", lambda table: table.slice(0, 0))
    with pytest.raises(InputError, match="holds no chunk"):
        load_measurement(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "is no JSON"), ("[1]", "holds a list")])
def test_a_damaged_run_file_is_refused(folder, text, message):
    (folder / "run.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_measurement(folder)


def test_the_same_chunks_twice_and_no_folder_are_refused(folder, made):
    with pytest.raises(InputError, match=r"measured and .*made0 both hold chunk news/00000/8/0;"):
        load_measurements([made, folder])
    with pytest.raises(InputError, match="no folder given"):
        load_measurements([])


def test_measurements_with_other_tokenizers_are_refused(made, tmp_path):
    other = write_measurement(tmp_path / "b", n_documents=4, lengths=(8,), encoder="tiny-370m")
    assert len(load_measurements([made, other])) == 2
    run = json.loads((other / "run.json").read_text())
    run["config"]["tokenizer_hash"] = "another"
    (other / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match="different tokenizers or texts"):
        load_measurements([made, other])
    shifted = write_measurement(tmp_path / "c", n_documents=4, lengths=(8,), encoder="x", seed=9)
    with pytest.raises(InputError, match="different tokenizers or texts"):
        load_measurements([made, shifted])


def test_without_a_null_probe_there_are_no_recovered_bits():
    m = loaded(n_documents=4, null_probe=False)
    assert not m.has_null
    assert np.isnan(m.words["chance_forced"]).all()
    assert loaded(n_documents=5).has_null
