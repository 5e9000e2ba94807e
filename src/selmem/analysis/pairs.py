"""Two versions of the same text (dialects, spellings): which one the state keeps better."""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import statsmodels.api as sm

from selmem.analysis.curves import chunk_omission
from selmem.analysis.measurements import Measurement
from selmem.resampling import Floats, Resampling
from selmem.statistics import MIN_DOCUMENTS_INTERVAL, difference, odds_ratio

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

# (numerator, denominator, sign, offset): value = offset + sign * ratio
_OUTCOMES: Mapping[str, tuple[str, str, int, int]] = {
    "recovered_fraction": ("recovered_bits", "null_bits", 1, 0),
    "retained_over_chance_count": ("count", "chance_count", -1, 1),
    "retained_over_chance_aligned": ("aligned", "chance_aligned", -1, 1),
    "omission_count": ("count", "n_words", 1, 0),
    "omission_aligned": ("aligned", "n_words", 1, 0),
    "rouge1_f1": ("rouge1_f1", "n_chunks", 1, 0),
}
_PAPER_OUTCOMES = ("omission_count", "rouge1_f1")


def pair_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return paired differences (first minus second variety), per length and outcome.

    The variety is a word in the name of the source or of the document ("aave", "sae", "british",
    "american"); what is left of both names tells which texts belong together. Pairs whose token
    counts differ by more than 0.8 to 1.25 are left out; of chunks of a fixed length, those count
    that both texts have. `adjusted_difference` is the mean difference of the pairs' recovered
    fractions at equal length (weighted least squares on the difference in tokens). Sources with
    "concat" in their name are reported under the source paper's rules alone.
    """
    chunks = _with_varieties(chunk_omission(measurement))
    rows: list[dict[str, object]] = []
    for (stem, length), part in chunks.groupby(["stem", "length"], sort=True):
        for first, second in VARIETY_PAIRS:
            paired = _paired(part, first, second)
            if len(paired):
                labels = {"source": stem, "length": length, "first": first, "second": second}
                rows += [{**labels, **row} for row in _rows(paired, str(stem), resampling)]
    table = pd.DataFrame(rows)
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)


def _with_varieties(chunks: pd.DataFrame) -> pd.DataFrame:
    """Return the chunks whose names hold a variety, with `variety`, `stem` and `pair`."""
    sources, documents = chunks["source"].astype(str), chunks["doc_id"].astype(str)
    names = sources + "/" + documents
    found = names.str.extract(_VARIETY, expand=False).str.lower().map(_NAMES)
    chunks = chunks.assign(
        variety=found,
        stem=sources.str.replace(_VARIETY, "", regex=True).str.strip(" _-."),
        pair=documents.str.replace(_VARIETY, "", regex=True),
        n_chunks=1.0,
    )
    return chunks[chunks["variety"].notna()]


def _paired(chunks: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return one row a pair: sums of both texts, with suffixes 1 and 2.

    Of chunks of a fixed length only the numbers that both texts have are summed.
    """
    sides = []
    for variety in (first, second):
        side = chunks[chunks["variety"] == variety].set_index(["pair", "number"])
        sides.append(side[~side.index.duplicated()])
    both = sides[0].index.intersection(sides[1].index)
    columns = {"n_tokens", *(name for outcome in _OUTCOMES.values() for name in outcome[:2])}
    sums = [side.loc[both, sorted(columns)].groupby("pair").sum(min_count=1) for side in sides]
    return sums[0].add_suffix("1").join(sums[1].add_suffix("2"))


def _rows(paired: pd.DataFrame, stem: str, resampling: Resampling) -> Iterator[dict[str, object]]:
    ratio = paired["n_tokens1"] / paired["n_tokens2"]
    kept = paired[ratio.between(MIN_RATIO, MAX_RATIO)]
    concatenated = bool(_CONCATENATED.search(stem))
    for outcome in _PAPER_OUTCOMES if concatenated else _OUTCOMES:
        top, bottom, sign, offset = _OUTCOMES[outcome]
        names = [f"{name}{i}" for i in (1, 2) for name in (top, bottom)]
        known = np.isfinite(kept[names].to_numpy(dtype=float)).all(axis=1)
        usable = kept.loc[known]
        sides = usable[names].to_numpy(dtype=float)[:, :, None]
        if not (sides[:, 1].sum() > 0 and sides[:, 3].sum() > 0):
            continue
        result = difference((sides[:, 0], sides[:, 1]), (sides[:, 2], sides[:, 3]), resampling)
        low, high = (float(limit[0]) for limit in result.interval())
        values = [offset + sign * sides[:, i].sum() / sides[:, i + 1].sum() for i in (0, 2)]
        yield {
            "outcome": outcome,
            "concatenated": concatenated,
            "first_value": values[0],
            "second_value": values[1],
            "difference": sign * float(result.value[0]),
            "ci_low": low if sign > 0 else -high,
            "ci_high": high if sign > 0 else -low,
            "p_value": float(result.p_value()[0]),
            "odds_ratio": float(odds_ratio(values[0], values[1])),
            "n_pairs": len(usable),
            "n_pairs_left_out": len(paired) - len(usable),
            "token_ratio": float(usable["n_tokens1"].sum() / usable["n_tokens2"].sum()),
            **(_adjusted(usable) if outcome == "recovered_fraction" else {}),
        }


def _adjusted(pairs: pd.DataFrame) -> dict[str, float]:
    """Return the difference of recovered fractions at equal token counts, with its interval."""
    extra = (pairs["n_tokens1"] - pairs["n_tokens2"]).to_numpy(dtype=float)
    bits = pairs["null_bits1"] + pairs["null_bits2"]
    fractions: Floats = (
        pairs["recovered_bits1"] / pairs["null_bits1"]
        - pairs["recovered_bits2"] / pairs["null_bits2"]
    ).to_numpy(dtype=float)
    if len(pairs) < MIN_DOCUMENTS_INTERVAL or np.ptp(extra) == 0:
        return {}
    model = sm.WLS(fractions, sm.add_constant(extra), weights=bits.to_numpy(dtype=float))
    fit = model.fit(cov_type="HC3")
    low, high = fit.conf_int()[0]
    return {
        "adjusted_difference": float(fit.params[0]),
        "adjusted_low": float(low),
        "adjusted_high": float(high),
    }
