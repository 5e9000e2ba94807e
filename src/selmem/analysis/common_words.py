"""Length curves of the same words: those that chunks of every length compared hold whole.

Chunks of different lengths are cut from different documents, since short ones have no long chunk,
and hold other words, since a sample is drawn for each length. A curve over all of them mixes what
length does with what the texts are.
"""

import numpy as np
import pandas as pd

from selmem.analysis.groups import Ratio, each_group, ratio_table, recovered_ratio
from selmem.analysis.measurements import Measurement
from selmem.resampling import Resampling
from selmem.statistics import MIN_DOCUMENTS_TEST
from selmem.tables import RULES, WHOLE_TEXT

MIN_WORDS = 300  # in common, or else the shortest length is left out of the comparison


def common_word_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return omission and recovered fraction by length, over the words common to the lengths.

    Rows: source x length; columns omission_<rule> and recovered_fraction with `_low` and `_high`,
    `n_words` and `n_documents`, the same at every length. Empty where no two lengths share words.
    """
    words = common_words(measurement)
    words = words.assign(one=1.0, lost_bits=words["null_bits"] - words["recovered_bits"])
    ratios = [Ratio(f"omission_{r}", f"omitted_{r}", "one", is_rate=True) for r in RULES]
    ratios.append(recovered_ratio("recovered_fraction"))
    tables = [
        ratio_table(part, np.zeros(len(part), int), [source], ratios, resampling)
        .drop(columns="group")
        .assign(source=source, length=length)
        for source, length, part in each_group(words)
    ]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True).rename(columns={"n_rows": "n_words"})
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)


def common_words(measurement: Measurement) -> pd.DataFrame:
    """Return the words, once per length, that chunks of all lengths compared hold whole.

    Compared are all lengths but whole texts; where they share too little, without the shortest
    ones. A word is the same where it begins at the same token of the same document.
    """
    words = measurement.words
    words = words[~words["cut"] & (words["length"] != WHOLE_TEXT)]
    numbers = measurement.chunks["number"].to_numpy()
    place = numbers[words["chunk"]] * words["length"] + words["first_position"]
    words = words.assign(place=place)
    lengths = [n for n in measurement.lengths if n != WHOLE_TEXT]
    key = ["document", "place", "n_tokens"]
    for first in range(len(lengths) - 1):
        compared = words[words["length"].isin(lengths[first:])]
        times = compared.groupby(key)["length"].transform("nunique")
        shared = compared[times == len(lengths) - first]
        n_words = len(shared) // (len(lengths) - first)
        if n_words >= MIN_WORDS and shared["document"].nunique() >= MIN_DOCUMENTS_TEST:
            return shared
    return words.iloc[:0]
