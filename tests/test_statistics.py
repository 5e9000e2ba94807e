import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from selmem.resampling import Resampling, collapsed, resample_weights
from selmem.statistics import bootstrap, combine, difference, holm, odds_ratio

FEW = Resampling(n_resamples=400, seed=3)


def clustered(rng, n_documents, n_cells=1, rate=0.4):
    words = rng.integers(20, 400, (n_documents, n_cells))
    p = rng.beta(4 * rate, 4 * (1 - rate), words.shape)
    return rng.binomial(words, p), words


def jackknife_se(errors, words):
    n = len(errors)
    left_out = (errors.sum() - errors) / (words.sum() - words)
    return np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


def test_rate_is_the_ratio_of_sums_and_its_error_agrees_with_the_jackknife():
    errors, words = clustered(np.random.default_rng(0), 200)
    result = bootstrap(errors, words, FEW)
    assert result.value[0] == pytest.approx(errors.sum() / words.sum())
    assert result.se[0] == pytest.approx(jackknife_se(errors[:, 0], words[:, 0]), rel=0.02)
    assert result.replicates[:, 0].std() == pytest.approx(result.se[0], rel=0.1)


def test_standard_error_in_each_resample_is_that_of_the_drawn_documents():
    errors, words = clustered(np.random.default_rng(1), 25)
    result = bootstrap(errors, words, FEW)
    _, weights = next(resample_weights(np.zeros(25), FEW))
    drawn = np.repeat(np.arange(25), weights[7].astype(int))
    again = bootstrap(errors[drawn], words[drawn], FEW)
    expected = (again.value - result.value) / again.se
    np.testing.assert_allclose(result.pivots[7], expected, rtol=1e-9)


def test_standard_error_of_a_difference_uses_the_covariance_within_documents():
    rng = np.random.default_rng(2)
    errors, words = clustered(rng, 150)
    same = difference((errors, words), (errors, words), FEW)
    assert same.value[0] == 0
    assert same.se[0] == pytest.approx(0, abs=1e-9)
    shifted = difference((errors + 0.1 * words, words), (errors, words), FEW)
    assert shifted.value[0] == pytest.approx(0.1)
    assert shifted.se[0] < 1e-6 < bootstrap(errors, words, FEW).se[0]


def test_strata_are_drawn_separately_and_their_variances_add():
    rng = np.random.default_rng(3)
    a, b = clustered(rng, 60, rate=0.2), clustered(rng, 40, rate=0.8)
    labels = np.repeat(["a", "b"], [60, 40])
    for _, weights in resample_weights(labels, FEW):
        assert (weights[:, :60].sum(axis=1) == 60).all()
        assert (weights[:, 60:].sum(axis=1) == 40).all()
    top = np.zeros((100, 1, 2))
    bottom = np.zeros((100, 1, 2))
    top[:60, :, 0], bottom[:60, :, 0] = a
    top[60:, :, 1], bottom[60:, :, 1] = b
    both = bootstrap(top, bottom, FEW, coefficients=(1, -1), strata=labels)
    apart = [bootstrap(*part, FEW).se[0] ** 2 for part in (a, b)]
    assert both.se[0] ** 2 == pytest.approx(sum(apart))
    assert both.n_documents[0] == 40


def test_sources_of_one_document_are_put_together_so_that_they_vary():
    errors, words = clustered(np.random.default_rng(14), 12)
    apart = bootstrap(errors, words, FEW, strata=np.arange(12))
    assert apart.se[0] == bootstrap(errors, words, FEW).se[0] > 0
    assert apart.replicates[:, 0].std() > 0.5 * apart.se[0]
    assert collapsed(np.array(["a", "b", "b", "c", "c", "c"])).tolist() == [1, 1, 1, 2, 2, 2]
    assert collapsed(np.array(["a", "b", "c", "c"])).tolist() == [0, 0, 2, 2]
    assert collapsed(np.array(["a"])).tolist() == [0]


def test_intervals_need_ten_documents_and_tests_need_thirty():
    rng = np.random.default_rng(4)
    for n_documents, has_interval, has_test in ((9, 0, 0), (10, 1, 0), (29, 1, 0), (30, 1, 1)):
        result = bootstrap(*clustered(rng, n_documents), FEW)
        assert np.isfinite(result.interval()[0][0]) == has_interval
        assert np.isfinite(result.percentile()[0][0]) == has_interval
        assert np.isfinite(result.p_value()[0]) == has_test


def test_only_documents_with_words_of_the_group_count():
    errors, words = clustered(np.random.default_rng(5), 100)
    words[8:] = errors[8:] = 0
    result = bootstrap(errors, words, FEW)
    assert result.n_documents[0] == 8
    assert np.isnan(result.rate_interval()[0][0])


def test_an_event_never_seen_gets_an_upper_bound_from_the_number_of_documents():
    words = np.full((50, 1), 100)
    low, high = bootstrap(np.zeros_like(words), words, FEW).rate_interval()
    assert low[0] == 0
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 50))
    low, high = bootstrap(words, words, FEW).rate_interval()
    assert (high[0], low[0]) == (1, pytest.approx(0.025 ** (1 / 50)))


def test_a_very_rare_event_gets_an_interval_that_holds_its_rate():
    words = np.full((50, 1), 100)
    errors = np.zeros_like(words)
    errors[:2] = 1
    low, high = bootstrap(errors, words, FEW).rate_interval()
    assert 0 < low[0] < 2 / 5000 < high[0] < 0.01


def test_the_interval_of_a_positive_sum_stays_above_zero_and_usually_holds_the_truth():
    rng = np.random.default_rng(10)
    null = rng.lognormal(5, 0.6, (60, 200))
    lost = 0.01 * null * rng.lognormal(-0.5, 1, null.shape)
    low, high = bootstrap(lost, null, FEW).positive_interval()
    assert (low > 0).all()
    assert ((low < 0.01) & (high > 0.01)).mean() > 0.88
    assert np.isnan(bootstrap(0 * lost, null, FEW).positive_interval()[0]).all()


def one_word_each(n_documents, n_omitted):
    """Return errors and words of a class that stands once in each of its documents."""
    return np.repeat([1.0, 0.0], [n_omitted, n_documents - n_omitted]), np.ones(n_documents)


def side_by_side(first, second):
    """Return two classes as (errors, words) over documents that hold one of them each."""
    gap = [(np.zeros(len(part[0])), part) for part in (second, first)]
    one = [np.concatenate([part, gap[0][0]])[:, None] for part in first]
    two = [np.concatenate([gap[1][0], part])[:, None] for part in second]
    return difference(one, two, FEW)


def test_a_class_never_omitted_is_not_thereby_better_than_one_that_rarely_is():
    result = side_by_side(one_word_each(56, 0), one_word_each(900, 18))
    low, high = result.interval(of_rates=True)
    assert low[0] < 0 < high[0] < 0.08
    assert result.p_value(of_rates=True)[0] > 0.3
    assert result.interval()[1][0] < 0, "the studentised interval alone is wrong here"


def test_the_difference_of_rare_rates_has_newcombes_limits():
    result = side_by_side(one_word_each(40, 0), one_word_each(90, 27))
    low, high = result.interval(of_rates=True)
    upper = proportion_confint(0, 40, method="beta")[1]
    trials = 90 * 129 / 130  # the variance has one degree of freedom less than documents
    ends = proportion_confint(0.3 * trials, trials, method="beta")
    assert low[0] == pytest.approx(-0.3 - (ends[1] - 0.3))
    assert high[0] == pytest.approx(-0.3 + np.hypot(upper, 0.3 - ends[0]))
    p = result.p_value(of_rates=True)[0]
    for level, excluded in ((1 - 1.01 * p, True), (1 - 0.99 * p, False)):
        assert (result.interval(level, of_rates=True)[1][0] < 0) == excluded


def test_a_weighted_mean_of_differences_keeps_the_limits_of_its_rare_rates():
    parts = [side_by_side(one_word_each(40, 0), one_word_each(90, 27)) for _ in range(2)]
    low, high = parts[0].interval(of_rates=True)
    reversed_low, reversed_high = combine(parts[:1], [-1]).interval(of_rates=True)
    assert (reversed_low, reversed_high) == (pytest.approx(-high), pytest.approx(-low))
    mean_low, mean_high = combine(parts, [0.5, 0.5]).interval(of_rates=True)
    assert mean_high - mean_low == pytest.approx((high - low) / 2**0.5)


def test_one_document_that_makes_all_of_the_variance_does_not_blow_up_the_interval():
    values = np.full((132, 1), 0.001) * np.random.default_rng(11).uniform(0.9, 1.1, (132, 1))
    values[7] = 16.0
    result = bootstrap(values, np.ones_like(values), FEW)
    low, high = result.interval()
    assert result.n_effective[0] == pytest.approx(1, abs=0.05)
    assert high[0] - low[0] == pytest.approx(2 * t.ppf(0.975, 1) * result.se[0])
    low, high = result.positive_interval()
    assert 0 < low[0] < 16 / 132 < high[0] < 100 * 16 / 132


def test_documents_that_carry_the_variance_are_counted():
    errors, words = clustered(np.random.default_rng(12), 300)
    assert bootstrap(errors, words, FEW).n_effective[0] > 60
    rng = np.random.default_rng(13)
    normal = bootstrap(rng.normal(size=(3000, 1)), np.ones((3000, 1)), FEW)
    assert normal.n_effective[0] == pytest.approx(1000, rel=0.1)
    pair = combine([normal, normal], [0.5, 0.5])
    assert pair.n_effective[0] == pytest.approx(2 * normal.n_effective[0])


def test_p_value_and_interval_agree_about_zero():
    rng = np.random.default_rng(6)
    a = clustered(rng, 60, 40)
    b = clustered(rng, 60, 40, rate=0.5)
    result = difference(a, b, Resampling(n_resamples=1999))
    low, high = result.interval()
    outside = (low > 0) | (high < 0)
    p = result.p_value()
    clear = np.abs(p - 0.05) > 0.002
    assert ((p < 0.05) == outside)[clear].all()
    assert 0 < outside.sum() < 40


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    data = clustered(np.random.default_rng(7), 40)
    first = bootstrap(*data, FEW).interval()[0]
    assert first == bootstrap(*data, FEW).interval()[0]
    assert first != bootstrap(*data, Resampling(n_resamples=400, seed=4)).interval()[0]


def test_holm_levels_exclude_zero_exactly_for_the_rejected():
    p = np.array([0.04, 0.001, 0.03, np.nan, 0.012])
    adjusted, levels = holm(p)
    np.testing.assert_allclose(adjusted[[0, 1, 2, 4]], [0.06, 0.004, 0.06, 0.036])
    np.testing.assert_allclose(levels, [0.975, 0.9875, 0.975, 0.95, 1 - 0.05 / 3])
    assert np.isnan(adjusted[3])
    rejected = p[[0, 1, 2, 4]] <= 1 - levels[[0, 1, 2, 4]]
    np.testing.assert_array_equal(rejected, adjusted[[0, 1, 2, 4]] <= 0.05)
    np.testing.assert_allclose(holm([np.nan])[1], 0.95)


def test_holm_agrees_with_statsmodels():
    p = np.random.default_rng(0).uniform(0, 0.1, 50) ** 2
    np.testing.assert_allclose(holm(p)[0], multipletests(p, method="holm")[1])


def test_odds_ratio_of_known_rates():
    assert odds_ratio(0.5, 0.2) == pytest.approx(4)
    assert np.isinf(odds_ratio(1.0, 0.2))


def test_wrong_shapes_and_settings_are_named():
    with pytest.raises(ValueError, match=r"numerators are \(3, 2\) but denominators \(3, 1\)"):
        bootstrap(np.ones((3, 2)), np.ones((3, 1)), FEW)
    with pytest.raises(ValueError, match="for 2 coefficients"):
        bootstrap(np.ones((3, 2)), np.ones((3, 2)), FEW, coefficients=(1, -1))
    with pytest.raises(ValueError, match="n_resamples is 0"):
        Resampling(n_resamples=0)
    with pytest.raises(ValueError, match="level is 95"):
        Resampling(level=95)


def test_coverage_script_finds_the_studentised_interval_near_95_and_the_token_test_far_below():
    path = Path(__file__).parents[1] / "scripts" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_script", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = script.coverage(200, 400, document_counts=(30,))
    held = {(row["quantity"], row["method"]): float(row["coverage"]) for row in rows}
    for quantity in ("rate", "difference"):
        assert held[quantity, "studentised"] > 0.89
        assert held[quantity, "token_t_test"] < 0.6
        assert held[quantity, "percentile"] < held[quantity, "studentised"] + 0.02


def test_a_thousand_documents_and_two_hundred_groups_resample_in_seconds():
    data = clustered(np.random.default_rng(9), 1000, 200)
    start = time.process_time()
    bootstrap(*data, Resampling()).rate_interval()
    assert time.process_time() - start < 15
