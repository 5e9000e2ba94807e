"""The README's section on the study, and what was found, from committed tables alone.

The section is written from study_section.md.jinja, the findings (for README and dataset card) from
study_findings.md.jinja. The templates hold no number of a result; they ask for it by the functions
of `context`. readme_tables.py writes what is made here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from study_figures import FIGURES, LENGTH, OF_CARDS, Committed
from study_runs import PROBE_RATES

from selmem.analysis.measurements import POOLED
from selmem.tables import WHOLE_TEXT, length_name

SCRIPTS = Path(__file__).resolve().parent
CAPTIONS: Mapping[str, str] = {
    "retention": "What comes back against the length of the chunk, by size. Left and middle: all "
    "words of all sources, at 16 tokens also the beginnings of the dialect pairs. Right: the same "
    "words of the same documents at every length. Bands are 95 % intervals by document.",
    "classes": "Words not recovered (rule count; grey: by chance) and null bits recovered, by part "
    "of speech and, below the line, by the most frequent entities, with 95 % intervals; n is the "
    "number of words.",
    "sources": "Words not recovered (grey: by chance) and null bits recovered, by source.",
    "positions": "Null bits recovered along the chunk, by size.",
    "claims": "The effects behind the verdicts, positive where the claim holds. Hollow: without "
    "an interval.",
    "rarity": "Rank correlation of a word type's frequency with what is lost of it (adjusted: "
    "tokens per word held fixed), and how much more of a text in African-American English is lost "
    "than of its Standard version.",
    "state": "Readers of parts of the state, and what the exchange of one layer's state for "
    "another document's costs.",
    "causal": "What the rarity of a word in the encoder's and in the reader's corpus does to it, "
    "with 95 % intervals over word pairs.",
    "learning_curves": "Held-out bits against tokens seen.",
}
EFFECTS = {
    "encoder": "rare to the encoder",
    "reader": "rare to the reader",
    "interaction": "both agree on it",
    "match": "both agree (other words)",
}
MEMORY_LENGTHS = (16, 64)
OUTCOMES = {
    "omission_aligned": ("omission (aligned), points", 100, ".1f"),
    "recovered_bits": ("recovered bits per word", 1, ".2f"),
    "recovered_fraction": ("recovered fraction, points", 100, ".1f"),
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


def context(committed: Committed) -> dict[str, Any]:
    """Return what the templates may use; every number comes from a committed table."""

    def value(name: str, column: str, form: str = ".2f", scale: float = 1, **where: Any) -> str:
        return format(scale * lookup(committed, name, **where)[column], form)

    def words(size: str, length: int, column: str = "recovered_fraction", **where: Any) -> str:
        cell = {"source": POOLED, "scheme": "all", "tag": "whole", "rule": "count", **where}
        return value("omission", column, ".1f", 100, size=size, length=length, **cell) + " %"

    def effect(claim: str, size: str, length: int = LENGTH) -> str:
        return _effect(lookup(committed, "verdicts", claim=claim, size=size, length=length))

    def paper(claim: str, size: str, length: int = LENGTH) -> str:
        row = lookup(committed, "verdicts", claim=claim, size=size, length=length)
        return _scaled(row, "ours_paper_rule")

    drawn = {path.stem for path in committed.figures.glob("*.png")}
    tables = {
        "family": family_table,
        "verdicts": verdict_table,
        "causal": causal_table,
        "memories": memory_table,
        "convergence": convergence_table,
        "readers": reader_table,
        "reruns": rerun_table,
    }
    return {
        "value": value,
        "words": words,
        "effect": effect,
        "paper": paper,
        "has": committed.has,
        "sizes": list(committed.folders()),
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


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(line)} |" for line in (heads, *rows)]
    return [lines[0], "|---" * len(heads) + "|", *lines[1:]]


def family_table(committed: Committed) -> list[str]:
    """Return a row for each size: shape of the training and held-out bits."""
    trainings = committed.table("trainings")
    trainings = trainings[trainings["variant"] == ""]
    rows = []
    for size in PROBE_RATES:
        own = trainings[trainings["size"] == size].set_index("kind")
        if "encoder" not in own.index:
            continue
        row = own.loc["encoder"]
        bits = [
            f"{own.loc[kind, f'bits_{LENGTH}']:.2f}" if kind in own.index else ""
            for kind in ("probe", "null probe")
        ]
        inner = row["n_parameters"] - row["n_embedding_parameters"]
        rows.append(
            [
                f"`mamba-own-{size}`",
                f"{inner:,}",
                f"{row['n_embedding_parameters']:,}",
                f"{row['tokens'] / 1e6:,.0f} M",
                f"{row['passes']:.1f}",
                f"{row['tokens_per_parameter']:,.0f}",
                f"{row['bits_512']:.2f}",
                *bits,
            ]
        )
    heads = ["model", "parameters", "and of embeddings", "tokens", "times the corpus"]
    heads += ["tokens a parameter", "bits, encoder", "bits, probe", "bits, null probe"]
    return _grid(heads, rows)


def verdict_table(committed: Committed) -> list[str]:
    """Return the verdict and the effect of every claim at every size."""
    table = committed.table("verdicts")
    table = table[table["verdict"] != "not measured"]
    sizes = list(committed.folders())
    rows = []
    for claim in dict.fromkeys(table["claim"]):
        own = table[table["claim"] == claim]
        length = LENGTH if LENGTH in set(own["length"]) else WHOLE_TEXT
        own = own[own["length"] == length].set_index("size")
        if len(own):
            cells = [_verdict(own.loc[size]) if size in own.index else "" for size in sizes]
            rows.append([str(own["statement"].iloc[0]), *cells])
    return _grid(["claim", *sizes], rows)


def _verdict(row: pd.Series) -> str:
    compared = f" ({row['note']})" if row["claim"] == "size" else ""
    return f"{row['verdict']}{compared}<br>{_effect(row)}"


def _scaled(row: pd.Series, name: str) -> str:
    """Return a difference in points, or a correlation, with its sign."""
    scale, form = (1, "+.2f") if "correlation" in row["measure"] else (100, "+.1f")
    return format(scale * row[name], form)


def _effect(row: pd.Series) -> str:
    value, low, high = (_scaled(row, n) for n in ("ours_controlled", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def causal_table(committed: Committed) -> list[str]:
    """Return every effect of the causal experiment, a row for each effect and length."""
    table = committed.table("causal").query("seed == 'all' and group in ('all', 'other words')")
    rows = []
    for length in sorted(table["length"].unique()):
        for effect, name in EFFECTS.items():
            own = table[(table["length"] == length) & (table["effect"] == effect)]
            own = own.set_index("outcome")
            cells = [_ends(own.loc[o], scale, form) for o, (_, scale, form) in OUTCOMES.items()]
            rows.append([name, length_name(int(length)), *cells])
    return _grid(["", "length", *(label for label, *_ in OUTCOMES.values())], rows)


def _ends(row: pd.Series, scale: float, form: str, value: str = "value") -> str:
    found = [format(scale * row[name], f"+{form}") for name in (value, "ci_low", "ci_high")]
    return f"{found[0]} [{found[1]}, {found[2]}]"


def memories(committed: Committed) -> pd.DataFrame:
    """Return the held-out bits of each causal encoder and of its two readers.

    Columns: model (the encoder's, T = 512), and READER_T for readers a and b, T = 16 and 64.
    """
    table = committed.table("trainings")
    table = table[table["variant"].str.startswith("causal")]
    names = table["variant"].str.removeprefix("causal ")
    models = table[table["kind"] == "encoder"].assign(encoder=names).set_index("encoder")
    columns = {"model": models["bits_512"]}
    for reader in "ab":
        probes = table[(table["kind"] == "probe") & names.str[2:3].eq(reader)]
        encoders = names[probes.index].str[:2] + names[probes.index].str[4:]
        for length in MEMORY_LENGTHS:
            bits = probes[f"bits_{length}"].set_axis(encoders.to_list())
            columns[f"{reader}_{length}"] = bits
    return pd.DataFrame(columns).dropna()


def memory_table(committed: Committed) -> list[str]:
    """Return the bits of each encoder as a language model, and of its readers, a row for each."""
    rows = [
        [f"corpus {name[0].upper()}, seed {name[-1]}", *(f"{bits:.2f}" for bits in row)]
        for name, row in memories(committed).iterrows()
    ]
    readers = [f"reader of {r}, T = {n}" for r in "AB" for n in MEMORY_LENGTHS]
    return _grid(["encoder", "as language model", *readers], rows)


def convergence_table(committed: Committed) -> list[str]:
    """Return what twice the tokens gain, a row for each reader."""
    table = committed.table("convergence")
    rows = []
    for (size, kind, _), part in table.groupby(["size", "kind", "against"], sort=False):
        own = part.set_index("length")
        tokens = own[["tokens", "tokens_after"]].iloc[0] / 1e6
        bits = [
            f"{row['bits']:.3f} to {row['bits_after']:.3f} ({-100 * row['gain']:+.2f} %)"
            for _, row in own.sort_index().iterrows()
        ]
        budget = f"{tokens.iloc[0]:,.0f} M to {tokens.iloc[1]:,.0f} M"
        rows.append([f"{size}, {kind}", budget, *bits, own["rule"].iloc[0]])
    return _grid(["reader", "tokens", "bits, T = 64", "bits, T = 256", "rule"], rows)


def reader_table(committed: Committed) -> list[str]:
    """Return how other readers of the same state compare with the plain probe."""
    table = committed.table("contrasts")
    of_readers = table["second"].str.contains("-") & (table["outcome"] == "recovered_fraction")
    table = table[of_readers & (table["source"] == POOLED)]
    rows = [
        [
            f"`{row['second']}`",
            length_name(row["length"]),
            f"{100 * row['first_value']:.1f} %",
            f"{100 * row['second_value']:.1f} %",
            _ends(row, 100, ".2f", "difference"),
        ]
        for _, row in table.sort_values(["second", "length"]).iterrows()
    ]
    return _grid(["reader", "length", "plain probe", "this reader", "difference, points"], rows)


def rerun_table(committed: Committed) -> list[str]:
    """Return how many cells of a run made again lie in the intervals of the first."""
    rows = []
    for (run, outcome), part in committed.table("reruns").groupby(["run", "outcome"], sort=False):
        inside, n = int(part["inside"].sum()), len(part)
        far = 100 * (part["value_again"] - part["value"]).abs()
        width = 50 * (part["high"] - part["low"])
        rows.append(
            [
                f"`{run}`",
                str(outcome).replace("_", " "),
                f"{inside:,} of {n:,} ({100 * inside / n:.0f} %)",
                f"{far.median():.2f}",
                f"{width.median():.2f}",
            ]
        )
    heads = ["run", "outcome", "cells inside", "median distance, points", "median half width"]
    return _grid(heads, rows)
