"""Rarity and perplexity against what is lost, as rank correlations."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from selmem.analysis.correlations import Points, Row, correlations
from selmem.analysis.curves import chunk_omission
from selmem.analysis.groups import Group, document_sums, each_group
from selmem.analysis.measurements import Measurement
from selmem.forked import forked_map
from selmem.resampling import Floats, Resampling
from selmem.statistics import MIN_DOCUMENTS_INTERVAL

Makers = tuple[Callable[[pd.DataFrame], Points], ...]

N_RESAMPLES = 200  # enough for a standard deviation, which is all that is taken from them
MIN_TYPE_WORDS = 2  # occurrences of a word type, so that its rate is not a coin toss
FREQUENCY, PERPLEXITY = "log10 word frequency", "encoder perplexity"

# numerator and denominator of each outcome of a group of words
_OUTCOMES = {
    "omission_count": ("omitted_count", "one"),
    "omission_aligned": ("omitted_aligned", "one"),
    "recovered_bits": ("recovered_bits", "one"),
    "recovered_fraction": ("recovered_bits", "null_bits"),
}


def correlation_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return Spearman correlations of perplexity and of word frequency with what is lost.

    Perplexity: over chunks. Frequency (log10): over word types with at least two occurrences, and
    over the means of the part-of-speech classes; raw, and as partial rank correlations that hold
    tokens (for types, also characters) per word fixed. Cut words are left out.
    """
    few = Resampling(n_resamples=N_RESAMPLES, seed=resampling.seed, level=resampling.level)
    words = measurement.words[~measurement.words["cut"]].assign(one=1.0)
    words = words[words["log10_word_frequency"].notna()]
    chunks = chunk_omission(measurement)
    tasks: list[tuple[Group, Makers]] = [(g, (chunk_points,)) for g in each_group(chunks)]
    tasks += [(group, (type_points, pos_points)) for group in each_group(words)]

    def one(task: tuple[Group, Makers]) -> list[Any]:
        (source, length, rows), points = task
        return [(source, length, *row) for of in points for row in correlations(of(rows), few)]

    found = forked_map(one, tasks, resampling.workers)
    rows = [row for part in found for row in part]
    table = pd.DataFrame(rows, columns=["source", "length", *Row._fields])
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)


def chunk_points(chunks: pd.DataFrame) -> Points:
    """Return chunks as points: the encoder's perplexity against what is lost.

    Args:
        chunks: as `chunk_omission` returns them.
    """
    chunks = chunks[chunks["n_words"] > 0]
    document, strata = _documents(chunks)
    values = np.stack(
        [
            chunks["encoder_perplexity"],
            chunks["count"] / chunks["n_words"],
            chunks["aligned"] / chunks["n_words"],
            chunks["recovered_bits"] / chunks["null_bits"],
        ],
        axis=1,
    )

    def draw(weights: Floats) -> Floats:
        return np.repeat(values, weights[document].astype(int), axis=0)

    outcomes = ("omission_count", "omission_aligned", "recovered_fraction")
    return Points(PERPLEXITY, "chunk", outcomes, (), draw, strata)


def type_points(words: pd.DataFrame) -> Points:
    """Return word types (surfaces) as points: log10 frequency against what is lost of them."""
    codes, surfaces = pd.factorize(words["word"].astype(str))
    n_words = np.bincount(codes, minlength=len(surfaces))

    def mean(column: str) -> Floats:
        total = np.bincount(codes, words[column].to_numpy(dtype=float), len(surfaces))
        return np.asarray(total / n_words)

    characters = np.array([len(surface) for surface in surfaces], dtype=float)
    return points_of_types(
        words,
        codes,
        level="word type",
        predictor=(FREQUENCY, mean("log10_word_frequency")),
        outcomes=_OUTCOMES,
        covariates={"tokens per word": mean("n_tokens"), "characters per word": characters},
    )


def points_of_types(
    rows: pd.DataFrame,
    codes: NDArray[np.int64],
    *,
    level: str,
    predictor: tuple[str, Floats],
    outcomes: Mapping[str, tuple[str, str]],
    covariates: Mapping[str, Floats],
) -> Points:
    """Return types with at least two occurrences as points.

    Args:
        rows: the occurrences (R,), with `document`, `source` and the columns of the outcomes.
        codes: (R,) type of each occurrence, from 0 on.
        level: what a point is.
        predictor: its name, and its value for each type.
        outcomes: of each, the columns whose sums over a type's occurrences are divided.
        covariates: of each, its value for each type.
    """
    frequent = np.bincount(codes, minlength=len(predictor[1])) >= MIN_TYPE_WORDS
    document, strata = _documents(rows)
    shape = (len(strata), len(frequent))

    def per_document(column: str) -> sparse.csc_matrix:
        values = np.nan_to_num(rows[column].to_numpy(dtype=float))
        return sparse.csc_matrix((values, (document, codes)), shape)[:, frequent]

    sums = {c: per_document(c) for c in sorted({c for pair in outcomes.values() for c in pair})}
    fixed = [values[frequent] for values in covariates.values()]

    def draw(weights: Floats) -> Floats:
        totals = {column: weights @ matrix for column, matrix in sums.items()}
        found = [_divided(totals[top], totals[bottom]) for top, bottom in outcomes.values()]
        return np.stack([predictor[1][frequent], *found, *fixed], axis=1)

    return Points(predictor[0], level, tuple(outcomes), tuple(covariates), draw, strata)


def pos_points(words: pd.DataFrame) -> Points:
    """Return part-of-speech classes as points: mean log10 frequency against what is lost of them.

    Classes that fewer than ten documents hold are left out.
    """
    codes = words["pos"].cat.codes.to_numpy().astype(np.int64)
    pairs = [*_OUTCOMES.values(), ("log10_word_frequency", "one"), ("n_tokens", "one")]
    found = document_sums(words, codes, len(words["pos"].cat.categories), pairs)
    common = (found.n_rows > 0).sum(axis=0) >= MIN_DOCUMENTS_INTERVAL
    sums = {pair: (top[:, common], bottom[:, common]) for pair, (top, bottom) in found.sums.items()}

    def ratio(pair: tuple[str, str], weights: Floats) -> Floats:
        top, bottom = sums[pair]
        return _divided(weights @ top, weights @ bottom)

    def draw(weights: Floats) -> Floats:
        outcomes, others = pairs[: len(_OUTCOMES)], pairs[len(_OUTCOMES) :]
        frequency, tokens = (ratio(pair, weights) for pair in others)
        return np.stack([frequency, *(ratio(p, weights) for p in outcomes), tokens], axis=1)

    covariates = ("tokens per word",)
    return Points(FREQUENCY, "pos", tuple(_OUTCOMES), covariates, draw, found.strata)


def _documents(frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row's document, numbered from 0, and each document's source as a number."""
    _, first, document = np.unique(
        frame["document"].to_numpy(), return_index=True, return_inverse=True
    )
    return document, frame["source"].cat.codes.to_numpy()[first].astype(np.int64)


def _divided(top: Floats, bottom: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)
