"""What is recovered by chunk length, position in the chunk, and the encoder's own perplexity."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from selmem.analysis.groups import Group, Ratio, each_group, ratio_table, recovered_ratio
from selmem.analysis.measurements import CONV_TOKENS, Measurement
from selmem.forked import forked_map
from selmem.resampling import Resampling
from selmem.tables import RULES, WHOLE_TEXT

POSITION_BINS = 16
# where each bin starts; the last one is open
PERPLEXITY_BINS: Mapping[str, Sequence[float]] = {
    "steps of 5": [5.0 * i for i in range(21)],
    "half octaves": [0.0, *(2 ** (i / 2) for i in range(1, 33))],
}

_SCORES = ("rouge1_f1", "rouge2_f1", "rougeL_f1", "exact_match")
_TOKEN_RATIOS = (
    Ratio("forced_omission_rate", "forced_wrong", "one", is_rate=True),
    Ratio("aligned_omission_rate", "unaligned", "one", is_rate=True),
    recovered_ratio("recovered_fraction"),
)


def length_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return one row per source and length: what the greedy reconstructions score.

    `tokens_in_place` is the share of tokens that stand at their own position in the
    reconstruction. ROUGE and `exact_match` are means over chunks; eos_bits is -log2 p of the end.
    """
    chunks = measurement.chunks.assign(
        one=1.0,
        in_place=tokens_in_place(measurement),
    )
    ratios = [
        *(Ratio(name, name, "one", is_rate=True) for name in _SCORES),
        Ratio("eos_bits", "eos_bits", "one", is_positive=True),
        Ratio("tokens_in_place", "in_place", "n_tokens", is_rate=True),
    ]
    tables = []
    for source, length, part in each_group(chunks):
        table = ratio_table(part, np.zeros(len(part), int), [source], ratios, resampling)
        tables.append(table.assign(source=source, length=length))
    return _finished(tables, measurement, n_rows="n_chunks").drop(columns="group")


def tokens_in_place(measurement: Measurement) -> NDArray[np.float64]:
    """Return for each chunk how many tokens of its reconstruction stand where they should."""
    reference, reconstruction = measurement.reference_ids, measurement.reconstructed_ids
    chunk, position, truth = _flat(reference)
    starts = reconstruction.offsets.to_numpy()
    lengths = np.diff(starts)
    values = reconstruction.values.to_numpy()
    reached = position < lengths[chunk]
    guess = values[starts[chunk[reached]] + position[reached]]
    right = guess == truth[reached]
    return np.bincount(chunk[reached], right, minlength=len(reference)).astype(float)


def _flat(lists: pa.ListArray) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    starts = lists.offsets.to_numpy()
    lengths = np.diff(starts)
    chunk = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(lengths.sum()) - np.repeat(starts[:-1] - starts[0], lengths)
    return chunk, position, lists.values.to_numpy()[starts[0] : starts[-1]]


def position_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return token-level rates by position, per source and length.

    Scale `absolute` has one row per position, `relative` 16 equal bins of the chunk, and
    `relative_without_last_4` the same bins without the last four positions. The rates rest on
    forced decoding (and alignment, for comparison): greedy errors cascade.
    """
    tokens = _with_lost(measurement.tokens)
    groups = list(each_group(tokens[tokens["length"] != WHOLE_TEXT]))
    found = forked_map(partial(_positions, resampling=resampling), groups, resampling.workers)
    tables = [table for tables in found for table in tables]
    return _finished(tables, measurement, n_rows="n_tokens", group="position")


def _positions(group: Group, resampling: Resampling) -> list[pd.DataFrame]:
    source, length, part = group
    position = part["position"].to_numpy()
    relative = position * POSITION_BINS // length
    early = np.where(position < length - CONV_TOKENS, relative, -1)
    scales = {
        "absolute": (position, length),
        "relative": (relative, POSITION_BINS),
        "relative_without_last_4": (early, POSITION_BINS),
    }
    return [
        ratio_table(part, bins, range(n), _TOKEN_RATIOS, resampling).assign(
            source=source, length=length, scale=scale
        )
        for scale, (bins, n) in scales.items()
        if (bins >= 0).any()
    ]


def perplexity_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return omission and recovered fraction of chunks by the encoder's perplexity of them.

    Scale `steps of 5` has the source paper's bins (100 and more is one), `half octaves` bins whose
    ends are a factor of 1.41 apart. Only words that no chunk border cuts count.
    """
    chunks = _with_lost(chunk_omission(measurement))
    chunks = chunks[np.isfinite(chunks["encoder_perplexity"])]
    ratios = [
        *(Ratio(f"omission_{r}", r, "n_words", is_rate=True) for r in ("count", "aligned")),
        recovered_ratio("recovered_fraction"),
    ]
    tables = []
    for source, length, part in each_group(chunks):
        for scale, starts in PERPLEXITY_BINS.items():
            bins = np.searchsorted(starts, part["encoder_perplexity"], side="right") - 1
            table = ratio_table(part, bins, starts, ratios, resampling)
            tables.append(table.assign(source=source, length=length, scale=scale))
    return _finished(tables, measurement, n_rows="n_chunks", group="perplexity_from")


def chunk_omission(measurement: Measurement) -> pd.DataFrame:
    """Return the chunks with sums over their whole words: `n_words`, omitted ones and chance.

    Columns `count`, `aligned` and `forced` hold the omitted words, `chance_<rule>` what chance
    would omit (nan where it is unknown).
    """
    words = measurement.words[~measurement.words["cut"]]
    chunks = measurement.chunks.copy()
    n = len(chunks)
    chunks["n_words"] = np.bincount(words["chunk"], minlength=n).astype(float)
    for rule in RULES:
        chunks[rule] = np.bincount(words["chunk"], words[f"omitted_{rule}"], minlength=n)
        chance = words[f"chance_{rule}"].astype(float)
        chunks[f"chance_{rule}"] = np.bincount(words["chunk"], chance, minlength=n)
    return chunks


def bits_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return mean bits per token under probe, null probe and encoder, per source and length.

    `null_undertrained` flags rows in which the null probe is worse than the encoder's own
    prediction from an empty state, on the tokens that both have: recovered bits are then too high.
    """
    tokens = _with_lost(measurement.tokens)
    tokens["excess"] = tokens["null_bits"] - tokens["base_bits"]
    names = ("probe_bits", "null_bits", "base_bits", "recovered_bits")
    ratios = [
        *(Ratio(name, name, "one") for name in names),
        Ratio("null_minus_base", "excess", "one"),
        recovered_ratio("recovered_fraction"),
        Ratio("forced_accuracy", "forced_wrong", "one", is_rate=True, complement=True),
        Ratio("null_forced_accuracy", "null_wrong", "one", is_rate=True, complement=True),
    ]
    tables = []
    n_tokens = measurement.chunks["n_tokens"].to_numpy()
    for source, length, part in each_group(tokens):
        from_end = n_tokens[part["chunk"]] - part["position"].to_numpy()
        early = np.where(from_end > CONV_TOKENS, 1, -1)
        everything = np.zeros(len(part), int)
        for groups, labels in ((everything, ["all"]), (early, ["", "without_last_4"])):
            if (groups >= 0).any():
                table = ratio_table(part, groups, labels, ratios, resampling)
                tables.append(table.assign(source=source, length=length))
    found = _finished(tables, measurement, n_rows="n_tokens", group="positions")
    found["null_undertrained"] = found["null_minus_base"] > 0
    return found


def _with_lost(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(one=1.0, lost_bits=frame["null_bits"] - frame["recovered_bits"])


def _finished(
    tables: Sequence[pd.DataFrame],
    measurement: Measurement,
    *,
    n_rows: str,
    group: str = "group",
) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True).rename(columns={"n_rows": n_rows, "group": group})
    first = ["encoder", "probe", "source", "length"]
    table = table.assign(encoder=measurement.encoder, probe=measurement.probe)
    return table[[*first, *(name for name in table.columns if name not in first)]]
