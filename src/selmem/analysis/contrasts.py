"""Differences between tags, and between models on the same chunks, tested by document."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selmem.analysis.curves import chunk_omission
from selmem.analysis.groups import Group, document_sums, each_group
from selmem.analysis.measurements import Measurement
from selmem.analysis.omission import SCHEMES
from selmem.errors import InputError
from selmem.forked import forked_map
from selmem.resampling import Floats, Resampling
from selmem.statistics import Bootstrap, combine, difference, holm, odds_ratio

# numerator, denominator, and whether a larger ratio is a larger loss (+1) or a smaller one (-1)
Outcome = tuple[str, str, int]
WORD_OUTCOMES: Mapping[str, Outcome] = {
    "omission_count": ("omitted_count", "one", 1),
    "omission_aligned": ("omitted_aligned", "one", 1),
    "omission_over_chance": ("omitted_count", "chance_count", 1),
    "recovered_fraction": ("recovered_bits", "null_bits", -1),
}
CHUNK_OUTCOMES: Mapping[str, Outcome] = {
    "omission_count": ("count", "n_words", 1),
    "omission_aligned": ("aligned", "n_words", 1),
    "omission_over_chance": ("count", "chance_count", 1),
    "recovered_fraction": ("recovered_bits", "null_bits", -1),
    "rouge1_f1": ("rouge1_f1", "one", -1),
}
RATES = ("omission_count", "omission_aligned")
# outcomes that are sums of rates, also of rates over their chance level
RATE_LIKE = (*RATES, "omission_over_chance", "rouge1_f1")


def group_difference(
    frame: pd.DataFrame, codes: NDArray[np.int64], outcome: Outcome, resampling: Resampling
) -> Bootstrap | None:
    """Return the loss of the rows with code 0 minus that of the rows with code 1.

    A loss is the outcome's ratio, with its sign. None where one of the two groups is empty.

    Args:
        frame: rows with `document`, `source` and the outcome's columns.
        codes: (rows,) 0, 1, or -1 for neither.
        outcome: columns and sign.
        resampling: the resamples.
    """
    pair, sign = (outcome[0], outcome[1]), outcome[2]
    found = document_sums(frame, codes, 2, [pair])
    top, bottom = found.sums[pair]
    if (bottom.sum(axis=0) == 0).any():
        return None
    result = difference(
        (top[:, :1], bottom[:, :1]), (top[:, 1:], bottom[:, 1:]), resampling, strata=found.strata
    )
    return combine([result], [sign])


def tag_contrast_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return, for each tag, how much more is lost of its words than of all other annotated words.

    Rows: source x length x scheme x tag x outcome. `difference` is in fractions (0.01 is a point),
    positive where the tag loses more; `p_holm` is adjusted over the tags of one scheme and outcome.
    Cut words are left out.
    """
    words = measurement.words[~measurement.words["cut"]].assign(one=1.0)

    def one(group: Group) -> pd.DataFrame:
        source, length, rows = group
        return _tag_rows(rows, resampling).assign(source=source, length=length)

    tables = forked_map(one, list(each_group(words)), resampling.workers)
    tables = [table for table in tables if len(table)]
    if not tables:
        return pd.DataFrame()
    found = pd.concat(tables, ignore_index=True)
    return found.assign(encoder=measurement.encoder, probe=measurement.probe)


@dataclass(frozen=True)
class _TagSums:
    """Sums per document of each tag's words and of all other annotated words, (G, tags) each."""

    scheme: str
    outcome: str
    tags: NDArray[np.object_]
    own: tuple[Floats, Floats]
    others: tuple[Floats, Floats]
    n_words: NDArray[np.int64]
    strata: NDArray[np.int64]


def _tag_sums(words: pd.DataFrame) -> Iterator[_TagSums]:
    pairs = list(dict.fromkeys((top, bottom) for top, bottom, _ in WORD_OUTCOMES.values()))
    for scheme in SCHEMES:
        labels = np.array([str(tag) for tag in words[scheme].cat.categories], dtype=object)
        codes = words[scheme].cat.codes.to_numpy().astype(np.int64)
        found = document_sums(words, codes, len(labels), pairs)
        n_words = found.n_rows.sum(axis=0).astype(np.int64)
        for outcome, (top_name, bottom_name, _) in WORD_OUTCOMES.items():
            top, bottom = found.sums[top_name, bottom_name]
            rest = [x.sum(axis=1, keepdims=True) - x for x in (top, bottom)]
            used = (bottom.sum(axis=0) > 0) & (rest[1].sum(axis=0) > 0)
            if used.any():
                own, others = (top[:, used], bottom[:, used]), (rest[0][:, used], rest[1][:, used])
                kept = labels[used], own, others, n_words[used], found.strata
                yield _TagSums(scheme, outcome, *kept)


def _tag_rows(words: pd.DataFrame, resampling: Resampling) -> pd.DataFrame:
    sums = list(_tag_sums(words))
    if not sums:
        return pd.DataFrame()
    own, others = (
        tuple(np.concatenate([getattr(s, side)[i] for s in sums], axis=1) for i in (0, 1))
        for side in ("own", "others")
    )
    result = difference((own[0], own[1]), (others[0], others[1]), resampling, strata=sums[0].strata)
    ends = np.cumsum([len(s.tags) for s in sums])
    return pd.concat(
        [
            _tag_table(part, result.part(slice(int(end) - len(part.tags), int(end))))
            for part, end in zip(sums, ends, strict=True)
        ]
    )


def _tag_table(sums: _TagSums, plain: Bootstrap) -> pd.DataFrame:
    result = combine([plain], [WORD_OUTCOMES[sums.outcome][2]])
    of_rates = sums.outcome in RATE_LIKE
    low, high = result.interval(of_rates=of_rates)
    p = result.p_value(of_rates=of_rates)
    value, other = _ratio(sums.own), _ratio(sums.others)
    return pd.DataFrame(
        {
            "scheme": sums.scheme,
            "tag": sums.tags,
            "outcome": sums.outcome,
            "value": value,
            "value_of_others": other,
            "difference": result.value,
            "ci_low": low,
            "ci_high": high,
            "p_value": p,
            "p_holm": holm(p)[0],
            "odds_ratio": odds_ratio(value, other) if sums.outcome in RATES else np.nan,
            "n_words": sums.n_words,
            "n_documents": result.n_documents,
        }
    )


def _ratio(sums: tuple[Floats, Floats]) -> Floats:
    return np.asarray(sums[0].sum(axis=0) / sums[1].sum(axis=0))


def model_contrast_table(
    measurements: Sequence[Measurement], resampling: Resampling
) -> pd.DataFrame:
    """Return how much more the first of two models loses, on the chunks that both measured.

    Rows: pair of models x source x length x outcome; paired by document.

    Raises:
        InputError: two models have no chunk in common.
    """
    tables = []
    for first, second in combinations(measurements, 2):
        both = shared_chunks(first, second)
        for source, length, part in each_group(both):
            for name, outcome in CHUNK_OUTCOMES.items():
                result = side_difference(part, outcome, resampling)
                if result is not None:
                    row = _model_row(result, part, name)
                    row |= {"source": source, "length": length, "outcome": name}
                    row |= {"first": first.label, "second": second.label}
                    tables.append(row)
    table = pd.DataFrame(tables)
    if len(table):
        table["p_holm"] = holm(table["p_value"])[0]
    return table


def shared_chunks(first: Measurement, second: Measurement) -> pd.DataFrame:
    """Return the chunks that both measured, the sums of each with suffix 1 and 2."""
    sums = sorted({name for outcome in CHUNK_OUTCOMES.values() for name in outcome[:2]} - {"one"})
    sides = [chunk_omission(m).set_index("chunk_id") for m in (first, second)]
    both = sides[0].index.intersection(sides[1].index)
    if not len(both):
        raise InputError(
            f"{first.label} and {second.label} measured no chunk in common; report them apart"
        )
    joined = sides[0].loc[both, ["document", "source", "length"]].assign(one1=1.0, one2=1.0)
    for i, side in enumerate(sides, 1):
        joined = joined.join(side.loc[both, sums].add_suffix(str(i)))
    return joined


def side_difference(
    both: pd.DataFrame, outcome: Outcome, resampling: Resampling
) -> Bootstrap | None:
    """Return the loss in the columns with suffix 1 minus that in those with 2; None if unknown."""
    top, bottom, sign = outcome
    pairs = [(f"{top}{i}", f"{bottom}{i}") for i in (1, 2)]
    known = both[[name for pair in pairs for name in pair]].notna().all(axis=1)
    both = both[known]
    if not len(both):
        return None
    found = document_sums(both, np.zeros(len(both), np.int64), 1, pairs)
    if any(found.sums[pair][1].sum() == 0 for pair in pairs):
        return None
    result = difference(found.sums[pairs[0]], found.sums[pairs[1]], resampling, strata=found.strata)
    return combine([result], [sign])


def _model_row(result: Bootstrap, part: pd.DataFrame, name: str) -> dict[str, object]:
    low, high = result.interval(of_rates=name in RATE_LIKE)
    top, bottom, _ = CHUNK_OUTCOMES[name]
    values = [part[f"{top}{i}"].sum() / part[f"{bottom}{i}"].sum() for i in (1, 2)]
    return {
        "first_value": values[0],
        "second_value": values[1],
        "difference": float(result.value[0]),
        "ci_low": float(low[0]),
        "ci_high": float(high[0]),
        "p_value": float(result.p_value(of_rates=name in RATE_LIKE)[0]),
        "n_documents": int(result.n_documents[0]),
    }
