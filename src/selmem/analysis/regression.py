"""Is it the class of word, or its rarity and its tokens? Omission in a regression.

A word of n tokens is omitted if any of them is: if each is lost at the same rate and by itself, the
complementary log-log of the word's probability is log(n) plus that of a token's, so log(n) enters
as an offset. Greedy decoding loses tokens together, and the offset then blames the classes of short
words; all models but the first therefore also estimate how far log(n) departs from the offset.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import patsy
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from selmem.analysis.measurements import Measurement
from selmem.analysis.omission import is_late
from selmem.forked import forked_map
from selmem.resampling import Floats
from selmem.statistics import MIN_DOCUMENTS_TEST

logger = logging.getLogger(__name__)

OPEN_CLASSES = ("NOUN", "VERB", "ADJ", "ADV", "NUM")
MAX_WORDS = 100_000  # whole documents are drawn beyond it
MIN_TAG_WORDS = 30
MODELS = ("independent tokens", "tokens", "covariates", "covariates and null bits")

_LINK = sm.families.links.CLogLog()


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        names: of the columns.
        terms: {term: slice of its columns}.
        design: (words, columns).
        offset: (words,) log tokens per word.
        coefficients: (columns,).
        covariance: (columns, columns), clustered by document and by word type.
    """

    names: tuple[str, ...]
    terms: Mapping[str, slice]
    design: Floats
    offset: Floats
    coefficients: Floats
    covariance: Floats


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

    Source: Cameron, Gelbach and Miller 2011 (two-way clustering); Fox and Monette 1992 (GVIF).
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
        labels = {"words": subset, "model": model, "given": ", ".join(_given(fit))}
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


def fit_model(words: pd.DataFrame, reference: str, model: str) -> Fit | None:
    """Return the fitted model, or None where it cannot be estimated.

    Args:
        words: with tag, omitted_aligned, n_tokens and the covariates.
        reference: tag that the others are compared with.
        model: one of `MODELS`.
    """
    formula = _formula(words, reference, model)
    if formula is None:
        return None
    offset = np.log(words["n_tokens"].to_numpy(dtype=float))
    matrix = patsy.dmatrix(formula, words.assign(log_tokens=offset), NA_action="raise")
    design = np.asarray(matrix, dtype=float)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        logger.warning("regression %s left out: its covariates determine each other", model)
        return None
    groups = np.stack([words["document"].to_numpy(), pd.factorize(words["word"])[0]], axis=1)
    result = sm.GLM(
        words["omitted_aligned"].to_numpy(dtype=float),
        design,
        family=sm.families.Binomial(_LINK),
        offset=offset,
    ).fit(cov_type="cluster", cov_kwds={"groups": groups})
    if not result.converged:
        logger.warning("regression %s left out: it did not converge", model)
        return None
    return Fit(
        names=tuple(matrix.design_info.column_names),
        terms=dict(matrix.design_info.term_name_slices),
        design=design,
        offset=offset,
        coefficients=np.asarray(result.params),
        covariance=_nearest_covariance(np.asarray(result.cov_params())),
    )


def _formula(words: pd.DataFrame, reference: str, model: str) -> str | None:
    """Return the right-hand side; covariates that are unknown or constant are left out."""
    terms = [f"C(tag, Treatment({reference!r}))"]
    if model != MODELS[0] and words["n_tokens"].nunique() > 1:
        terms.append("log_tokens")
    if model in MODELS[2:]:
        if words["log10_word_frequency"].notna().all():
            terms.append("cr(log10_word_frequency, df=3, constraints='center')")
        terms += [name for name in ("place", "late") if words[name].nunique() > 1]
        terms += [f"C({name})" for name in ("length", "source") if words[name].nunique() > 1]
    if model == MODELS[3]:
        if not np.isfinite(words["null_per_token"]).all():
            return None
        terms.append("null_per_token")
    return " + ".join(terms)


def _given(fit: Fit) -> list[str]:
    """Return what the model holds fixed, in the order in which it was added."""
    names = {
        "log_tokens": "tokens",
        "cr(log10_word_frequency": "rarity",
        "place": "place",
        "late": "place",
        "C(length)": "length",
        "C(source)": "source",
        "null_per_token": "null bits",
    }
    found = [name for start, name in names.items() if any(t.startswith(start) for t in fit.terms)]
    return list(dict.fromkeys(["tokens", *found]))


def _nearest_covariance(covariance: Floats) -> Floats:
    """Return the matrix without negative eigenvalues, which two-way clustering can produce."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)


def marginal_effects(fit: Fit, words: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return for each tag the mean change of omission, had every word this tag and not `reference`.

    Intervals by the delta method; `raw_difference` is that of the plain rates.
    """
    tags = sorted(set(words["tag"]) - {reference})
    rates = words.groupby("tag")["omitted_aligned"].mean()
    base, base_gradient = _mean_under(fit, None)
    rows = []
    for tag in tags:
        mean, gradient = _mean_under(fit, tag)
        change = gradient - base_gradient
        se = float(np.sqrt(change @ fit.covariance @ change))
        half = stats.norm.ppf(0.975) * se
        effect = mean - base
        rows.append(
            {
                "tag": tag,
                "reference": reference,
                "raw_difference": rates[tag] - rates[reference],
                "effect": effect,
                "ci_low": effect - half,
                "ci_high": effect + half,
                "p_value": float(2 * stats.norm.sf(abs(effect) / se)) if se > 0 else np.nan,
                "n_words": int((words["tag"] == tag).sum()),
                "n_documents": int(words.loc[words["tag"] == tag, "document"].nunique()),
            }
        )
    return pd.DataFrame(rows)


def _mean_under(fit: Fit, tag: str | None) -> tuple[float, Floats]:
    """Return the mean omission with every word's tag set to `tag`, and its gradient."""
    design = fit.design.copy()
    columns = next(part for term, part in fit.terms.items() if term.startswith("C(tag"))
    design[:, columns] = 0
    if tag is not None:
        design[:, next(i for i, name in enumerate(fit.names) if name.endswith(f"[T.{tag}]"))] = 1
    linear = design @ fit.coefficients + fit.offset
    slope = _LINK.inverse_deriv(linear)
    return float(_LINK.inverse(linear).mean()), slope @ design / len(design)


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


def variance_inflation(design: Floats, terms: Mapping[str, slice]) -> dict[str, float]:
    """Return GVIF^(1 / (2 df)) of each term but the intercept: by what its standard errors grow."""
    columns = np.flatnonzero(np.ptp(design, axis=0) > 0)

    def log_determinant(selected: NDArray[np.int64]) -> float:
        if len(selected) < 2:
            return 0.0
        return float(np.linalg.slogdet(np.corrcoef(design[:, selected].T))[1])

    found = {}
    for term, part in terms.items():
        own = np.intersect1d(columns, np.arange(part.start, part.stop))
        if len(own):
            rest = np.setdiff1d(columns, own)
            log_gvif = log_determinant(own) + log_determinant(rest) - log_determinant(columns)
            found[term] = float(np.exp(log_gvif / (2 * len(own))))
    return found


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
