"""The README's section on the study, and what was found, from committed tables alone.

The section is written from study_section.md.jinja, the findings (for README and dataset card) from
study_findings.md.jinja. The templates hold no number of a result; they ask for it by the functions
of `context`. readme_tables.py writes what is made here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from study_figures import FIGURES, LENGTH, OF_CARDS, Committed
from study_readme_tables import (
    agreement,
    causal_table,
    convergence_table,
    effect_text,
    ends,
    family_table,
    in_order,
    loss_ratio,
    memories,
    memory_table,
    order_holds,
    rank_agreement,
    reader_table,
    rerun_table,
    same_weights,
    scaled,
    shift,
    token_count_table,
    verdict_table,
    weak_null,
)
from study_runs import PROBE_RATES
from study_token_counts import OTHER

from selmem.analysis.measurements import POOLED

SCRIPTS = Path(__file__).resolve().parent
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
CAPTIONS: Mapping[str, str] = {
    "retention": "What comes back against the length of the chunk, by size. Left and middle: all "
    "words of all sources, at 16 tokens also the beginnings of the dialect pairs. Right: the same "
    "words of the same documents at every length. Bands are 95 % intervals by document.",
    "classes": "Words not recovered (rule count; grey: by chance) and null bits recovered, by part "
    "of speech and, below the line, by the most frequent entities, with 95 % intervals; n is the "
    "number of words. Entities have the names of their source's scheme: PER is gold, PERSON mostly "
    "spaCy's.",
    "sources": "Words not recovered (grey: by chance) and null bits recovered, by source.",
    "positions": "Null bits recovered in sixteenths of the chunk, by size, the true text before a "
    "token given.",
    "claims": "The effects behind the verdicts, positive where the claim holds, with Holm-adjusted "
    "intervals. Left in ROUGE or omission (count), as in the paper; right in the share of null "
    "bits not recovered. Longer texts: against 32 tokens. Hollow: without an interval.",
    "rarity": "Rank correlation of a word type's frequency with its omission and with what is "
    "recovered of it (adjusted: tokens and characters per word held fixed), and how much more of a "
    "text in African-American English is lost than of its Standard version, with plain 95 % "
    "intervals.",
    "state": "Readers of parts of the state, and what the exchange of one layer's state for "
    "another document's costs. A foreign state misleads the probe: the cost says what it relies "
    "on, not how much the layer holds.",
    "causal": "What the rarity of a word in the encoder's and in the reader's corpus does to it, "
    "with 95 % intervals over word pairs.",
    "learning_curves": "Held-out bits against tokens seen. Every curve ends with a low learning "
    "rate, so a flat end is no sign of convergence; the distance between the marks is.",
}


def lookup(committed: Committed, name: str, **where: Any) -> pd.Series:
    """Return the one row of a committed table that has these values.

    Raises:
        SystemExit: there is none, or there are several.
    """
    table = committed.family(name, pooled=False) if name in OF_CARDS else committed.table(name)
    for column, value in where.items():
        table = table[table[column] == value] if len(table) else table
    if len(table) != 1:
        raise SystemExit(f"the study's {name} has {len(table)} rows of {where}, expected one")
    return table.iloc[0]


def larger(committed: Committed) -> list[str]:
    """Return the sizes that were compared with a smaller one, in their order."""
    if not committed.has("verdicts"):
        return []
    table = committed.table("verdicts")
    found = set(table[(table["claim"] == "size") & (table["length"] == LENGTH)]["size"])
    return in_order(found)


def budgets(committed: Committed, against: str) -> list[str]:
    """Return the sizes whose probes were also trained on "twice" or "half" of the tokens."""
    if not committed.has("convergence"):
        return []
    table = committed.table("convergence")
    found = set(table[(table["against"] == against) & (table["kind"] == "probe")]["size"])
    return in_order(found)


def span(texts: Sequence[str]) -> str:
    """Return the range of values, and the outermost bounds of their intervals, as written.

    Args:
        texts: a value each, with its unit or with its interval in brackets.

    Examples:
        >>> span(["+12.3 [+9.6, +15.0]", "+10.2 [+7.7, +12.8]"])
        '+10.2 to +12.3 [+7.7, +15.0]'
        >>> span(["47.2 %", "86.5 %", "64.0 %"])
        '47.2 to 86.5 %'
    """
    found = [NUMBER.findall(text) for text in texts]
    values = [numbers[0] for numbers in found]
    bounds = [bound for numbers in found for bound in numbers[1:]]
    both = dict.fromkeys((min(values, key=float), max(values, key=float)))
    unit = " %" if texts[0].endswith(" %") else ""
    interval = f" [{min(bounds, key=float)}, {max(bounds, key=float)}]" if bounds else ""
    return " to ".join(both) + unit + interval


def context(committed: Committed) -> dict[str, Any]:
    """Return what the templates may use; every number comes from a committed table."""

    def value(name: str, column: str, form: str = ".2f", scale: float = 1, **where: Any) -> str:
        return format(scale * lookup(committed, name, **where)[column], form)

    def words(size: str, length: int, column: str = "recovered_fraction", **where: Any) -> str:
        cell = {"source": POOLED, "scheme": "all", "tag": "whole", "rule": "count", **where}
        return value("omission", column, ".1f", 100, size=size, length=length, **cell) + " %"

    def effect(claim: str, size: str, length: int = LENGTH) -> str:
        return effect_text(lookup(committed, "verdicts", claim=claim, size=size, length=length))

    def paper(claim: str, size: str, length: int = LENGTH) -> str:
        row = lookup(committed, "verdicts", claim=claim, size=size, length=length)
        return scaled(row, "ours_paper_rule")

    def causal(effect: str, length: int, outcome: str = "omission_aligned") -> str:
        cell = {"seed": "all", "group": "all", "outcome": outcome}
        row = lookup(committed, "causal", effect=effect, length=length, **cell)
        return ends(row, 100, ".1f")

    def state(condition: str, **where: Any) -> str:
        cell = {"source": POOLED, "condition": condition, **where}
        return value("controls", "recovered_fraction", ".1f", 100, **cell) + " %"

    def exchanged(rank: int, size: str, length: int) -> str:
        table = committed.family("controls").set_index(["size", "length"]).loc[(size, length)]
        costs = table[table["condition"].str.startswith("other_layer")]["bits_more_than_probe"]
        return format(costs.nlargest(rank).iloc[-1], ".2f")

    def reader(name: str, length: int) -> str:
        cell = {"source": POOLED, "outcome": "recovered_fraction"}
        row = lookup(committed, "contrasts", second=name, length=length, **cell)
        return ends(row, 100, ".1f", "difference")

    def gain(kind: str, size: str, length: int, against: str = "twice") -> str:
        cell = {"kind": kind, "size": size, "length": length, "against": against}
        return value("convergence", "gain", ".1f", 100, **cell) + " %"

    def left_out() -> str:
        table = committed.table("overlap")
        return f"{table['n_left_out'].sum():,} of {table['n_documents'].sum():,}"

    def shared(source: str = "") -> str:
        table = committed.table("overlap")
        table = table[table["source"] == source] if source else table
        return f"{100 * table['n_found_kept'].sum() / table['n_ngrams_kept'].sum():.1f} %"

    def token_rank(count: str, outcome: str, length: int, held: str = "") -> str:
        of = {"predictor": f"count in the {count}", "adjusted_for": held, "length": length}
        row = lookup(committed, "token_counts", outcome=outcome, **of)
        return ends(row, 1, ".2f", "correlation")

    def form_effect() -> str:
        table = committed.table("token_counts").query("adjusted_for != ''")
        of = ["length", "predictor", "outcome", "adjusted_for"]
        found = table.set_index(of)["correlation"].unstack()
        return format(found.sub(found[OTHER], axis=0).abs().max(axis=None), ".2f")

    sizes = list(committed.folders())

    def each(
        find: Callable[..., str], *args: Any, among: Sequence[str] = sizes, **named: Any
    ) -> str:
        return ", ".join(f"{find(*args, size=size, **named)} ({size})" for size in among)

    def over(
        find: Callable[..., str], *args: Any, among: Sequence[str] = sizes, **named: Any
    ) -> str:
        return span([find(*args, size=size, **named) for size in among])

    drawn = {path.stem for path in committed.figures.glob("*.png")}
    tables = {
        "family": family_table,
        "verdicts": verdict_table,
        "causal": causal_table,
        "memories": memory_table,
        "convergence": convergence_table,
        "readers": reader_table,
        "reruns": rerun_table,
        "token_counts": token_count_table,
    }
    return {
        "value": value,
        "words": words,
        "effect": effect,
        "paper": paper,
        "causal": causal,
        "state": state,
        "exchanged": exchanged,
        "reader": reader,
        "gain": gain,
        "agreement": partial(agreement, committed),
        "shift": partial(shift, committed),
        "rank_agreement": partial(rank_agreement, committed),
        "loss_ratio": partial(loss_ratio, committed),
        "order_holds": partial(order_holds, committed),
        "weak_null": partial(weak_null, committed),
        "same_weights": partial(same_weights, committed),
        "each": each,
        "over": over,
        "token_rank": token_rank,
        "form_effect": form_effect,
        "left_out": left_out,
        "shared": shared,
        "has": committed.has,
        "sizes": sizes,
        "larger": larger(committed),
        "budgets": partial(budgets, committed),
        "planned": len(PROBE_RATES),
        "memories": memories(committed) if committed.has("trainings") else pd.DataFrame(),
        "table": lambda name: marked(name, tables[name](committed)),
        "figure": lambda name: picture(name) if name in drawn else "",
        "links": lambda names: ", ".join(f"[{n}]({FIGURES}/{n}.png)" for n in names if n in drawn),
    }


def render(committed: Committed) -> dict[str, str]:
    """Return the README's section and the findings.

    Raises:
        SystemExit: a template asks for a number that no table has.
    """
    loader = jinja2.FileSystemLoader(SCRIPTS)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    known = context(committed)
    findings = ""
    if known["sizes"]:
        findings = environment.get_template("study_findings.md.jinja").render(known).strip()
    section = environment.get_template("study_section.md.jinja").render(known, findings=findings)
    return {"section": section.strip() + "\n", "findings": findings}


def marked(name: str, rows: Sequence[str]) -> str:
    """Return a table as it stands in the README."""
    return "\n".join([f"<!-- table: {name} -->", *rows, "<!-- end -->"])


def picture(name: str) -> str:
    """Return a figure and its caption."""
    caption = CAPTIONS[name]
    return f"![{caption.partition('. ')[0].rstrip('.')}]({FIGURES}/{name}.png)\n\n*{caption}*"
