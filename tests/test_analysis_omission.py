import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from selmem.analysis.omission import omission_table
from selmem.resampling import Resampling
from selmem.tables import OMISSION
from synthetic_tables import loaded

FEW = Resampling(n_resamples=200, seed=1)


def only(table, **conditions):
    for name, value in conditions.items():
        table = table[table[name] == value]
    assert len(table) == 1, table
    return table.iloc[0]


@pytest.fixture(scope="module")
def table():
    return omission_table(loaded(sources=("news", "code"), n_documents=20), FEW)


@pytest.fixture(scope="module")
def words():
    return loaded(sources=("news", "code"), n_documents=20).words


def test_the_published_columns_come_first(table):
    assert list(table.columns[: len(OMISSION.names)]) == OMISSION.names


@pytest.mark.parametrize("rule", ["count", "aligned", "forced"])
def test_rates_are_ratios_of_sums_over_whole_words(table, words, rule):
    own = words[(words["source"] == "news") & (words["length"] == 16) & ~words["cut"]]
    for scheme, tag in (("pos", "NUM"), ("entity", "ORG"), ("kind", "word")):
        part = own[own[scheme] == tag]
        row = only(table, source="news", length=16, scheme=scheme, tag=tag, rule=rule)
        assert row["n_words"] == len(part)
        assert row["n_documents"] == part["document"].nunique()
        assert row["omission_rate"] == pytest.approx(part[f"omitted_{rule}"].mean())
        assert row["chance_rate"] == pytest.approx(part[f"chance_{rule}"].mean())
        retained = 1 - part[f"omitted_{rule}"].sum() / part[f"chance_{rule}"].sum()
        assert row["retained_over_chance"] == pytest.approx(retained)
        recovered = part["recovered_bits"].sum() / part["null_bits"].sum()
        assert row["recovered_fraction"] == pytest.approx(recovered)
        assert row["tokens_per_word"] == pytest.approx(part["n_tokens"].mean())
        assert row["ci_low"] < row["omission_rate"] < row["ci_high"]
        assert row["recovered_low"] < row["recovered_fraction"] < row["recovered_high"]
        assert row["retained_low"] < row["retained_over_chance"] < row["retained_high"]


def test_cut_words_are_in_a_row_of_their_own_and_in_no_other(table, words):
    own = words[(words["source"] == "news") & (words["length"] == 16)]
    rows = table[(table["source"] == "news") & (table["length"] == 16) & (table["rule"] == "count")]
    counts = rows.groupby(["scheme", "tag"])["n_words"].sum()
    assert counts["all", "cut"] == own["cut"].sum()
    for scheme in ("pos", "entity", "kind"):
        assert counts[scheme].sum() == counts["all", "whole"] == (~own["cut"]).sum()


def test_words_with_a_token_among_the_last_four_are_left_out_on_demand(table, words):
    own = words[(words["source"] == "code") & (words["length"] == 64) & ~words["cut"]]
    early = own[own["last_position"] < 60]
    row = only(table, source="code", length=64, scheme="all", tag="without_last_4", rule="aligned")
    assert row["n_words"] == len(early)
    assert row["omission_rate"] == pytest.approx(early["omitted_aligned"].mean())
    row = only(
        table, source="code", length=64, scheme="pos_without_last_4", tag="VERB", rule="aligned"
    )
    assert row["n_words"] == (early["pos"] == "VERB").sum()


def test_pooled_rows_stand_beside_the_sources_only_if_there_are_several(table, words):
    row = only(table, source="all sources", length=16, scheme="all", tag="whole", rule="aligned")
    own = words[(words["length"] == 16) & ~words["cut"]]
    assert row["n_documents"] == own["document"].nunique() == 40
    assert row["omission_rate"] == pytest.approx(own["omitted_aligned"].mean())
    alone = omission_table(loaded(n_documents=5), FEW)
    assert set(alone["source"]) == {"news"}


def test_below_ten_documents_there_is_a_rate_but_no_interval():
    row = only(
        omission_table(loaded(n_documents=5), FEW),
        length=16,
        scheme="all",
        tag="whole",
        rule="count",
    )
    assert 0 < row["omission_rate"] < 1
    assert np.isnan(row["ci_low"])
    assert np.isnan(row["recovered_high"])
    assert row["n_documents"] == 5


def test_without_null_probe_entities_or_chance_those_columns_are_empty_and_the_rest_stands():
    m = loaded(n_documents=12, null_probe=False, entities=False)
    table = omission_table(replace(m, words=m.words.assign(chance_count=np.nan)), FEW)
    assert table["recovered_fraction"].isna().all()
    assert not table["scheme"].str.startswith("entity").any()
    assert table.loc[table["rule"] == "forced", "retained_over_chance"].isna().all()
    assert table.loc[table["rule"] == "count", "chance_rate"].isna().all()
    assert table.loc[table["rule"] == "aligned", "chance_rate"].notna().all()
    assert table["ci_low"].notna().any()


def test_a_perfect_reconstruction_has_omission_zero_and_a_bound_above_it():
    m = loaded(n_documents=12)
    perfect = m.words.assign(omitted_count=0.0, omitted_aligned=0.0, omitted_forced=0.0)
    table = omission_table(replace(m, words=perfect), FEW)
    assert (table["omission_rate"] == 0).all()
    known = table["ci_high"].notna()
    assert (table.loc[known, "ci_low"] == 0).all()
    assert table.loc[known, "ci_high"].between(0.1, 0.35).all()
    assert (table.loc[table["chance_rate"] > 0, "retained_over_chance"] == 1).all()


def test_text_without_annotated_words_gives_an_empty_table_with_all_columns():
    table = omission_table(loaded(n_documents=12, annotated=False), FEW)
    assert len(table) == 0
    assert list(table.columns[: len(OMISSION.names)]) == OMISSION.names


def many_words(measurement, n_words):
    """Repeat the words of a measurement, each copy with documents of its own."""
    copies = -(-n_words // len(measurement.words))
    step = measurement.chunks["document"].max() + 1
    parts = [
        measurement.words.assign(document=measurement.words["document"] + i * step)
        for i in range(copies)
    ]
    return replace(measurement, words=pd.concat(parts, ignore_index=True))


@pytest.mark.slow
def test_a_fifth_of_a_million_words_takes_a_fifth_of_two_minutes():
    m = many_words(loaded(sources=("news", "code"), n_documents=20), 200_000)
    start = time.process_time()
    omission_table(m, Resampling(n_resamples=2000))
    assert time.process_time() - start < 24
