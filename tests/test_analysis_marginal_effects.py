from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from selmem.analysis.marginal_effects import marginal_effects, mean_under
from selmem.analysis.regression_model import fit_model
from simulated_words import simulated


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
    mean, gradient = mean_under(fit, "NUM")
    step = 1e-6
    for i in range(len(fit.coefficients)):
        moved = fit.coefficients.copy()
        moved[i] += step
        numeric = (mean_under(replace(fit, coefficients=moved), "NUM")[0] - mean) / step
        assert gradient[i] == pytest.approx(numeric, abs=1e-5)


def test_errors_of_repeated_words_and_documents_widen_the_interval():
    words = simulated(np.random.default_rng(3), number_effect=0.0, n_documents=40)
    doubled = pd.concat([words, words], ignore_index=True)
    once, twice = (effect(w, "tokens") for w in (words, doubled))
    width = [row["ci_high"] - row["ci_low"] for row in (once, twice)]
    assert width[1] == pytest.approx(width[0], rel=0.05)
