"""The source paper's claims, and what one measurement says about each.

Every effect is signed so that it is positive where the claim holds.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selmem.analysis.contrasts import (
    CHUNK_OUTCOMES,
    RATE_LIKE,
    WORD_OUTCOMES,
    Outcome,
    group_difference,
    shared_chunks,
    side_difference,
)
from selmem.analysis.curves import chunk_omission
from selmem.analysis.evidence import Effect, Evidence
from selmem.analysis.frequency import FREQUENCY, PERPLEXITY
from selmem.analysis.measurements import CONV_TOKENS, POOLED, Measurement
from selmem.analysis.pairs import is_concatenated, paired_chunks, similar_pairs, with_varieties
from selmem.resampling import Resampling
from selmem.statistics import Bootstrap, combine

DOMAINS: Mapping[str, re.Pattern[str]] = {
    "maths": re.compile(r"math|gsm8k|svamp|olympiad|minerva", re.IGNORECASE),
    "code": re.compile(r"code|github|humaneval", re.IGNORECASE),
}
TAGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "numbers": ("pos", ("NUM",)),
    "variables": ("kind", ("variable",)),
    # GUM's "organization" also covers mentions that are no names ("the company")
    "organisations": ("entity", ("ORG",)),
}
MIN_SOURCE_DOCUMENTS = 5  # with the tag, for a source to enter the mean over sources

_MEASURES = {
    "recovered_fraction": "fraction of null bits not recovered",
    "omission_over_chance": "omission over chance",
}


def controlled_outcome(measurement: Measurement) -> str:
    """Return the outcome after controls: recovered fraction, or without a null probe chance."""
    return "recovered_fraction" if measurement.has_null else "omission_over_chance"


def tag_evidence(
    measurement: Measurement, claim: str, length: int, *, resampling: Resampling
) -> Evidence | None:
    """Return the loss of a tag's words minus that of all other words, as a mean over sources.

    Sources are weighted by the tag's words; those in which fewer than 5 documents have the tag are
    left out, and so are dialect and spelling pairs.
    """
    scheme, tags = TAGS[claim]
    words = measurement.words.assign(one=1.0)
    words = words[(words["length"] == length) & ~words["cut"] & words[scheme].notna()]
    words = words[~words["chunk"].isin(with_varieties(measurement.chunks).index)]
    parts = []
    for source, part in words.groupby("source", observed=True):
        codes = np.where(part[scheme].isin(tags), 0, 1).astype(np.int64)
        if part.loc[codes == 0, "document"].nunique() >= MIN_SOURCE_DOCUMENTS:
            parts.append((str(source), part, codes))
    outcomes = ("omission_count", controlled_outcome(measurement))
    found = [_mean_over_sources(parts, WORD_OUTCOMES[name], resampling) for name in outcomes]
    sources = ", ".join(source for source, *_ in parts)
    return _evidence(found[0], found[1], outcomes[1], f"sources: {sources}")


def _mean_over_sources(
    parts: list[tuple[str, pd.DataFrame, NDArray[np.int64]]],
    outcome: Outcome,
    resampling: Resampling,
) -> Bootstrap | None:
    results, weights = [], []
    for i, (_, part, codes) in enumerate(parts):
        own = replace(resampling, seed=resampling.seed + i)
        result = group_difference(part, codes, outcome, own)
        if result is not None:
            results.append(result)
            weights.append(float((codes == 0).sum()))
    if not results:
        return None
    return combine(results, list(np.array(weights) / sum(weights)))


def position_evidence(
    measurement: Measurement, length: int, *, resampling: Resampling
) -> Evidence | None:
    """Return the loss in the first quarter of the chunk minus that in the last quarter.

    The last four positions are left out before the quarters are taken.
    """
    usable = length - CONV_TOKENS
    if usable < 2:
        return None

    def quarters(position: pd.Series) -> NDArray[np.int64]:
        inside = position < usable
        return np.select([position < usable / 4, inside & (position >= 0.75 * usable)], [0, 1], -1)

    words = measurement.words.assign(one=1.0)
    words = words[(words["length"] == length) & ~words["cut"]]
    paper = group_difference(
        words, quarters(words["last_position"]), WORD_OUTCOMES["omission_count"], resampling
    )
    if not measurement.has_null:
        outcome = WORD_OUTCOMES["omission_over_chance"]
        effect = group_difference(words, quarters(words["last_position"]), outcome, resampling)
    else:
        tokens = measurement.tokens[measurement.tokens["length"] == length]
        outcome = WORD_OUTCOMES["recovered_fraction"]
        effect = group_difference(tokens, quarters(tokens["position"]), outcome, resampling)
    return _evidence(paper, effect, controlled_outcome(measurement), "last four positions left out")


def length_evidence(
    measurement: Measurement, length: int, *, resampling: Resampling
) -> Evidence | None:
    """Return the loss at `length` minus that at the next shorter length, on the same documents."""
    shorter = [n for n in measurement.lengths if 0 < n < length]
    if not shorter:
        return None
    chunks = chunk_omission(measurement).assign(one=1.0)
    chunks = chunks[chunks["length"].isin((length, max(shorter)))]
    both = chunks.groupby("document")["length"].transform("nunique") == 2
    chunks = chunks[both]
    codes = np.where(chunks["length"] == length, 0, 1).astype(np.int64)
    return _chunk_evidence(measurement, chunks, codes, resampling, f"against {max(shorter)}")


def domain_evidence(
    measurement: Measurement, claim: str, length: int, *, resampling: Resampling
) -> Evidence | None:
    """Return the loss of a domain's sources minus that of all other sources but pairs."""
    chunks = chunk_omission(measurement).assign(one=1.0)
    chunks = chunks[chunks["length"] == length]
    chunks = chunks.drop(index=with_varieties(chunks).index)
    sources = chunks["source"].astype(str)
    mine = sources.str.contains(DOMAINS[claim])
    others = ~sources.str.contains("|".join(p.pattern for p in DOMAINS.values()), case=False)
    codes = np.select([mine, others], [0, 1], -1)
    names = ", ".join(sorted(sources[mine].unique()))
    return _chunk_evidence(measurement, chunks, codes, resampling, f"sources: {names}")


def dialect_evidence(
    measurement: Measurement, length: int, *, resampling: Resampling
) -> Evidence | None:
    """Return the loss of AAE minus that of SAE, paired by text, on texts of similar length.

    Concatenated texts are left out: which of them pair up is an accident of the concatenation.
    """
    chunks = with_varieties(chunk_omission(measurement).assign(one=1.0))
    chunks = chunks[~np.array([is_concatenated(stem) for stem in chunks["stem"]], bool)]
    both = paired_chunks(chunks[chunks["length"] == length], "AAE", "SAE")
    both = similar_pairs(both).kept
    name = controlled_outcome(measurement)
    found = [side_difference(both, CHUNK_OUTCOMES[n], resampling) for n in ("rouge1_f1", name)]
    return _evidence(found[0], found[1], name, "paired by text")


def size_evidence(
    smaller: Measurement, larger: Measurement, length: int, *, resampling: Resampling
) -> Evidence | None:
    """Return the loss of the smaller model minus that of the larger, on the same chunks."""
    both = shared_chunks(smaller, larger)
    both = both[both["length"] == length]
    has_null = smaller.has_null and larger.has_null
    name = "recovered_fraction" if has_null else "omission_over_chance"
    found = [side_difference(both, CHUNK_OUTCOMES[n], resampling) for n in ("rouge1_f1", name)]
    return _evidence(found[0], found[1], name, f"{smaller.label} against {larger.label}")


def correlation_evidence(
    correlations: pd.DataFrame, claim: str, length: int, *, has_null: bool
) -> Evidence | None:
    """Return the correlation of rarity or perplexity with loss, as a mean over sources (on z)."""
    predictor, sign = (FREQUENCY, -1) if claim == "rarity" else (PERPLEXITY, 1)
    rows = correlations[
        (correlations["predictor"] == predictor)
        & (correlations["length"] == length)
        & (correlations["level"] != "pos")
        & (correlations["source"] != POOLED)
        & np.isfinite(correlations["se_z"].astype(float))
    ]
    adjusted = rows["adjusted_for"] != ""
    paper = _mean_correlation(rows[~adjusted & (rows["outcome"] == "omission_count")], sign)
    outcome = "recovered_fraction" if has_null else "omission_count"
    wanted = rows[(rows["outcome"] == outcome) & (adjusted == (claim == "rarity"))]
    effect = _mean_correlation(wanted, -sign if has_null else sign)
    if paper is None or effect is None:
        return None
    held = str(wanted["adjusted_for"].iloc[0])
    measure = f"rank correlation with {_MEASURES.get(outcome, 'omission (count)')}"
    return Evidence(paper.value, effect, measure, f"given {held}" if held else "")


def _mean_correlation(rows: pd.DataFrame, sign: int) -> Effect | None:
    if not len(rows):
        return None
    weights = (rows["n_points"] / rows["n_points"].sum()).to_numpy(dtype=float)
    z = np.arctanh(rows["correlation"].clip(-1 + 1e-9, 1 - 1e-9).to_numpy(dtype=float))
    se = np.sqrt((weights**2) @ (rows["se_z"].to_numpy(dtype=float) ** 2))
    value = sign * float(np.tanh(weights @ z))
    return Effect.of_correlation(value, float(se), int(rows["n_documents"].sum()))


def _chunk_evidence(
    measurement: Measurement,
    chunks: pd.DataFrame,
    codes: NDArray[np.int64],
    resampling: Resampling,
    note: str,
) -> Evidence | None:
    if not ((codes == 0).any() and (codes == 1).any()):
        return None
    name = controlled_outcome(measurement)
    outcomes = (CHUNK_OUTCOMES["rouge1_f1"], CHUNK_OUTCOMES[name])
    paper, effect = (group_difference(chunks, codes, o, resampling) for o in outcomes)
    return _evidence(paper, effect, name, note)


def _evidence(
    paper: Bootstrap | None, effect: Bootstrap | None, outcome: str, note: str
) -> Evidence | None:
    if effect is None or not np.isfinite(effect.value[0]):
        return None
    paper_rule = np.nan if paper is None else float(paper.value[0])
    found = Effect.of_difference(effect, of_rates=outcome in RATE_LIKE)
    return Evidence(paper_rule, found, _MEASURES[outcome], note)


Finder = Callable[[int], Evidence | None]


def finders(
    measurement: Measurement, correlations: pd.DataFrame, resampling: Resampling
) -> Iterator[tuple[str, Finder]]:
    """Yield (claim, function from length to evidence) for all claims about one model."""
    yield "length", partial(length_evidence, measurement, resampling=resampling)
    yield "position", partial(position_evidence, measurement, resampling=resampling)
    for claim in TAGS:
        yield claim, partial(tag_evidence, measurement, claim, resampling=resampling)
    yield "dialect", partial(dialect_evidence, measurement, resampling=resampling)
    for claim in DOMAINS:
        yield claim, partial(domain_evidence, measurement, claim, resampling=resampling)
    has_null = measurement.has_null
    for claim in ("rarity", "perplexity"):
        yield claim, partial(correlation_evidence, correlations, claim, has_null=has_null)
