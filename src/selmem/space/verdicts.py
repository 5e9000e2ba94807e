"""The verdicts on the paper's claims at one length of text, with those at other lengths beside."""

import math
from collections.abc import Sequence
from typing import Any

from selmem.space.charts import caption_html
from selmem.space.html_text import EN_DASH, text_html

Row = dict[str, Any]

HEADINGS = (
    "claim of the paper",
    "in the paper",
    "here, by its rule",
    "here, after controls",
    "verdict",
    "at other lengths",
)
UNTESTED = ("not measured", "too short")


def length_label(length: int) -> str:
    """Return the length of chunks in tokens, of which 0 stands for whole texts."""
    return str(length) if length else "whole texts"


def verdict_table(rows: Sequence[Row], length: int) -> str:
    """Return one row for each claim.

    Args:
        rows: of the table `verdicts` of one probe, at every length.
        length: whose numbers are shown, in tokens; 0 for whole texts.
    """
    claims: dict[str, list[Row]] = {}
    for row in rows:
        claims.setdefault(row["statement"], []).append(row)
    head = "".join(f'<th scope="col">{text_html(name)}</th>' for name in HEADINGS)
    body = "".join(_claim(statement, own, length) for statement, own in claims.items())
    texts = f"texts of {length} tokens" if length else "whole texts"
    caption = (
        f"Claims of Hossain et al. 2025, on this model and {texts} of all sources together. "
        "Numbers are differences of rates (of correlations, for rare words), positive where the "
        "claim holds, with 95 % intervals that allow for the number of claims. The rule behind "
        "each verdict was fixed beforehand; below 30 documents none is decided."
    )
    return (
        f'{caption_html(caption)}<div class="sm-scroll"><table class="sm-plain sm-wide">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _claim(statement: str, rows: Sequence[Row], length: int) -> str:
    here = next((row for row in rows if row["length"] == length), None)
    shown = here or {"paper": rows[0]["paper"], "verdict": ""}
    return (
        f'<tr><th scope="row">{text_html(statement)}</th>'
        f"<td>{text_html(shown['paper'] or EN_DASH)}</td>"
        f'<td class="sm-number">{_signed(shown.get("ours_paper_rule"))}</td>'
        f'<td class="sm-number">{_with_interval(shown)}</td>'
        f"<td>{text_html(shown['verdict'] or EN_DASH)}</td>"
        f"<td>{text_html(_elsewhere([row for row in rows if row is not here]))}</td></tr>"
    )


def _elsewhere(rows: Sequence[Row]) -> str:
    """Return the verdicts of other lengths, shortest first, whole texts last."""
    by_verdict: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["length"] or math.inf):
        if row["verdict"] not in UNTESTED:
            by_verdict.setdefault(row["verdict"], []).append(length_label(row["length"]))
    found = [f"{', '.join(lengths)}: {verdict}" for verdict, lengths in by_verdict.items()]
    return "; ".join(found) or EN_DASH


def _with_interval(row: Row) -> str:
    low, high = (_signed(row.get(name)) for name in ("ci_low", "ci_high"))
    value = _signed(row.get("ours_controlled"))
    return value if EN_DASH in (low, high) else f"{value} [{low}, {high}]"


def _signed(value: float | None) -> str:
    if value is None or math.isnan(value):
        return EN_DASH
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
