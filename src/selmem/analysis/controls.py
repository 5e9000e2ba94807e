"""How this probe does with a part of its state replaced: its reliance, not the state's content."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from selmem.analysis.groups import Group, Ratio, each_group, ratio_table
from selmem.analysis.measurements import CONTROL_PREFIX, Measurement
from selmem.forked import forked_map
from selmem.resampling import Resampling

_LAYER = re.compile(r"layer_?(\d+)")
# readers whose state nobody exchanged, and their columns
PLAIN_READERS: Mapping[str, str] = {
    "oracle": "bits_oracle",
    "probe": "probe_bits",
    "null": "null_bits",
    "encoder from empty state": "base_bits",
}
_ENDINGS = (
    ("bits", "bits"),
    ("bits_more_than_probe", "more_bits"),
    ("recovered_fraction", "recovered"),
)


def control_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return bits per token under each control, beside probe, null, encoder, and an oracle's 0.

    Columns: condition, layer (-1 where the control is not of one layer), bits, how many more than
    the probe's own (paired), and the recovered fraction 1 - bits / null bits, with intervals, per
    source and length. A control that only some sources have has no row over all of them. Bits
    above the null probe's mean that the replaced state misleads the probe; they are no floor.
    """
    tokens = measurement.tokens.assign(one=1.0, bits_oracle=0.0)
    conditions = {**PLAIN_READERS}
    conditions |= {name: f"{CONTROL_PREFIX}{name}" for name in measurement.controls}
    for column in conditions.values():
        tokens[f"{column}/more"] = tokens[column] - tokens["probe_bits"]
    ratios = [ratio for column in conditions.values() for ratio in _ratios(column)]

    def one(group: Group) -> pd.DataFrame:
        source, length, part = group
        wide = ratio_table(part, np.zeros(len(part), int), ["all"], ratios, resampling).iloc[0]
        rows = [
            _row(wide, name, column)
            for name, column in conditions.items()
            if part[column].notna().all()
        ]
        return pd.DataFrame(rows).assign(source=source, length=length)

    tables = forked_map(one, list(each_group(tokens)), resampling.workers)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)


def _ratios(column: str) -> tuple[Ratio, ...]:
    return (
        Ratio(f"{column}/bits", column, "one"),
        Ratio(f"{column}/more_bits", f"{column}/more", "one"),
        Ratio(f"{column}/recovered", column, "null_bits", is_positive=True, complement=True),
    )


def _row(wide: pd.Series, condition: str, column: str) -> dict[str, object]:
    layer = _LAYER.search(condition)
    row: dict[str, object] = {
        "condition": condition,
        "layer": int(layer[1]) if layer else -1,
        "n_tokens": wide["n_rows"],
        "n_documents": wide["n_documents"],
    }
    for name, end in _ENDINGS:
        for suffix in ("", "_low", "_high"):
            row[name + suffix] = wide[f"{column}/{end}{suffix}"]
    return row
