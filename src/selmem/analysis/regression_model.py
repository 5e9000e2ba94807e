"""A binomial regression of omission on class, tokens, rarity and place.

A word of n tokens is omitted if any of them is: if each is lost at the same rate and by itself, the
complementary log-log of the word's probability is log(n) plus that of a token's, so log(n) enters
as an offset. Greedy decoding loses tokens together, and the offset then blames the classes of short
words; all models but the first therefore also estimate how far log(n) departs from the offset.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import patsy
import statsmodels.api as sm
from numpy.typing import NDArray

from selmem.resampling import Floats

logger = logging.getLogger(__name__)

MODELS = ("independent tokens", "tokens", "covariates", "covariates and null bits")
LINK = sm.families.links.CLogLog()


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


def fit_model(words: pd.DataFrame, reference: str, model: str) -> Fit | None:
    """Return the fitted model, or None where it cannot be estimated.

    Args:
        words: with tag, omitted_aligned, n_tokens and the covariates.
        reference: tag that the others are compared with.
        model: one of `MODELS`.

    Source: Cameron, Gelbach and Miller 2011 (two-way clustering).
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
        family=sm.families.Binomial(LINK),
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


def _nearest_covariance(covariance: Floats) -> Floats:
    """Return the matrix without negative eigenvalues, which two-way clustering can produce."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)


def given(fit: Fit) -> list[str]:
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


def variance_inflation(design: Floats, terms: Mapping[str, slice]) -> dict[str, float]:
    """Return GVIF^(1 / (2 df)) of each term but the intercept: by what its standard errors grow.

    Source: Fox and Monette 1992.
    """
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
