import numpy as np
import pytest
from statsmodels.stats.outliers_influence import variance_inflation_factor

from selmem.analysis.regression_model import fit_model, variance_inflation
from simulated_words import simulated


def test_tokens_lost_independently_need_no_departure_from_the_offset():
    words = simulated(np.random.default_rng(7), number_effect=0.5)
    fit = fit_model(words, "NOUN", "covariates")
    place = fit.names.index("log_tokens")
    assert abs(fit.coefficients[place]) < 2.5 * fit.covariance[place, place] ** 0.5


def test_variance_inflation_of_single_columns_is_the_usual_one():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    design = np.column_stack([np.ones(500), x])
    terms = {"Intercept": slice(0, 1), **{f"x{i}": slice(i, i + 1) for i in (1, 2, 3)}}
    found = variance_inflation(design, terms)
    usual = {f"x{i}": variance_inflation_factor(design, i) ** 0.5 for i in (1, 2, 3)}
    assert found == pytest.approx(usual)
