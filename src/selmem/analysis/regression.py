"""Is it the class of word, or its rarity and its tokens? Omission in a regression."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from selmem.analysis.marginal_effects import marginal_effects
from selmem.analysis.measurements import Measurement
from selmem.analysis.omission import is_late
from selmem.analysis.regression_model import MODELS, Fit, fit_model, given, variance_inflation
from selmem.forked import forked_map
from selmem.statistics import MIN_DOCUMENTS_TEST

logger = logging.getLogger(__name__)

OPEN_CLASSES = ("NOUN", "VERB", "ADJ", "ADV", "NUM")
MAX_WORDS = 100_000  # whole documents are drawn beyond it
MIN_TAG_WORDS = 30


@dataclass(frozen=True)
class RegressionTables:
    """Average marginal effects of tags, coefficients with variance inflation, common support."""

    effects: pd.DataFrame
    coefficients: pd.DataFrame
    support: pd.DataFrame


def regression_tables(
    measurement: Measurement, *, seed: int = 0, workers: int = 1
) -> RegressionTables:
    """Return what class of word explains of aligned omission, beyond rarity, tokens and place.

    Models: `independent tokens` (tag and the offset), `tokens` (and log tokens per word beyond the
    offset: a coefficient of 0 says that tokens are lost independently), `covariates` (and log10
    word frequency as a natural spline, relative position, the last four positions, length and
    source), `covariates and null bits`; each for all words and for open classes alone. Cut words,
    and where counts were given words without one, are left out. The tables are empty where fewer
    than 30 documents hold words.
    """
    subsets = [
        (subset, words, str(words["tag"].value_counts().index[0]))
        for subset, words in _subsets(measurement, seed)
    ]
    support = [
        _support(words, reference).assign(words=subset) for subset, words, reference in subsets
    ]

    def fitted(task: tuple[str, pd.DataFrame, str, str]) -> tuple[pd.DataFrame, ...] | None:
        subset, words, reference, model = task
        fit = fit_model(words, reference, model)
        if fit is None:
            return None
        labels = {"words": subset, "model": model, "given": ", ".join(given(fit))}
        tables = marginal_effects(fit, words, reference), _coefficients(fit)
        return tuple(table.assign(**labels) for table in tables)

    tasks = [(*subset, model) for subset in subsets for model in MODELS]
    found = [tables for tables in forked_map(fitted, tasks, workers) if tables is not None]
    effects, coefficients = ([tables[i] for tables in found] for i in (0, 1))
    return RegressionTables(*(_joined(t, measurement) for t in (effects, coefficients, support)))


def _subsets(measurement: Measurement, seed: int) -> Iterator[tuple[str, pd.DataFrame]]:
    words = measurement.words
    frame = words[~words["cut"] & words["pos"].notna() & words["omitted_aligned"].notna()].copy()
    if (known := frame["log10_word_frequency"].notna()).any():
        frame = frame[known].copy()
    frame["tag"] = frame["pos"].astype(str)
    frame["late"] = is_late(frame).astype(float)
    frame["place"] = frame["first_position"] / (frame["last_position"] + frame["from_end"])
    frame["null_per_token"] = frame["null_bits"] / frame["n_tokens"]
    for name, part in (
        ("all classes", frame),
        ("open classes", frame[frame["tag"].isin(OPEN_CLASSES)]),
    ):
        usable = _usable_tags(_sampled(part, seed))
        if usable["document"].nunique() >= MIN_DOCUMENTS_TEST and usable["tag"].nunique() > 1:
            yield name, _observed(usable)


def _observed(words: pd.DataFrame) -> pd.DataFrame:
    """Return the words without categories that none of them has; each would be a column of 0."""
    own = {
        str(name): column.cat.remove_unused_categories()
        for name, column in words.select_dtypes("category").items()
    }
    return words.assign(**own).reset_index(drop=True)


def _sampled(words: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the words of randomly drawn documents, about `MAX_WORDS` at most."""
    if len(words) <= MAX_WORDS:
        return words
    documents = np.random.default_rng(seed).permutation(words["document"].unique())
    sizes = words["document"].value_counts().reindex(documents).cumsum()
    kept = sizes.index[sizes <= MAX_WORDS]
    logger.info("regression on %d of %d documents", len(kept), len(documents))
    return words[words["document"].isin(kept)]


def _usable_tags(words: pd.DataFrame) -> pd.DataFrame:
    """Return the words of tags that are frequent enough and neither always nor never omitted."""
    by_tag = words.groupby("tag")["omitted_aligned"].agg(["size", "mean"])
    usable = by_tag[(by_tag["size"] >= MIN_TAG_WORDS) & by_tag["mean"].between(0, 1, "neither")]
    return words[words["tag"].isin(usable.index)]


def _coefficients(fit: Fit) -> pd.DataFrame:
    se = np.sqrt(np.diag(fit.covariance))
    half = stats.norm.ppf(0.975) * se
    inflation = variance_inflation(fit.design, fit.terms)
    term_of = {i: t for t, part in fit.terms.items() for i in range(part.start, part.stop)}
    return pd.DataFrame(
        {
            "term": fit.names,
            "coefficient": fit.coefficients,
            "se": se,
            "ci_low": fit.coefficients - half,
            "ci_high": fit.coefficients + half,
            "inflation": [inflation.get(term_of[i], np.nan) for i in range(len(fit.names))],
        }
    )


def _support(words: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return for each tag how many of its words are as frequent and as long as the reference's."""
    base = words[words["tag"] == reference]
    rows = []
    for tag, part in words.groupby("tag"):
        low, high = base["log10_word_frequency"].quantile([0.05, 0.95])
        frequency = part["log10_word_frequency"]
        rows.append(
            {
                "tag": str(tag),
                "reference": reference,
                "n_words": len(part),
                "mean_log10_word_frequency": frequency.mean(),
                "tokens_per_word": part["n_tokens"].mean(),
                "share_in_frequency_range": frequency.between(low, high).mean()
                if frequency.notna().all()
                else np.nan,
                "share_in_token_range": part["n_tokens"].isin(base["n_tokens"].unique()).mean(),
            }
        )
    return pd.DataFrame(rows)


def _joined(tables: list[pd.DataFrame], measurement: Measurement) -> pd.DataFrame:
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)
