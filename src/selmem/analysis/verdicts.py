"""Each claim of the source paper on trial: one row per claim and length, with a fixed rule."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from selmem.analysis.claims import Finder, finders, size_evidence
from selmem.analysis.evidence import Effect, Evidence, paper_claims
from selmem.analysis.measurements import Measurement
from selmem.resampling import Resampling
from selmem.statistics import holm
from selmem.tables import WHOLE_TEXT

N_RESAMPLES = 4999  # Holm's levels reach far into the tail
NEGLIGIBLE_DIFFERENCE = 0.01  # one point
NEGLIGIBLE_CORRELATION = 0.05
OF_FIXED_LENGTH = ("length", "position")  # claims that whole texts say nothing about

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([mb])(?![a-z])", re.IGNORECASE)


def verdict_table(
    measurements: Sequence[Measurement], correlations: pd.DataFrame, resampling: Resampling
) -> pd.DataFrame:
    """Return the verdicts on the claims of Hossain et al. 2025.

    One row per claim, length and model (two models for the claim about size); the length 0 stands
    for whole texts, and is left out where they say nothing of the claim. Differences are in
    fractions and positive where the claim holds. The interval is Holm-adjusted over all tested rows
    of one model. Verdicts: "seen here" (the interval excludes 0, same sign), "opposite here", "not
    seen here" (the interval lies within one point of 0; 0.05 for a correlation), otherwise, and
    below 30 documents, "undecided"; "too short" where the sources have no chunk of the length;
    "not measured" where no source has what the claim is about.

    Args:
        measurements: all models.
        correlations: their `correlation_table`s, one after the other.
        resampling: seed; the number of resamples is 4,999.
    """
    resampling = replace(resampling, n_resamples=N_RESAMPLES)
    tables = []
    for measurement in measurements:
        own = correlations[
            (correlations["encoder"] == measurement.encoder)
            & (correlations["probe"] == measurement.probe)
        ]
        rows = [
            row
            for claim, find in finders(measurement, own, resampling)
            for row in _claim_rows(claim, find, all_lengths(measurement), measurement)
        ]
        tables.append(_judged(rows).assign(encoder=measurement.encoder, probe=measurement.probe))
    tables.append(size_verdict_table(measurements, resampling))
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def size_verdict_table(measurements: Sequence[Measurement], resampling: Resampling) -> pd.DataFrame:
    """Return those rows of `verdict_table` that are about two models: each and the next larger."""
    rows = _size_rows(measurements, replace(resampling, n_resamples=N_RESAMPLES))
    return _judged(rows).assign(encoder="several", probe="several")


def all_lengths(measurement: Measurement) -> list[int]:
    """Return the lengths asked for, also those that no source was long enough for."""
    config = measurement.run.get("config", {})
    asked = config.get("lengths", ()) if isinstance(config, dict) else ()
    return sorted({*measurement.lengths, *(int(n) for n in asked)})


def too_short_table(measurement: Measurement) -> pd.DataFrame:
    """Return the (source, length) that were asked for and have no chunk."""
    asked = measurement.run.get("too_short", ())
    cells = [(str(cell["source"]), int(cell["length"])) for cell in asked]
    table = pd.DataFrame(sorted(cells), columns=["source", "length"])
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)


def _claim_rows(
    claim: str, find: Finder, lengths: Sequence[int], measurement: Measurement
) -> Iterator[tuple[str, int, Evidence | None, str]]:
    """Yield (claim, length, evidence, verdict where there is no evidence)."""
    found = {length: find(length) for length in lengths}
    measured = any(evidence is not None for evidence in found.values())
    for length, evidence in found.items():
        if claim == "length" and length == min(filter(None, lengths), default=WHOLE_TEXT):
            continue
        of_no_use = claim in OF_FIXED_LENGTH or (evidence is None and len(lengths) > 1)
        if length == WHOLE_TEXT and of_no_use:
            continue
        missing = "not measured"
        if measured and (claim == "position" or length not in measurement.lengths):
            missing = "too short"
        yield claim, length, evidence, "" if evidence else missing


def _size_rows(
    measurements: Sequence[Measurement], resampling: Resampling
) -> list[tuple[str, int, Evidence | None, str]]:
    """Return the rows of the claim about size: each model against the next larger one."""
    sized = sorted((m for m in measurements if _size(m)), key=_size)
    rows: list[tuple[str, int, Evidence | None, str]] = []
    for smaller, larger in pairwise(sized):
        if _size(smaller) < _size(larger):
            find = partial(size_evidence, smaller, larger, resampling=resampling)
            lengths = sorted({*smaller.lengths} & {*larger.lengths})
            rows += _claim_rows("size", find, lengths, smaller)
    return rows


def _size(measurement: Measurement) -> float:
    """Return the parameters that the encoder's name speaks of ("mamba-1.4b"); 0 if none."""
    found = _SIZE.search(measurement.label)
    if not found:
        return 0.0
    return float(found[1]) * {"m": 1e6, "b": 1e9}[found[2].lower()]


def _judged(rows: Sequence[tuple[str, int, Evidence | None, str]]) -> pd.DataFrame:
    p = np.array([e.effect.p_value if e else np.nan for _, _, e, _ in rows], dtype=float)
    adjusted, levels = holm(p)
    return pd.DataFrame(
        [
            {
                **_paper(claim, length),
                **_ours(evidence, float(level), float(p_holm)),
                "verdict": _verdict(evidence.effect, float(level)) if evidence else missing,
            }
            for (claim, length, evidence, missing), level, p_holm in zip(
                rows, levels, adjusted, strict=True
            )
        ]
    )


def _paper(claim: str, length: int) -> dict[str, object]:
    facts = paper_claims()[claim]
    cells = facts["cells"]
    cell = cells.get(str(length), {})
    longest = max(cells, key=int, default="")
    elsewhere = f"at {longest}: {cells[longest]['text']}" if cells else ""
    return {
        "claim": claim,
        "statement": facts["statement"],
        "length": length,
        "paper": cell.get("text", elsewhere),
        "paper_difference": np.nan if cell.get("difference") is None else cell["difference"],
        "paper_measure": facts["measure"],
    }


def _ours(evidence: Evidence | None, level: float, p_holm: float) -> dict[str, object]:
    if evidence is None:
        empty = {"ours_paper_rule": np.nan, "measure": "", "ours_controlled": np.nan}
        ends = {"ci_low": np.nan, "ci_high": np.nan, "p_value": np.nan, "p_holm": np.nan}
        return {**empty, **ends, "n_documents": 0, "note": ""}
    low, high = evidence.effect.interval(level)
    return {
        "ours_paper_rule": evidence.paper_rule,
        "measure": evidence.measure,
        "ours_controlled": evidence.effect.value,
        "ci_low": low,
        "ci_high": high,
        "p_value": evidence.effect.p_value,
        "p_holm": p_holm,
        "n_documents": evidence.effect.n_documents,
        "note": evidence.note,
    }


def _verdict(effect: Effect, level: float) -> str:
    low, high = effect.interval(level)
    margin = NEGLIGIBLE_CORRELATION if effect.is_correlation else NEGLIGIBLE_DIFFERENCE
    if not np.isfinite(effect.p_value):
        return "undecided"
    if low > 0:
        return "seen here"
    if high < 0:
        return "opposite here"
    if -margin <= low and high <= margin:
        return "not seen here"
    return "undecided"
