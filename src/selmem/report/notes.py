"""What a report says about what is missing or doubtful in its tables."""

from collections.abc import Iterator, Mapping

import pandas as pd

from selmem.analysis.measurements import Measurement
from selmem.analysis.omission import SCHEMES
from selmem.statistics import MIN_DOCUMENTS_INTERVAL, MIN_DOCUMENTS_TEST
from selmem.tables import WHOLE_TEXT, length_name

_ANNOTATIONS = {"pos": "parts of speech", "entity": "entities", "kind": "kinds of token"}


def notes(measurement: Measurement, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return sentences on what one measurement lacks, and how to mend it.

    Args:
        measurement: the tables that were read.
        tables: of this measurement, as `analyse` returns them.
    """
    return [
        *_missing_parts(measurement),
        *_few_documents(measurement),
        *_undertrained(tables["bits"]),
        *_too_short(tables["too_short"]),
    ]


def _missing_parts(measurement: Measurement) -> Iterator[str]:
    words = measurement.words
    if not measurement.has_null:
        yield (
            "No null probe was measured, so there are no recovered bits and no chance level for "
            "the rule forced; measure again with --null-probe."
        )
    if not len(words):
        yield "No word was annotated, so nothing is reported by class of word."
    else:
        for scheme in SCHEMES:
            if words[scheme].isna().all():
                yield f"No source has {_ANNOTATIONS[scheme]}, so nothing is reported by them."
        if words["chance_count"].isna().any():
            yield "Some sources have too few documents to say what chance alone would match."
        if words["log10_word_frequency"].isna().all():
            yield (
                "No word counts were given, so rarity is not analysed; count a corpus with "
                "`selmem count` and measure again with --frequencies."
            )
    if not measurement.controls:
        yield "No controls were measured; measure again with --controls."


def _few_documents(measurement: Measurement) -> Iterator[str]:
    counts = measurement.chunks.groupby(["source", "length"], observed=True)["document"].nunique()
    for limit, what in (
        (MIN_DOCUMENTS_INTERVAL, "no interval is given"),
        (MIN_DOCUMENTS_TEST, "nothing is tested"),
    ):
        few = counts[counts < limit]
        if len(few):
            sources = ", ".join(sorted({str(source) for source, _ in few.index}))
            yield f"Below {limit} documents {what}: so for some lengths of {sources}."


def _undertrained(bits: pd.DataFrame) -> Iterator[str]:
    flagged = bits[bits["null_undertrained"].astype(bool) & (bits["positions"] == "all")]
    if len(flagged):
        cells = [
            f"{source} ({length_name(n)})"
            for source, n in zip(flagged["source"], flagged["length"], strict=True)
        ]
        yield (
            "The null probe is worse than the encoder reading from an empty state, so it is "
            f"under-trained and recovered bits are too high there: {', '.join(cells)}."
        )


def _too_short(cells: pd.DataFrame) -> Iterator[str]:
    for source, rows in cells[cells["length"] != WHOLE_TEXT].groupby("source"):
        lengths = ", ".join(str(n) for n in rows["length"])
        yield f"No document of {source} is long enough for {lengths} tokens."
    for source in cells.loc[cells["length"] == WHOLE_TEXT, "source"]:
        yield f"No document of {source} is short enough to be measured whole."
