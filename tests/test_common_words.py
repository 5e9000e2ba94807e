import numpy as np
import pytest

from selmem.analysis.common_words import common_word_table, common_words
from selmem.figures.curves import common_words as draw
from selmem.resampling import Resampling
from synthetic_tables import loaded

FEW = Resampling(n_resamples=200, seed=1)


@pytest.fixture(scope="module")
def measurement():
    return loaded(n_documents=40, lengths=(4, 16, 64), sources=("news", "web"))


def test_every_common_word_stands_once_in_every_length(measurement):
    words = common_words(measurement)
    lengths = words["length"].unique()
    assert len(lengths) >= 2
    for _, part in words.groupby(["document", "place"]):
        assert sorted(part["length"]) == sorted(lengths)
        assert part["n_tokens"].nunique() == 1
    assert not words["cut"].any()
    chunks = measurement.chunks.loc[words["chunk"]]
    start = chunks["number"].to_numpy() * chunks["length"].to_numpy()
    assert np.array_equal(start + words["first_position"].to_numpy(), words["place"].to_numpy())


def test_rows_are_the_rates_over_the_same_words(measurement):
    table = common_word_table(measurement, FEW)
    words = common_words(measurement)
    for (source, length), part in words.groupby(["source", "length"], observed=True):
        [row] = table[(table["source"] == source) & (table["length"] == length)].to_dict("records")
        assert row["omission_aligned"] == pytest.approx(part["omitted_aligned"].mean())
        assert row["n_words"] == len(part)
        assert row["omission_aligned_low"] < row["omission_aligned"] < row["omission_aligned_high"]
        fraction = part["recovered_bits"].sum() / part["null_bits"].sum()
        assert row["recovered_fraction"] == pytest.approx(fraction, rel=1e-5)
    counts = table.groupby("source")[["n_words", "n_documents"]].nunique()
    assert (counts == 1).all(axis=None)


def test_documents_without_long_chunks_are_left_out(measurement):
    long = set(measurement.chunks.query("length == 64")["document"])
    assert set(common_words(measurement)["document"]) <= long


def test_a_length_that_shares_too_little_is_left_out(measurement):
    from dataclasses import replace

    words = measurement.words
    few = replace(measurement, words=words[(words["length"] != 4) | (words["document"] < 3)])
    assert sorted(common_words(few)["length"].unique()) == [16, 64]
    none = replace(measurement, words=words[words["length"] == 4])
    assert not len(common_words(none))
    assert not len(common_word_table(none, FEW))


def test_figure_states_its_words(measurement):
    table = common_word_table(measurement, FEW)
    figure = draw(table[table["source"] == "news"], title="x")
    assert " words of " in figure.axes[0].get_xlabel()
