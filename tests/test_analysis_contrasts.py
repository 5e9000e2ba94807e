from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from selmem.analysis.contrasts import model_contrast_table, tag_contrast_table
from selmem.analysis.correlations import Points, correlation_interval, correlations
from selmem.analysis.frequency import correlation_table
from selmem.analysis.pairs import pair_table
from selmem.errors import InputError
from selmem.resampling import Resampling
from synthetic_tables import loaded

FEW = Resampling(n_resamples=400, seed=1)


def test_a_planted_tag_effect_is_found_and_others_are_compared_with_the_rest():
    m = loaded(n_documents=40)
    table = tag_contrast_table(m, FEW)
    row = table[
        (table["length"] == 16) & (table["tag"] == "NUM") & (table["outcome"] == "omission_aligned")
    ].iloc[0]
    words = m.words[(m.words["length"] == 16) & ~m.words["cut"]]
    rate = words.groupby(words["pos"] == "NUM")["omitted_aligned"].mean()
    assert row["difference"] == pytest.approx(rate[True] - rate[False])
    assert row["odds_ratio"] == pytest.approx(
        rate[True] / (1 - rate[True]) / (rate[False] / (1 - rate[False]))
    )
    assert row["ci_low"] > 0
    assert row["p_value"] <= row["p_holm"] < 0.05
    recovered = table[
        (table["length"] == 16)
        & (table["tag"] == "NUM")
        & (table["outcome"] == "recovered_fraction")
    ].iloc[0]
    assert recovered["ci_low"] > 0, "a loss is positive whatever its outcome"


def test_tags_of_few_documents_are_not_tested():
    table = tag_contrast_table(loaded(n_documents=12), FEW)
    assert table["p_value"].isna().all()
    assert table["ci_low"].notna().any()


def test_models_are_compared_on_the_chunks_they_share():
    small = loaded(n_documents=35, lengths=(16,))
    large = loaded(n_documents=35, lengths=(16,), encoder="tiny-370m", intercept=-2.5)
    table = model_contrast_table([small, large], FEW).set_index("outcome")
    assert (table["ci_low"] > 0).all()
    expected = small.chunks["rouge1_f1"].mean() - large.chunks["rouge1_f1"].mean()
    assert table.loc["rouge1_f1", "difference"] == pytest.approx(-expected)
    itself = model_contrast_table([small, replace(small, probe="again")], FEW)
    assert itself["difference"].abs().max() == 0


def test_models_without_a_common_chunk_are_refused():
    one = loaded(n_documents=5, lengths=(16,))
    other = loaded(n_documents=5, lengths=(16,), sources=("code",))
    with pytest.raises(InputError, match="no chunk in common"):
        model_contrast_table([one, other], FEW)


def points_of(values, document, n_documents, covariates=()):
    def draw(weights):
        return np.repeat(values, weights[document].astype(int), axis=0)

    return Points("x", "chunk", ("y",), covariates, draw, np.zeros(n_documents, int))


def test_rank_correlations_agree_with_scipy_and_the_partial_removes_a_common_cause():
    rng = np.random.default_rng(0)
    document = np.repeat(np.arange(40), 10)
    cause = rng.normal(size=400)
    values = np.stack([cause + rng.normal(size=400), cause + rng.normal(size=400), cause], axis=1)
    raw, partial = correlations(points_of(values, document, 40, ("cause",)), FEW)
    assert raw.correlation == pytest.approx(stats.spearmanr(values[:, 0], values[:, 1]).statistic)
    assert raw.ci_low > 0.3
    residuals = [
        r - np.polyval(np.polyfit(c, r, 1), c)
        for r, c in ((stats.rankdata(values[:, i]), stats.rankdata(cause)) for i in (0, 1))
    ]
    assert partial.correlation == pytest.approx(stats.pearsonr(*residuals).statistic, abs=1e-6)
    assert partial.ci_low < 0 < partial.ci_high
    assert (partial.adjusted_for, raw.adjusted_for) == ("cause", "")


def test_correlation_intervals_are_wider_when_points_come_in_documents():
    rng = np.random.default_rng(1)
    document = np.repeat(np.arange(40), 10)
    shared = rng.normal(size=(40, 2))[document]
    clustered = shared + 0.1 * rng.normal(size=(400, 2))
    free = rng.normal(size=(400, 2))
    wide, narrow = (
        next(iter(correlations(points_of(v, document, 40), FEW))).se_z for v in (clustered, free)
    )
    assert wide > 2 * narrow


def test_correlation_interval_is_fishers():
    low, high, p = correlation_interval(0.5, 0.1, 50)
    half = stats.norm.ppf(0.975) * 0.1
    assert (low, high) == pytest.approx(
        (np.tanh(np.arctanh(0.5) - half), np.tanh(np.arctanh(0.5) + half))
    )
    assert p < 1e-4
    assert np.isnan(correlation_interval(0.5, 0.1, 9)[0])
    assert np.isnan(correlation_interval(0.5, 0.1, 20)[2])


def test_rarity_planted_in_the_errors_is_found_per_word_type():
    m = loaded(n_documents=60, lengths=(64,), rarity=1.0, effect=(), sources=("news",))
    table = correlation_table(m, FEW)
    row = table[
        (table["level"] == "word type")
        & (table["outcome"] == "omission_aligned")
        & (table["adjusted_for"] != "")
    ].iloc[0]
    assert row["ci_high"] < -0.2
    assert set(table["level"]) == {"chunk", "word type", "pos"}


def test_without_frequencies_only_perplexity_is_correlated():
    table = correlation_table(loaded(n_documents=12, frequencies=False), FEW)
    assert set(table["predictor"]) == {"encoder perplexity"}


def as_pairs(sources, effects, **changes):
    return loaded(
        sources=sources,
        n_documents=40,
        lengths=(16,),
        source_effect=tuple(zip(sources, effects, strict=True)),
        **changes,
    )


def test_pairs_are_matched_by_document_and_a_planted_dialect_gap_is_found():
    table = pair_table(as_pairs(("aave", "sae"), (0.8, 0.0)), FEW).set_index("outcome")
    assert table.index[0] == "recovered_fraction"
    assert table.loc["recovered_fraction", "ci_low"] > 0
    assert table.loc["omission_count", "loss_difference"] > 0
    assert set(table["n_pairs"]) == {40}
    assert (table["first"] + table["second"]).unique().tolist() == ["AAESAE"]


def test_pairs_of_unlike_length_are_left_out_and_length_is_adjusted_for():
    m = as_pairs(("aave", "sae"), (0.5, 0.0))
    rng = np.random.default_rng(0)
    whole = m.chunks[m.chunks["number"] == 0].copy()
    whole["length"] = 0
    whole["n_tokens"] = rng.integers(10, 20, len(whole))
    table = pair_table(replace(m, chunks=whole, words=m.words.iloc[:0]), FEW)
    row = table[table["outcome"] == "recovered_fraction"].iloc[0]
    tokens = whole.pivot(index="doc_id", columns="source", values="n_tokens")
    similar = (tokens["aave"] / tokens["sae"]).between(0.8, 1.25)
    assert row["n_pairs"] == similar.sum()
    assert row["n_pairs_left_out"] == (~similar).sum()
    assert row["adjusted_low"] < row["adjusted_difference"] < row["adjusted_high"]


def test_varieties_may_stand_in_document_names_and_concatenated_texts_keep_the_papers_rule():
    m = as_pairs(("spelling",), (0.0,))
    half = m.chunks["document"] < 20
    names = m.chunks["doc_id"].astype(int) % 20
    chunks = m.chunks.assign(
        doc_id=[
            f"spelling-{n:03}-{'british' if h else 'american'}"
            for n, h in zip(names, half, strict=True)
        ]
    )
    table = pair_table(replace(m, chunks=chunks), FEW)
    assert set(table["n_pairs"]) == {20}
    assert set(table["first"]) == {"British"}
    joined = as_pairs(("aave_concatenated", "sae_concatenated"), (0.0, 0.0))
    assert set(pair_table(joined, FEW)["outcome"]) == {"omission_count", "rouge1_f1"}


def test_sources_without_varieties_have_no_pairs():
    assert isinstance(pair_table(loaded(n_documents=5), FEW), pd.DataFrame)
    assert len(pair_table(loaded(n_documents=5), FEW)) == 0
