import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from selmem.analysis import load_measurement, load_measurements
from selmem.analysis.joining import join_measurements
from selmem.analysis.omission import omission_table
from selmem.analysis.verdicts import all_lengths, too_short_table
from selmem.errors import InputError
from selmem.resampling import Resampling
from selmem.tables import read_table, write_table
from synthetic_tables import write_measurement

TABLES = ("chunks", "reconstructions", "tokens", "words")
LENGTHS = (8, 16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One folder with two sources and two lengths."""
    return write_measurement(
        tmp_path_factory.mktemp("whole"),
        n_documents=12,
        lengths=LENGTHS,
        sources=("news", "code"),
        controls=("conv_only",),
    )


@pytest.fixture(scope="module")
def folders(whole, tmp_path_factory):
    """The same in three folders: the lengths of `news` apart; `code` lacks control and entities."""
    root = tmp_path_factory.mktemp("parts")
    return [
        part_of(whole, root / "a", "news/.*/16/", lengths=[16]),
        part_of(whole, root / "b", "code/", lengths=list(LENGTHS), without="probe_bits_conv_only"),
        part_of(whole, root / "c", "news/.*/8/", lengths=[8], too_short=[["news", 8192]]),
    ]


def part_of(whole, folder, pattern, *, lengths, without=None, too_short=()):
    for name in TABLES:
        table = read_table(whole / f"{name}.parquet")
        table = table.filter(pc.match_substring_regex(table["chunk_id"], f"^{pattern}"))
        if without in table.column_names:
            table = table.drop_columns([without])
        if without and name == "words":
            nothing = pa.nulls(table.num_rows, pa.string())
            table = table.set_column(table.column_names.index("entity"), "entity", nothing)
        write_table(table, folder / f"{name}.parquet", metadata={})
    config = {"encoder": "tiny-130m", "lengths": lengths, "dtype": "float32"}
    missing = [{"source": source, "length": length} for source, length in too_short]
    run = {"config": config, "config_hash": str(folder), "too_short": missing}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def by_chunk(m, frame, *keys):
    named = frame.assign(chunk=m.chunks["chunk_id"].to_numpy()[frame["chunk"]])
    named = named.sort_values(["chunk", *keys], ignore_index=True).drop(columns="document")
    return named[sorted(named)]


def test_folders_of_one_probe_are_one_measurement(whole, folders):
    [joined] = load_measurements(folders)
    expected = load_measurement(whole)
    assert len(joined.chunks) == len(expected.chunks)
    found, truth = (by_chunk(m, m.words, "word_index") for m in (joined, expected))
    truth.loc[truth["source"] == "code", "entity"] = None
    pd.testing.assert_frame_equal(found, truth, check_categorical=False)
    found = by_chunk(joined, joined.tokens, "position")
    truth = by_chunk(expected, expected.tokens, "position")
    truth.loc[truth["source"] == "code", "probe_bits_conv_only"] = np.nan
    pd.testing.assert_frame_equal(found, truth)
    for m in (joined, expected):
        ids = dict(zip(m.chunks["chunk_id"], m.reference_ids.to_pylist(), strict=True))
        assert m.tokens.loc[m.tokens["chunk"] == 7, "token_id"].tolist() == list(
            ids[m.chunks["chunk_id"][7]]
        )


def test_a_document_in_two_folders_is_one_document(folders):
    [joined] = load_measurements(folders)
    ids = joined.chunks["source"].astype(str) + "/" + joined.chunks["doc_id"]
    assert joined.chunks["document"].nunique() == ids.nunique() == 24
    assert (joined.chunks.groupby(ids)["document"].nunique() == 1).all()
    rows = joined.chunks.iloc[joined.words["chunk"]]
    assert (rows["document"].to_numpy() == joined.words["document"].to_numpy()).all()


def test_omission_of_joined_folders_is_that_of_one(whole, folders):
    resampling = Resampling(n_resamples=20)
    keys = ["source", "length", "scheme", "tag", "rule"]
    columns = ["n_words", "n_documents", "omission_rate", "chance_rate", "recovered_fraction"]
    tables = [
        omission_table(m, resampling).set_index(keys)[columns].sort_index()
        for m in (load_measurements(folders)[0], load_measurement(whole))
    ]
    tables = [table[table.index.get_level_values("scheme") != "entity"] for table in tables]
    pd.testing.assert_frame_equal(
        *(t.drop("entity_without_last_4", level="scheme") for t in tables)
    )


def test_runs_are_joined_and_only_what_was_asked_for_is_too_short(folders):
    [joined] = load_measurements(folders)
    assert all_lengths(joined) == [8, 16]
    assert joined.run["config"]["encoder"] == "tiny-130m"
    assert too_short_table(joined)[["source", "length"]].to_numpy().tolist() == [["news", 8192]]
    assert "config_hash" not in joined.run


def test_the_same_chunk_in_two_folders_is_refused(folders):
    first = load_measurement(folders[0])
    with pytest.raises(InputError, match=r"a and .*b both hold chunk news/00000/16/0; give one"):
        join_measurements([first, first], [folders[1], folders[0]])


def test_other_weights_under_the_same_name_are_refused(folders):
    first, second = (load_measurement(folder) for folder in folders[:2])
    other = replace(second, run={"config": {**second.run["config"], "encoder_fingerprint": "f"}})
    with pytest.raises(InputError, match="with another encoder_fingerprint; report them apart"):
        join_measurements([first, other], folders[:2])
