"""All tables of a report, from all measurements."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pandas as pd
from tqdm import tqdm

from selmem.analysis.calibration import calibration_table
from selmem.analysis.common_words import common_word_table
from selmem.analysis.contrasts import model_contrast_table, tag_contrast_table
from selmem.analysis.controls import control_table
from selmem.analysis.curves import bits_table, length_table, perplexity_table, position_table
from selmem.analysis.error_kinds import edit_table, fate_table, find_edits
from selmem.analysis.frequency import correlation_table
from selmem.analysis.measurements import Measurement
from selmem.analysis.omission import omission_table
from selmem.analysis.pairs import pair_table
from selmem.analysis.regression import regression_tables
from selmem.analysis.verdicts import too_short_table, verdict_table
from selmem.forked import forked_map
from selmem.resampling import Resampling

Tables = dict[str, pd.DataFrame]
Step = tuple[str, Callable[[], Tables]]

# tables that share their groups among workers
LARGE = ("omission", "contrasts", "correlations", "controls", "positions", "regression")


def analyse(measurements: Sequence[Measurement], resampling: Resampling) -> Tables:
    """Return every table of the report; one that nothing was measured for is empty.

    omission, contrasts (tags), models, lengths, common_words, positions, perplexity, bits,
    correlations, calibration, controls, edits, fates, effects, coefficients, support (regression),
    pairs, too_short, verdicts: each as the function of that name documents it.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    steps = [step for m in measurements for step in _steps(m, resampling)]
    if len(measurements) > 1:
        steps.append(("models", lambda: {"models": model_contrast_table(measurements, resampling)}))
    for made in _computed(steps, resampling.workers):
        for key, table in made.items():
            tables.setdefault(key, []).append(table)
    found = {key: _joined(parts) for key, parts in tables.items()}
    found.setdefault("models", pd.DataFrame())
    found["verdicts"] = verdict_table(measurements, found["correlations"], resampling)
    return found


def _computed(steps: Sequence[Step], workers: int) -> list[Tables]:
    """Return what every step makes, in order; workers share a large one's groups, else steps."""
    found: dict[int, Tables] = {}
    large = [number for number, (name, _) in enumerate(steps) if name in LARGE or workers == 1]
    for number in (progress := tqdm(large, desc="analysis", disable=None, leave=False)):
        name, compute = steps[number]
        progress.set_postfix_str(name)
        found[number] = compute()
    others = [number for number in range(len(steps)) if number not in found]
    made = forked_map(lambda number: steps[number][1](), others, workers)
    found |= dict(zip(others, made, strict=True))
    return [found[number] for number in range(len(steps))]


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def _steps(measurement: Measurement, resampling: Resampling) -> Iterator[Step]:
    simple = {
        "omission": omission_table,
        "contrasts": tag_contrast_table,
        "lengths": length_table,
        "common_words": common_word_table,
        "positions": position_table,
        "perplexity": perplexity_table,
        "bits": bits_table,
        "correlations": correlation_table,
        "calibration": calibration_table,
        "controls": control_table,
        "pairs": pair_table,
    }
    for name, function in simple.items():
        yield name, partial(_one, name, function, measurement, resampling)
    yield "errors", lambda: _error_tables(measurement, resampling)
    yield "regression", lambda: _regression(measurement, resampling)
    yield "too_short", lambda: {"too_short": too_short_table(measurement)}


def _one(
    name: str,
    function: Callable[[Measurement, Resampling], pd.DataFrame],
    measurement: Measurement,
    resampling: Resampling,
) -> Tables:
    return {name: function(measurement, resampling)}


def _error_tables(measurement: Measurement, resampling: Resampling) -> Tables:
    edits = find_edits(measurement.reference_ids, measurement.reconstructed_ids)
    return {
        "edits": edit_table(measurement, edits, resampling),
        "fates": fate_table(measurement, edits, resampling),
    }


def _regression(measurement: Measurement, resampling: Resampling) -> Tables:
    found = regression_tables(measurement, seed=resampling.seed, workers=resampling.workers)
    return {
        "effects": found.effects,
        "coefficients": found.coefficients,
        "support": found.support,
    }
