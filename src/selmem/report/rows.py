"""The report's tables as rows of text."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from selmem.analysis.measurements import POOLED
from selmem.figures.bars import TAG_NAMES
from selmem.report.text import MISSING, interval, number, percent, signed
from selmem.tables import length_name

SCHEME_TITLES: Mapping[str, str] = {
    "all": "All words",
    "pos": "Part of speech",
    "pos_without_last_4": "Part of speech, without words that reach into the last four tokens",
    "entity": "Entity",
    "kind": "Kind of token",
}
_TAGS = {
    **TAG_NAMES,
    "whole": "whole words",
    "without_last_4": "without the last four tokens",
    "cut": "cut by a chunk border",
}

MOST_NAMED = 4  # sources in a note


@dataclass(frozen=True)
class TextTable:
    """A table ready to print: a title, column heads, and rows of cells."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def headline_table(omission: pd.DataFrame, lengths: pd.DataFrame) -> TextTable:
    """Return one row per length with the main numbers.

    Args:
        omission: rows of one source.
        lengths: rows of the same source.
    """
    words = omission[(omission["scheme"] == "all") & (omission["rule"] == "count")]
    by_tag = {tag: words[words["tag"] == tag].set_index("length") for tag in _TAGS}
    rows = []
    for _, row in lengths.sort_values("length").iterrows():
        length = int(row["length"])
        cells = [length_name(length), f"{row['n_documents']:,}", f"{row['n_chunks']:,}"]
        cells.append(percent(float(row["tokens_in_place"])))
        cells += _word_cells(by_tag, length)
        rows.append([*cells, percent(float(row["exact_match"]))])
    heads = (
        "length", "documents", "chunks", "tokens in place", "words omitted (count)",
        "by chance", "omitted, without last four", "null bits recovered", "exact chunks",
    )  # fmt: skip
    return TextTable("", heads, rows)


def _word_cells(by_tag: Mapping[str, pd.DataFrame], length: int) -> list[str]:
    if length not in by_tag["whole"].index:
        return [MISSING] * 4
    whole = by_tag["whole"].loc[[length]].to_dict("records")[0]
    early = by_tag["without_last_4"]
    return [
        _rate_cell(whole),
        percent(whole["chance_rate"]),
        _rate_cell(early.loc[[length]].to_dict("records")[0]) if length in early.index else MISSING,
        _with(
            percent(whole["recovered_fraction"]),
            interval(whole["recovered_low"], whole["recovered_high"], int(whole["n_documents"])),
        ),
    ]


def _rate_cell(row: Mapping[Hashable, Any]) -> str:
    ends = interval(row["ci_low"], row["ci_high"], int(row["n_documents"]))
    return _with(percent(row["omission_rate"]), ends)


def omission_tables(omission: pd.DataFrame) -> list[TextTable]:
    """Return a table for each scheme and length, of one source."""
    heads = (
        "class", "words", "documents", "tokens per word", "omitted (count), %", "by chance, %",
        "retained over chance, %", "omitted (aligned), %", "omitted (forced), %",
        "null bits recovered, %",
    )  # fmt: skip
    tables = []
    for scheme, title in SCHEME_TITLES.items():
        part = omission[omission["scheme"] == scheme]
        for length, rows in part.groupby("length"):
            order = [tag for tag in _TAGS if scheme == "all"] or _by_omission(rows)
            cells = [_tag_cells(tag, rows[rows["tag"] == tag]) for tag in order if _has(rows, tag)]
            tables.append(TextTable(f"{title}, {length_name(int(str(length)))}", heads, cells))
    return tables


def _by_omission(rows: pd.DataFrame) -> list[str]:
    rates = rows[rows["rule"] == "count"].sort_values("omission_rate", ascending=False)
    return [str(tag) for tag in rates["tag"]]


def _has(rows: pd.DataFrame, tag: str) -> bool:
    return bool((rows["tag"] == tag).any())


def _tag_cells(tag: str, rows: pd.DataFrame) -> list[str]:
    by_rule = {str(row["rule"]): row for row in rows.to_dict("records")}
    count = by_rule["count"]
    n = int(count["n_documents"])
    omitted = {
        rule: f"{_hundred(row['omission_rate'])} {interval(row['ci_low'], row['ci_high'], n)}"
        for rule, row in by_rule.items()
    }
    recovered = interval(count["recovered_low"], count["recovered_high"], n)
    retained = interval(count["retained_low"], count["retained_high"], n)
    return [
        _TAGS.get(tag, tag),
        f"{count['n_words']:,}",
        f"{n:,}",
        number(count["tokens_per_word"], 2),
        omitted["count"],
        _hundred(count["chance_rate"]),
        _with(_hundred(count["retained_over_chance"]), retained),
        omitted["aligned"],
        omitted["forced"],
        _with(_hundred(count["recovered_fraction"]), recovered),
    ]


def _hundred(value: float) -> str:
    return number(100 * value)


def _with(value: str, ends: str) -> str:
    return value if value == MISSING else f"{value} {ends}".strip()


@dataclass(frozen=True)
class VerdictRow:
    """One line of the verdict table."""

    statement: str  # empty where it is the same as above; so are `paper` and `note`
    length: str
    paper: str
    ours_paper_rule: str
    ours_controlled: str
    n_documents: str
    verdict: str
    kind: str  # class of the verdict, for its colour
    note: str


def verdict_rows(verdicts: pd.DataFrame) -> list[VerdictRow]:
    """Return the lines of the verdict table of one model."""
    rows: list[VerdictRow] = []
    above: tuple[str, str, str] = ("", "", "")
    for row in verdicts.to_dict("records"):
        note = "; ".join(part for part in (row["measure"], shortened(row["note"])) if part)
        texts = (str(row["statement"]), str(row["paper"] or MISSING), note)
        is_new = texts[0] != above[0]
        shown = [t if is_new or t != a else "" for t, a in zip(texts, above, strict=True)]
        rows.append(_verdict_row(row, *shown))
        above = texts
    return rows


def shortened(note: str) -> str:
    """Return a note that names some of many sources; `verdicts.parquet` names them all.

    >>> shortened("sources: a, b, c, d, e, f"), shortened("sources: a, b"), shortened("against 32")
    ('sources: a, b, c and 3 more', 'sources: a, b', 'against 32')
    """
    names = note.removeprefix("sources: ").split(", ")
    if not note.startswith("sources: ") or len(names) <= MOST_NAMED:
        return note
    shown = MOST_NAMED - 1
    return f"sources: {', '.join(names[:shown])} and {len(names) - shown} more"


def _verdict_row(row: Mapping[Hashable, Any], statement: str, paper: str, note: str) -> VerdictRow:
    is_correlation = "correlation" in row["measure"]
    unit = "" if is_correlation else " points"
    paper_rule, controlled = (
        signed(row[name], is_correlation=is_correlation)
        for name in ("ours_paper_rule", "ours_controlled")
    )
    low, high = (
        signed(row[name], is_correlation=is_correlation, keep_sign=True)
        for name in ("ci_low", "ci_high")
    )
    if controlled != MISSING:
        controlled += f"{unit} [{low}, {high}]" if MISSING not in (low, high) else unit
    return VerdictRow(
        statement=statement,
        length=length_name(int(row["length"])),
        paper=paper,
        ours_paper_rule=paper_rule + unit if paper_rule != MISSING else MISSING,
        ours_controlled=controlled,
        n_documents=f"{row['n_documents']:,}" if row["n_documents"] else MISSING,
        verdict=row["verdict"],
        kind=row["verdict"].replace(" ", "-"),
        note=note,
    )


def model_rows(models: pd.DataFrame) -> TextTable | None:
    """Return the paired differences between models over all sources; None for one model."""
    if not len(models):
        return None
    pooled = models[models["source"] == POOLED]
    models = pooled if len(pooled) else models
    rows = [
        [
            f"{row['first']} minus {row['second']}",
            row["source"],
            length_name(int(row["length"])),
            row["outcome"].replace("_", " "),
            _points(row),
            number(row["p_holm"], 4),
            f"{row['n_documents']:,}",
        ]
        for row in models.to_dict("records")
    ]
    heads = ("models", "source", "length", "outcome", "difference in loss", "p (Holm)", "documents")
    return TextTable("", heads, rows)


def _points(row: Mapping[Hashable, Any]) -> str:
    value, low, high = (
        signed(row[name], is_correlation=False) for name in ("difference", "ci_low", "ci_high")
    )
    return f"{value} points [{low}, {high}]"
