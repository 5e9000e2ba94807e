from dataclasses import replace

import numpy as np

from selmem.analysis.regression import regression_tables
from selmem.analysis.regression_model import MODELS
from synthetic_tables import loaded


def test_tables_hold_effects_coefficients_and_support_for_all_and_for_open_classes():
    m = loaded(n_documents=40)
    tables = regression_tables(m)
    assert set(tables.effects["words"]) == {"all classes", "open classes"}
    assert set(tables.effects["model"]) == {
        "independent tokens", "tokens", "covariates", "covariates and null bits",
    }  # fmt: skip
    number = tables.effects[
        (tables.effects["tag"] == "NUM") & (tables.effects["model"] == "covariates")
    ]
    assert (number["ci_low"] > 0).all()
    opened = tables.effects[tables.effects["words"] == "open classes"]
    assert set(opened["tag"]) <= {"VERB", "ADJ", "ADV", "NUM", "NOUN"}
    assert tables.support["share_in_frequency_range"].between(0, 1).all()
    assert (tables.coefficients["inflation"].dropna() >= 1 - 1e-6).all()


def test_without_null_bits_or_frequencies_the_remaining_models_are_fitted():
    tables = regression_tables(loaded(n_documents=40, null_probe=False, frequencies=False))
    assert set(tables.effects["model"]) == {"independent tokens", "tokens", "covariates"}
    assert not tables.coefficients["term"].str.contains("frequency").any()
    given = tables.effects.set_index("model")["given"]
    assert set(given.loc[["independent tokens", "tokens"]]) == {"tokens"}
    assert set(given.loc[["covariates"]]) == {"tokens, place, length"}
    assert tables.support["share_in_frequency_range"].isna().all()


def test_below_thirty_documents_or_without_words_the_tables_are_empty():
    assert len(regression_tables(loaded(n_documents=12)).effects) == 0
    assert len(regression_tables(loaded(n_documents=12, annotated=False)).effects) == 0


def test_a_class_that_is_never_omitted_is_left_out_instead_of_diverging():
    m = loaded(n_documents=40)
    words = m.words.copy()
    words.loc[words["pos"] == "ADP", "omitted_aligned"] = 0.0
    effects = regression_tables(replace(m, words=words)).effects
    assert "ADP" not in set(effects["tag"])
    assert np.isfinite(effects["effect"]).all()


def test_a_source_of_which_no_word_is_left_costs_no_model():
    m = loaded(sources=("news", "code"), n_documents=40)
    words = m.words.assign(source=m.words["source"].cat.add_categories(["novels"]))
    assert set(regression_tables(replace(m, words=words)).effects["model"]) == set(MODELS)
