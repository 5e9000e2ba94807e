import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from conftest import SHARED
from selmem.analysis import analyse
from selmem.analysis.claims import DOMAINS, TAGS
from selmem.analysis.evidence import Effect, paper_claims
from selmem.analysis.frequency import correlation_table
from selmem.analysis.verdicts import _verdict, all_lengths, too_short_table, verdict_table
from selmem.resampling import Resampling
from synthetic_tables import loaded

VERDICTS = ("seen here", "opposite here", "not seen here", "undecided", "too short", "not measured")

FEW = Resampling(n_resamples=200, seed=1)


def verdicts(*measurements):
    correlations = pd.concat([correlation_table(m, FEW) for m in measurements])
    return verdict_table(measurements, correlations, FEW)


@pytest.fixture(scope="module")
def table():
    small = loaded(
        sources=("news", "gsm8k", "aave", "sae"),
        source_effect=(("gsm8k", 1.2), ("aave", 0.9)),
        n_documents=40,
    )
    large = loaded(
        sources=("news", "gsm8k", "aave", "sae"),
        source_effect=(("gsm8k", 1.2), ("aave", 0.9)),
        n_documents=40,
        encoder="tiny-370m",
        intercept=-2.6,
    )
    return verdicts(small, large)


def row(table, claim, length=16, encoder="tiny-130m"):
    found = table[
        (table["claim"] == claim) & (table["length"] == length) & (table["encoder"] == encoder)
    ]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("claim", ["numbers", "organisations", "position", "maths", "dialect"])
def test_planted_effects_are_seen(table, claim):
    assert row(table, claim)["verdict"] == "seen here"
    assert row(table, claim)["ci_low"] > 0


def test_concatenated_dialects_and_mentions_that_are_no_names_are_no_evidence():
    names = ("aave_concatenated", "sae_concatenated")
    m = loaded(sources=names, source_effect=((names[0], 0.9),), n_documents=40, lengths=(16,))
    assert row(verdicts(m), "dialect")["verdict"] == "not measured"
    m = loaded(n_documents=40, lengths=(16,))
    named = m.words["entity"].cat.rename_categories({"ORG": "organization"})
    mentions = replace(m, words=m.words.assign(entity=named))
    assert row(verdicts(mentions), "organisations")["verdict"] == "not measured"


def test_longer_texts_and_smaller_models_are_seen_to_lose_more(table):
    assert row(table, "length", 64)["verdict"] == "seen here"
    assert row(table, "size", encoder="several")["verdict"] == "seen here"
    assert row(table, "size", encoder="several")["note"] == "tiny-130m against tiny-370m"


def test_a_claim_about_something_absent_is_not_measured(table):
    assert row(table, "code")["verdict"] == "not measured"
    assert np.isnan(row(table, "code")["ours_controlled"])


def test_every_claim_has_one_row_per_length_and_a_known_verdict(table):
    own = table[table["encoder"] == "tiny-130m"]
    assert not own.duplicated(["claim", "length"]).any()
    assert set(own["claim"]) == set(paper_claims()) - {"size"}
    assert set(table["verdict"]) <= set(VERDICTS)


def test_lengths_that_no_source_reaches_are_too_short():
    m = loaded(n_documents=40)
    too_short = [{"source": "news", "length": 2048}]
    m = replace(m, run={"config": {"lengths": [16, 64, 2048]}, "too_short": too_short})
    table = verdicts(m)
    assert row(table, "numbers", 2048)["verdict"] == "too short"
    cells = too_short_table(m)
    assert cells[["source", "length"]].to_numpy().tolist() == [["news", 2048]]


def test_below_thirty_documents_everything_is_undecided():
    table = verdicts(loaded(n_documents=20))
    assert set(table["verdict"]) <= {"undecided", "not measured", "too short"}
    assert np.isfinite(row(table, "numbers")["ci_low"])


def test_without_a_null_probe_chance_is_the_control():
    table = verdicts(loaded(n_documents=40, null_probe=False))
    assert row(table, "numbers")["measure"] == "omission over chance"
    assert row(table, "numbers")["verdict"] == "seen here"


def effect(low, high, *, p=0.01, is_correlation=False):
    return Effect((low + high) / 2, 50, p, lambda _: (low, high), is_correlation)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.3, "seen here"),
        (-0.3, -0.001, "opposite here"),
        (-0.009, 0.008, "not seen here"),
        (-0.02, 0.008, "undecided"),
        (np.nan, np.nan, "undecided"),
    ],
)
def test_the_rule_is_fixed(low, high, expected):
    assert _verdict(effect(low, high), 0.95) == expected


def test_correlations_have_a_wider_margin_and_untested_effects_are_undecided():
    assert _verdict(effect(-0.04, 0.04, is_correlation=True), 0.95) == "not seen here"
    assert _verdict(effect(-0.04, 0.04), 0.95) == "undecided"
    assert _verdict(effect(0.1, 0.2, p=np.nan), 0.95) == "undecided"


def test_holm_makes_the_verdicts_intervals_wider_than_single_ones(table):
    own = row(table, "dialect")
    assert own["p_holm"] >= own["p_value"]


def test_paper_numbers_are_those_of_the_fact_sheet():
    path = SHARED / "paper" / "results.json"
    if not path.exists():
        pytest.skip("the paper's numbers are not beside this checkout")
    facts = json.loads(path.read_text())
    claims = paper_claims()
    assert set(TAGS) | set(DOMAINS) < set(claims)
    for i, length in enumerate(facts["lengths"]):
        cell = claims["dialect"]["cells"][str(length)]
        dialects = facts["rouge1_f1_by_dialect"]["130m"]
        gap = (dialects["sae"][i] - dialects["aave"][i]) / 100
        assert cell["difference"] == pytest.approx(gap, abs=1e-4)
        score = facts["rouge1_f1_by_model"]["130m"][i]
        assert f"{score:.1f} %" in claims["length"]["cells"][str(length)]["text"]
        larger = facts["rouge1_f1_by_model"]["1.4b"][i]
        assert claims["size"]["cells"][str(length)]["difference"] == pytest.approx(
            (larger - score) / 100, abs=1e-4
        )
    number = facts["omission_by_pos"]["130m"]["NUM"]
    assert f"{number:.1f} %" in claims["numbers"]["cells"]["256"]["text"]


def test_one_pass_makes_every_table():
    tables = analyse([loaded(n_documents=12, lengths=(16,))], FEW)
    filled = {name for name, table in tables.items() if len(table)}
    assert filled == {
        "omission", "contrasts", "lengths", "positions", "perplexity", "bits", "correlations",
        "calibration", "controls", "edits", "fates", "verdicts",
    }  # fmt: skip
    assert set(tables) - filled == {
        "models", "pairs", "effects", "coefficients", "support", "too_short", "common_words"
    }  # fmt: skip


def test_whole_texts_have_rows_only_where_they_say_something():
    m = loaded(n_documents=12, lengths=(16,))
    m = replace(m, run={**m.run, "config": {"lengths": [0, 16]}})
    assert 0 in all_lengths(m)
    table = verdicts(m)
    assert set(table["length"]) == {16}
    assert "not measured" in set(table["verdict"])
