"""Omission by tag, under each rule, with the rate that chance alone would give."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selmem.analysis.groups import Group, Ratio, each_group, ratio_table, recovered_ratio
from selmem.analysis.measurements import CONV_TOKENS, Measurement
from selmem.forked import forked_map
from selmem.resampling import Resampling
from selmem.tables import RULES

SCHEMES = ("pos", "entity", "kind")
WITHOUT_LAST = "without_last_4"
WHOLE, CUT = "whole", "cut"

INTERVALS = (
    "retained_low",
    "retained_high",
    "recovered_low",
    "recovered_high",
    "null_bits_per_word",
    "recovered_bits_per_word",
)


def omission_table(measurement: Measurement, resampling: Resampling) -> pd.DataFrame:
    """Return the published table `omission`, with further columns for intervals.

    Rows are scheme x tag x rule x source x length. Scheme `all` has the tags `whole` (every word
    that no chunk border cuts), `without_last_4` (those with no token among the last four) and
    `cut`. The other schemes leave cut words out; each stands a second time with the suffix
    `_without_last_4`. Words that a source does not annotate are in no row of that scheme.
    Chance for the rule `forced` is the null probe's own rate.

    Returns:
        The columns of `selmem.tables.OMISSION` and `INTERVALS`.
    """
    words = measurement.words
    words = words.assign(one=1.0, lost_bits=words["null_bits"] - words["recovered_bits"])

    def one(group: Group) -> pd.DataFrame:
        source, length, rows = group
        return _group_table(rows, resampling).assign(source=source, length=length)

    tables = forked_map(one, list(each_group(words)), resampling.workers)
    if not tables:
        return pd.DataFrame(columns=_columns())
    wide = pd.concat(tables, ignore_index=True)
    table = pd.concat([_rule_rows(wide, rule) for rule in RULES], ignore_index=True)
    return table.assign(encoder=measurement.encoder, probe=measurement.probe)[_columns()]


def _columns() -> list[str]:
    published = (
        "encoder probe source length scheme tag rule n_words n_documents omission_rate ci_low "
        "ci_high chance_rate retained_over_chance recovered_fraction tokens_per_word"
    )
    return [*published.split(), *INTERVALS]


def _group_table(words: pd.DataFrame, resampling: Resampling) -> pd.DataFrame:
    return pd.concat(
        [
            ratio_table(words, groups, labels, _ratios(), resampling).assign(scheme=scheme)
            for scheme, groups, labels in schemes(words)
            if (groups >= 0).any()
        ]
    )


def schemes(words: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.int64], Sequence[str]]]:
    """Yield (scheme, group of each word (-1 for none), names of the groups)."""
    cut = words["cut"].to_numpy()
    late = is_late(words)
    yield "all", np.where(cut, 1, 0), (WHOLE, CUT)
    yield "all", np.where(cut | late, -1, 0), (WITHOUT_LAST,)
    for scheme in SCHEMES:
        codes = words[scheme].cat.codes.to_numpy().astype(np.int64)
        labels = [str(name) for name in words[scheme].cat.categories]
        yield scheme, np.where(cut, -1, codes), labels
        yield f"{scheme}_{WITHOUT_LAST}", np.where(cut | late, -1, codes), labels


def is_late(words: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether a token of the word is among the last four of its chunk."""
    return (words["from_end"] <= CONV_TOKENS).to_numpy()


def _ratios() -> list[Ratio]:
    rates = [Ratio(f"omission_{rule}", f"omitted_{rule}", "one", is_rate=True) for rule in RULES]
    chances = [Ratio(f"chance_{rule}", f"chance_{rule}", "one", is_rate=True) for rule in RULES]
    retained = [
        Ratio(
            f"retained_{rule}",
            f"omitted_{rule}",
            f"chance_{rule}",
            is_relative=True,
            complement=True,
        )
        for rule in RULES
    ]
    others = [
        recovered_ratio("recovered"),
        Ratio("tokens_per_word", "n_tokens", "one"),
        Ratio("null_bits_per_word", "null_bits", "one"),
        Ratio("recovered_bits_per_word", "recovered_bits", "one"),
    ]
    return [*rates, *chances, *retained, *others]


_RENAMED: Mapping[str, str] = {
    "omission_{rule}": "omission_rate",
    "omission_{rule}_low": "ci_low",
    "omission_{rule}_high": "ci_high",
    "chance_{rule}": "chance_rate",
    "retained_{rule}": "retained_over_chance",
    "retained_{rule}_low": "retained_low",
    "retained_{rule}_high": "retained_high",
}


def _rule_rows(wide: pd.DataFrame, rule: str) -> pd.DataFrame:
    rows = wide[["source", "length", "scheme", "group", "n_rows", "n_documents"]]
    rows = rows.rename(columns={"group": "tag", "n_rows": "n_words"})
    for template, name in _RENAMED.items():
        rows[name] = wide[template.format(rule=rule)]
    rows["recovered_fraction"] = wide["recovered"]
    for name in ("recovered_low", "recovered_high", "tokens_per_word", *INTERVALS[-2:]):
        rows[name] = wide[name]
    return rows.assign(rule=rule)
