"""The published tables as panels of HTML, each with the rows that it shows as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from selmem.space.charts import Bar, Series, bar_table, curve_chart
from selmem.space.groups import SCHEMES, tag_label
from selmem.space.html_text import attribute, text_html
from selmem.space.published import Published, Row, require_published
from selmem.space.verdicts import verdict_table
from selmem.tables import OMISSION

RULES: Mapping[str, str] = {
    "aligned": "in its place in the order",
    "count": "anywhere, as often as in the text",
    "forced": "guessed from the true text before",
}
NO_TABLES = (
    "No tables are published with this page yet. `selmem measure` and `selmem report` make them; "
    "this page reads their Parquet files from its folder `tables`."
)
EARLY = "_without_last_4"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of the tables is to be shown.

    Attributes:
        model: probe as the tables name it.
        source: of the texts.
        length: of the chunks, in tokens; 0 for whole texts.
        scheme: pos, entity or kind.
        rule: aligned, count or forced.
        early: whether to leave out words in the last four tokens, which are nearly free.
    """

    model: str
    source: str
    length: int
    scheme: str
    rule: str
    early: bool = False


@dataclass(frozen=True, kw_only=True)
class Panels:
    """HTML of the four panels."""

    tags: str
    lengths: str
    positions: str
    verdicts: str


def first_selection(published: Published) -> Selection | None:
    """Return what the page shows at first; None where there are no tables."""
    if not published.models:
        return None
    model = published.models[0]
    return nearest_selection(
        published,
        Selection(model=model, source="", length=64, scheme="pos", rule="aligned"),
    )


def nearest_selection(published: Published, wanted: Selection) -> Selection:
    """Return the selection with source and length replaced where the model has no such rows.

    Raises:
        InputError: there are no tables of the model.
    """
    require_published(published, wanted.model)
    sources = published.options("source", probe=wanted.model)
    source = wanted.source if wanted.source in sources else sources[0]
    lengths = published.options("length", probe=wanted.model, source=source)
    length = min(lengths, key=lambda length: abs(length - wanted.length))
    return Selection(
        model=wanted.model,
        source=source,
        length=length,
        scheme=wanted.scheme,
        rule=wanted.rule,
        early=wanted.early,
    )


def panels(published: Published, selection: Selection) -> Panels:
    """Return the panels of a selection.

    Raises:
        InputError: there are no tables of the model.
    """
    require_published(published, selection.model)
    return Panels(
        tags=_tag_panel(tag_rows(published, selection), selection),
        lengths=_length_panel(length_rows(published, selection), selection),
        positions=_position_panel(position_rows(published, selection), selection),
        verdicts=_verdict_panel(
            published.rows("verdicts", probe=selection.model), selection.length
        ),
    )


def tag_rows(published: Published, selection: Selection) -> list[Row]:
    """Return the published rows behind the bars, the most frequent tag first."""
    rows = published.rows(
        "omission",
        probe=selection.model,
        source=selection.source,
        length=selection.length,
        scheme=selection.scheme + (EARLY if selection.early else ""),
        rule=selection.rule,
    )
    named = [{name: row[name] for name in OMISSION.names} for row in rows]
    return sorted(named, key=lambda row: (-row["n_words"], row["tag"]))


def length_rows(published: Published, selection: Selection) -> list[Row]:
    """Return the published rows behind the curve over lengths, by tag and length."""
    rows = published.rows(
        "omission",
        probe=selection.model,
        source=selection.source,
        scheme="all",
        rule=selection.rule,
    )
    named = [{name: row[name] for name in OMISSION.names} for row in rows if row["length"] > 0]
    return sorted(
        (row for row in named if row["tag"] in {"whole", "without_last_4"}),
        key=lambda row: (row["tag"] != "whole", row["length"]),
    )


def position_rows(published: Published, selection: Selection) -> list[Row]:
    """Return the published rows behind the curve over positions."""
    rows = published.rows(
        "positions",
        probe=selection.model,
        source=selection.source,
        length=selection.length,
        scale="relative",
    )
    return sorted(rows, key=lambda row: row["position"])


def csv_text(rows: Sequence[Row]) -> str:
    """Return the rows as CSV with a header; empty where there are none."""
    if not rows:
        return ""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _csv_link(rows: Sequence[Row], name: str) -> str:
    """Return a link that holds the rows itself, so that the server keeps no file."""
    return (
        f'<a class="sm-csv" download="{attribute(name)}.csv" '
        f'href="data:text/csv;charset=utf-8,{quote(csv_text(rows))}">'
        f"CSV ({len(rows)} rows)</a>"
    )


def _tag_panel(rows: Sequence[Row], selection: Selection) -> str:
    scheme = SCHEMES[selection.scheme].lower()
    where = f"{selection.source}, {_chunks(selection.length)}"
    if not rows:
        return _message(f"{where}: no words have a {scheme} in the published tables.")
    bars = [
        Bar(
            label=tag_label(selection.scheme, row["tag"]),
            value=row["omission_rate"],
            low=_finite(row["ci_low"]),
            high=_finite(row["ci_high"]),
            count=f"{row['n_words']:,}",
            beside=_finite(row["chance_rate"]),
        )
        for row in rows
    ]
    caption = (
        f"Words not recovered, by {scheme}: {where}, {_rule(selection)}. Thin line: 95 % interval "
        "by resampling documents (none below ten documents); diamond: what chance alone would give."
    )
    headings = (SCHEMES[selection.scheme], "not recovered", "words", "by chance")
    table = bar_table(bars, headings, caption=caption)
    return table + _csv_link(rows, f"omission-{selection.scheme}-{selection.length}")


def _length_panel(rows: Sequence[Row], selection: Selection) -> str:
    tags = {"whole": "all words", "without_last_4": "without the last four tokens"}
    series = []
    for tag, name in tags.items():
        own = [row for row in rows if row["tag"] == tag]
        if own:
            series.append(_series(name, own, "length", "omission_rate", "ci_low", "ci_high"))
    by_chance = [row for row in rows if row["tag"] == "whole" and _finite(row["chance_rate"])]
    if by_chance:
        points = [(row["length"], row["chance_rate"]) for row in by_chance]
        series.append(Series(name="by chance", points=points))
    if not series:
        return _message("There are no published rates by length for this source.")
    ticks = [(length, str(length)) for length in sorted({row["length"] for row in rows})]
    chart = curve_chart(
        series,
        title=f"Words not recovered, by length of the text: {selection.source}, {_rule(selection)}",
        x_label="length of the text (tokens)",
        x_ticks=ticks,
        log2=True,
    )
    return chart + _csv_link(rows, "omission-by-length")


def _position_panel(rows: Sequence[Row], selection: Selection) -> str:
    if not rows:
        return _message("No table of positions is published for this source and length.")
    series = [
        _series(name, rows, "position", column, f"{column}_low", f"{column}_high")
        for name, column in (
            ("guessed wrong, true text before given", "forced_omission_rate"),
            ("not written back in order", "aligned_omission_rate"),
        )
    ]
    last = max(row["position"] for row in rows)
    chart = curve_chart(
        series,
        title=f"Tokens lost, by place in the text: {selection.source}, {_chunks(selection.length)}",
        x_label="place in the text",
        x_ticks=[(0, "start"), (last / 2, "middle"), (last, "end")],
    )
    return chart + _csv_link(rows, f"positions-{selection.length}")


def _verdict_panel(rows: Sequence[Row], length: int) -> str:
    if not rows:
        return _message("No verdicts on the paper's claims are published for this model.")
    return verdict_table(rows, length) + _csv_link(rows, "verdicts")


def _series(name: str, rows: Sequence[Row], x: str, y: str, low: str, high: str) -> Series:
    known = [row for row in rows if _finite(row[y]) is not None]
    ends = [(_finite(row[low]), _finite(row[high])) for row in known]
    return Series(
        name=name,
        points=[(row[x], row[y]) for row in known],
        intervals=[None if a is None or b is None else (a, b) for a, b in ends],
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or value != value else value


def _rule(selection: Selection) -> str:
    early = ", without the last four tokens" if selection.early else ""
    return f"counted as recovered if {RULES[selection.rule]}{early}"


def _chunks(length: int) -> str:
    return f"texts of {length} tokens" if length else "whole texts"


def _message(text: str) -> str:
    return f'<p class="sm-nothing">{text_html(text)}</p>'
