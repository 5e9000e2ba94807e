from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.outliers_influence import variance_inflation_factor

from selmem.analysis.regression import (
    MODELS,
    _mean_under,
    fit_model,
    marginal_effects,
    regression_tables,
    variance_inflation,
)
from synthetic_tables import loaded


def simulated(rng, *, number_effect, n_documents=80, per_document=60):
    """Words whose omission follows the model: rate per token from rarity, and from the tag."""
    n = n_documents * per_document
    tag = rng.choice(["NOUN", "NUM"], n, p=[0.7, 0.3])
    frequency = rng.normal(-4 - 0.8 * (tag == "NUM"), 0.7, n)
    n_tokens = 1 + rng.binomial(3, np.where(tag == "NUM", 0.6, 0.2))
    document = np.repeat(np.arange(n_documents), per_document)
    linear = -4.5 - 0.8 * frequency + number_effect * (tag == "NUM")
    linear += rng.normal(0, 0.3, n_documents)[document]
    omitted = rng.random(n) < 1 - np.exp(-n_tokens * np.exp(linear))
    return pd.DataFrame(
        {
            "tag": tag,
            "word": np.char.add("w", rng.integers(0, 800, n).astype(str)),
            "document": document,
            "omitted_aligned": omitted.astype(float),
            "n_tokens": n_tokens,
            "log10_word_frequency": frequency,
            "place": rng.random(n),
            "late": 0.0,
            "length": 16,
            "source": "news",
            "null_per_token": -frequency + rng.normal(0, 0.3, n),
        }
    )


def effect(words, model):
    return marginal_effects(fit_model(words, "NOUN", model), words, "NOUN").iloc[0]


def test_a_gap_made_by_rarity_and_tokens_alone_vanishes_with_the_covariates():
    words = simulated(np.random.default_rng(0), number_effect=0.0)
    row = effect(words, "covariates")
    assert row["raw_difference"] > 0.25
    assert effect(words, "tokens")["ci_low"] > 0.05
    assert row["ci_low"] < 0 < row["ci_high"]
    assert abs(row["effect"]) < 0.05


def test_tokens_lost_together_make_no_gap_between_classes_of_short_and_long_words():
    words = simulated(np.random.default_rng(5), number_effect=0.0)
    words["omitted_aligned"] = (np.random.default_rng(6).random(len(words)) < 0.5).astype(float)
    independent, own = (effect(words, model) for model in ("independent tokens", "tokens"))
    assert independent["ci_high"] < -0.1, "fewer of the longer words than independence expects"
    assert own["ci_low"] < 0 < own["ci_high"]
    fit = fit_model(words, "NOUN", "tokens")
    assert fit.coefficients[fit.names.index("log_tokens")] == pytest.approx(-1, abs=0.15)


def test_tokens_lost_independently_need_no_departure_from_the_offset():
    words = simulated(np.random.default_rng(7), number_effect=0.5)
    fit = fit_model(words, "NOUN", "covariates")
    place = fit.names.index("log_tokens")
    assert abs(fit.coefficients[place]) < 2.5 * fit.covariance[place, place] ** 0.5


def test_a_gap_of_the_tag_itself_stays_and_its_size_is_recovered():
    words = simulated(np.random.default_rng(1), number_effect=0.7)
    fit = fit_model(words, "NOUN", "covariates")
    coefficient = fit.coefficients[next(i for i, n in enumerate(fit.names) if "T.NUM" in n)]
    assert coefficient == pytest.approx(0.7, abs=0.15)
    assert effect(words, "covariates")["ci_low"] > 0.05
    assert effect(words, "covariates and null bits")["ci_low"] > 0.05


def test_marginal_effect_and_its_error_agree_with_numeric_differentiation():
    words = simulated(np.random.default_rng(2), number_effect=0.3, n_documents=40)
    fit = fit_model(words, "NOUN", "covariates")
    mean, gradient = _mean_under(fit, "NUM")
    step = 1e-6
    for i in range(len(fit.coefficients)):
        moved = fit.coefficients.copy()
        moved[i] += step
        numeric = (_mean_under(replace(fit, coefficients=moved), "NUM")[0] - mean) / step
        assert gradient[i] == pytest.approx(numeric, abs=1e-5)


def test_errors_of_repeated_words_and_documents_widen_the_interval():
    words = simulated(np.random.default_rng(3), number_effect=0.0, n_documents=40)
    doubled = pd.concat([words, words], ignore_index=True)
    once, twice = (effect(w, "tokens") for w in (words, doubled))
    width = [row["ci_high"] - row["ci_low"] for row in (once, twice)]
    assert width[1] == pytest.approx(width[0], rel=0.05)


def test_variance_inflation_of_single_columns_is_the_usual_one():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    design = np.column_stack([np.ones(500), x])
    terms = {"Intercept": slice(0, 1), **{f"x{i}": slice(i, i + 1) for i in (1, 2, 3)}}
    found = variance_inflation(design, terms)
    usual = {f"x{i}": variance_inflation_factor(design, i) ** 0.5 for i in (1, 2, 3)}
    assert found == pytest.approx(usual)


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
