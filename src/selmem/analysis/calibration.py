"""Does the probe know when it is wrong? Its forced confidence against how often it is right."""

import numpy as np
import pandas as pd

from selmem.analysis.groups import Ratio, each_group, ratio_table
from selmem.analysis.measurements import Measurement
from selmem.resampling import Resampling

N_BINS = 10  # of equal width


def calibration_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return the reliability table, and the expected calibration error of each source and length.

    A row is a bin of the probability that the probe gives to its own best guess, the true text
    before it given; `calibration_error`, the mean of |accuracy - confidence| weighted by tokens,
    is that of the whole source and length and the same in each of its rows.

    Source: Naeini, Cooper and Hauskrecht 2015 (expected calibration error).
    """
    tokens = measurement.tokens[measurement.tokens["forced_confidence"].notna()].assign(one=1.0)
    ratios = (
        Ratio("confidence", "forced_confidence", "one", is_rate=True),
        Ratio("accuracy", "forced_wrong", "one", is_rate=True, complement=True),
    )
    tables = []
    for source, length, part in each_group(tokens):
        confidence = part["forced_confidence"].to_numpy(dtype=float)
        bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
        starts = [i / N_BINS for i in range(N_BINS)]
        table = ratio_table(part, bins, starts, ratios, resampling)
        gap = (table["accuracy"] - table["confidence"]).abs()
        error = float(np.average(gap, weights=table["n_rows"]))
        tables.append(table.assign(source=source, length=length, calibration_error=error))
    if not tables:
        return pd.DataFrame()
    found = pd.concat(tables, ignore_index=True)
    found = found.rename(columns={"group": "confidence_from", "n_rows": "n_tokens"})
    return found.assign(encoder=measurement.encoder, probe=measurement.probe)
