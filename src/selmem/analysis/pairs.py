"""Two versions of the same text (dialects, spellings): which one the state keeps better."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm

from selmem.analysis.contrasts import CHUNK_OUTCOMES, RATE_LIKE, RATES, side_difference
from selmem.analysis.curves import chunk_omission
from selmem.analysis.measurements import Measurement
from selmem.resampling import Resampling
from selmem.statistics import MIN_DOCUMENTS_INTERVAL, odds_ratio

MIN_RATIO, MAX_RATIO = 0.8, 1.25  # of the two token counts

# the variety that the claim says is lost more stands first
VARIETY_PAIRS = (("AAE", "SAE"), ("British", "American"))
_NAMES: Mapping[str, str] = {
    "aae": "AAE",
    "aave": "AAE",
    "sae": "SAE",
    "british": "British",
    "american": "American",
}
_VARIETY = re.compile(rf"(?<![a-z])({'|'.join(_NAMES)})(?![a-z])", re.IGNORECASE)
_CONCATENATED = re.compile("concat", re.IGNORECASE)

_MAIN_OUTCOME = "recovered_fraction"
_PAPER_OUTCOMES = ("omission_count", "rouge1_f1")


def pair_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return how much more is lost of the first variety than of the second, paired by text.

    The variety is a word in the name of the source or of the document ("aave", "sae", "british",
    "american"); what is left of both names tells which texts belong together. Pairs whose token
    counts differ by more than 0.8 to 1.25 are left out; of chunks of a fixed length, those count
    that both texts have. `adjusted_difference` is the difference in the fraction of null bits lost
    between texts of equal length (weighted least squares on the difference in tokens). Sources with
    "concat" in their name are reported under the source paper's rules alone. The recovered fraction
    stands first: omission credits chance, which differs between varieties.
    """
    chunks = with_varieties(chunk_omission(measurement).assign(one=1.0))
    rows: list[dict[str, object]] = []
    for (stem, length), part in chunks.groupby(["stem", "length"], sort=True):
        for first, second in VARIETY_PAIRS:
            paired = similar_pairs(paired_chunks(part, first, second))
            if len(paired.kept):
                labels = {"source": stem, "length": length, "first": first, "second": second}
                rows += [{**labels, **row} for row in _rows(paired, str(stem), resampling)]
    table = pd.DataFrame(rows)
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)


def with_varieties(chunks: pd.DataFrame) -> pd.DataFrame:
    """Return the chunks whose names hold a variety, with `variety`, `stem` and `pair`."""
    sources, documents = chunks["source"].astype(str), chunks["doc_id"].astype(str)
    found = (sources + "/" + documents).str.extract(_VARIETY, expand=False)
    stem = sources.str.replace(_VARIETY, "", regex=True).str.strip(" _-.")
    chunks = chunks.assign(
        variety=found.str.lower().map(_NAMES),
        stem=stem,
        pair=stem + "/" + documents.str.replace(_VARIETY, "", regex=True),
    )
    return chunks[chunks["variety"].notna()]


def is_concatenated(stem: str) -> bool:
    """Return whether a source's name says that its texts were put together from several."""
    return bool(_CONCATENATED.search(stem))


def paired_chunks(chunks: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return the chunks of a pair that both texts have, side by side.

    Returns:
        One row for each pair and chunk number: `pair`, `document` (the pair as an integer),
        `source` (of the first) and the columns of `CHUNK_OUTCOMES` and `n_tokens` with suffix 1
        and 2.
    """
    columns = {"n_tokens", *(name for outcome in CHUNK_OUTCOMES.values() for name in outcome[:2])}
    sides = []
    for variety in (first, second):
        side = chunks[chunks["variety"] == variety].set_index(["pair", "number"])
        sides.append(side[~side.index.duplicated()])
    both = sides[0].index.intersection(sides[1].index)
    one, two = (side.loc[both] for side in sides)
    joined = one[["source"]].join(one[sorted(columns)].add_suffix("1"))
    joined = joined.join(two[sorted(columns)].add_suffix("2")).reset_index()
    return joined.assign(document=pd.factorize(joined["pair"])[0])


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of similar length, and how many others there are."""

    kept: pd.DataFrame  # as `paired_chunks` returns them
    n_left_out: int


def similar_pairs(both: pd.DataFrame) -> SimilarPairs:
    """Return the pairs whose token counts are within a ratio of 0.8 to 1.25."""
    tokens = both.groupby("pair")[["n_tokens1", "n_tokens2"]].transform("sum")
    similar = (tokens["n_tokens1"] / tokens["n_tokens2"]).between(MIN_RATIO, MAX_RATIO)
    kept = both[similar]
    return SimilarPairs(kept, int(both["pair"].nunique() - kept["pair"].nunique()))


def _rows(pairs: SimilarPairs, stem: str, resampling: Resampling) -> Iterator[dict[str, object]]:
    concatenated = is_concatenated(stem)
    outcomes = [_MAIN_OUTCOME, *(name for name in CHUNK_OUTCOMES if name != _MAIN_OUTCOME)]
    for name in _PAPER_OUTCOMES if concatenated else outcomes:
        outcome = CHUNK_OUTCOMES[name]
        result = side_difference(pairs.kept, outcome, resampling)
        if result is None:
            continue
        of_rates = name in RATE_LIKE
        low, high = (float(limit[0]) for limit in result.interval(of_rates=of_rates))
        values = [
            pairs.kept[f"{outcome[0]}{i}"].sum() / pairs.kept[f"{outcome[1]}{i}"].sum()
            for i in (1, 2)
        ]
        yield {
            "outcome": name,
            "concatenated": concatenated,
            "first_value": values[0],
            "second_value": values[1],
            "loss_difference": float(result.value[0]),
            "ci_low": low,
            "ci_high": high,
            "p_value": float(result.p_value(of_rates=of_rates)[0]),
            "odds_ratio": float(odds_ratio(*values)) if name in RATES else np.nan,
            "n_pairs": pairs.kept["pair"].nunique(),
            "n_pairs_left_out": pairs.n_left_out,
            "token_ratio": pairs.kept["n_tokens1"].sum() / pairs.kept["n_tokens2"].sum(),
            **(_adjusted(pairs.kept) if name == _MAIN_OUTCOME else {}),
        }


def _adjusted(chunks: pd.DataFrame) -> dict[str, float]:
    """Return the difference in the fraction lost at equal token counts, with its interval."""
    names = [f"{name}{i}" for i in (1, 2) for name in ("recovered_bits", "null_bits", "n_tokens")]
    pairs = chunks.groupby("pair")[names].sum().astype(float)
    extra = (pairs["n_tokens1"] - pairs["n_tokens2"]).to_numpy()
    lost = [1 - pairs[f"recovered_bits{i}"] / pairs[f"null_bits{i}"] for i in (1, 2)]
    if len(pairs) < MIN_DOCUMENTS_INTERVAL or np.ptp(extra) == 0:
        return {}
    weights = (pairs["null_bits1"] + pairs["null_bits2"]).to_numpy()
    model = sm.WLS((lost[0] - lost[1]).to_numpy(), sm.add_constant(extra), weights=weights)
    fit = model.fit(cov_type="HC3")
    low, high = fit.conf_int()[0]
    return {
        "adjusted_difference": float(fit.params[0]),
        "adjusted_low": float(low),
        "adjusted_high": float(high),
    }
