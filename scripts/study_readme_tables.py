"""The tables of the README's section on the study, as lines of Markdown; see study_readme.py."""

from collections.abc import Collection, Sequence
from itertools import pairwise, product

import pandas as pd
from study_figures import LENGTH, Committed
from study_runs import PROBE_RATES
from study_token_counts import CORPUS, OTHER, PILE

from selmem.analysis.measurements import POOLED
from selmem.tables import WHOLE_TEXT, length_name

EFFECTS = {
    "encoder": "rare to the encoder",
    "reader": "rare to the reader",
    "interaction": "both agree on it",
    "match": "both agree (other words)",
}
MEMORY_LENGTHS = (16, 64)
COUNTED = {
    "omission_aligned": "omission",
    "recovered_fraction": "share recovered",
    "null_bits": "null bits",
}
OUTCOMES = {
    "omission_aligned": ("omission (aligned), points", 100, ".1f"),
    "recovered_bits": ("recovered bits per word", 1, ".2f"),
    "recovered_fraction": ("recovered fraction, points", 100, ".1f"),
}


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
    compared = f" ({row['note']})" if row["claim"] in ("size", "length") else ""
    return f"{row['verdict']}{compared}<br>{effect_text(row)}"


def scaled(row: pd.Series, name: str) -> str:
    """Return a difference in points, or a correlation, with its sign."""
    scale, form = (1, "+.2f") if "correlation" in row["measure"] else (100, "+.1f")
    return format(scale * row[name], form)


def effect_text(row: pd.Series) -> str:
    """Return what a verdict rests on, with its interval."""
    value, low, high = (scaled(row, n) for n in ("ours_controlled", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def causal_table(committed: Committed) -> list[str]:
    """Return every effect of the causal experiment, a row for each effect and length."""
    table = committed.table("causal").query("seed == 'all' and group in ('all', 'other words')")
    rows = []
    for length in sorted(table["length"].unique()):
        for effect, name in EFFECTS.items():
            own = table[(table["length"] == length) & (table["effect"] == effect)]
            own = own.set_index("outcome")
            cells = [ends(own.loc[o], scale, form) for o, (_, scale, form) in OUTCOMES.items()]
            rows.append([name, length_name(int(length)), *cells])
    return _grid(["", "length", *(label for label, *_ in OUTCOMES.values())], rows)


def ends(row: pd.Series, scale: float, form: str, value: str = "value") -> str:
    """Return a value with its interval."""
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
            ends(row, 100, ".2f", "difference"),
        ]
        for _, row in table.sort_values(["second", "length"]).iterrows()
    ]
    return _grid(["reader", "length", "plain probe", "this reader", "difference, points"], rows)


def agreement(committed: Committed, name: str, outcome: str = "recovered_fraction") -> str:
    """Return which share of the cells of runs made again lies in the intervals of the first.

    Args:
        committed: the tables.
        name: in the names of the runs; several give the smallest and the largest share.
        outcome: of the table `reruns`.
    """
    table = committed.table("reruns")
    table = table[table["run"].str.contains(name) & (table["outcome"] == outcome)]
    shares = [f"{100 * share:.0f}" for share in table.groupby("run")["inside"].mean().sort_values()]
    return " to ".join(dict.fromkeys([shares[0], shares[-1]])) + " %"


def in_order(sizes: Collection[str]) -> list[str]:
    """Return sizes from the smallest to the largest."""
    return [size for size in PROBE_RATES if size in sizes]


def _cells(committed: Committed, run: str, length: int) -> pd.DataFrame:
    table = committed.table("reruns")
    of = (table["run"] == run) & (table["length"] == length)
    return table[of & (table["outcome"] == "recovered_fraction")]


def shift(committed: Committed, run: str, length: int) -> str:
    """Return by how many points the recovered fractions of a run made again lie higher, median."""
    cells = _cells(committed, run, length)
    return format(100 * (cells["value_again"] - cells["value"]).median(), ".1f")


def rank_agreement(committed: Committed, run: str, length: int) -> str:
    """Return the rank correlation of the recovered fractions of a run and of it made again."""
    cells = _cells(committed, run, length)
    return format(cells["value"].corr(cells["value_again"], method="spearman"), ".2f")


def loss_ratio(committed: Committed, scheme: str, tag: str, other: str, size: str) -> str:
    """Return the share of null bits lost of a class, as a multiple of that lost of another."""
    table = committed.family("omission")
    of = (table["size"] == size) & (table["length"] == LENGTH) & (table["rule"] == "count")
    lost = 1 - table[of & (table["scheme"] == scheme)].set_index("tag")["recovered_fraction"]
    return format(lost[tag] / lost[other], ".2f")


def order_holds(committed: Committed) -> bool:
    """Return whether the fewest tokens of each size's probe beat the most of the next smaller."""
    table = committed.table("convergence")
    table = table[table["kind"] == "probe"]
    most = table.groupby(["size", "length"])["bits_after"].min().unstack()
    fewest = table.groupby(["size", "length"])["bits"].max().unstack()
    better = [(fewest.loc[b] < most.loc[a]).all() for a, b in pairwise(in_order(most.index))]
    return len(better) > 0 and all(better)


def weak_null(committed: Committed, size: str, length: int) -> str:
    """Return in how many sources the null probe has more bits than the encoder without a state."""
    table = committed.family("controls", pooled=False)
    of = (table["size"] == size) & (table["length"] == length) & (table["source"] != POOLED)
    bits = table[of].pivot_table(index="source", columns="condition", values="bits")
    return f"{(bits['null'] > bits['encoder from empty state']).sum()} of {len(bits)}"


def same_weights(committed: Committed, run: str, first: str) -> bool:
    """Return whether two runs gave the same encoder, probe and null probe, bit for bit."""
    table = committed.table("trainings")
    names = table["training"].str.rpartition("/")[2]
    ours, theirs = (
        table[names == name].set_index("kind")["weights_sha256"] for name in (run, first)
    )
    return len(ours) == len(theirs) == 3 and bool((ours != "").all() and ours.equals(theirs))


def token_count_table(committed: Committed) -> list[str]:
    """Return what goes with each count of tokens, a row for each length and count."""
    table = committed.table("token_counts")
    own = table.set_index(["length", "predictor", "outcome", "adjusted_for"]).sort_index()
    cells = list(product(COUNTED, ("", OTHER)))
    rows = []
    for length, name in product(sorted(set(table["length"])), (CORPUS, PILE)):
        found = (ends(own.loc[(length, name, *c)], 1, ".2f", "correlation") for c in cells)
        rows.append([name, length_name(length), *found])
    heads = ["", "length", *(COUNTED[o] + (held and ", other held") for o, held in cells)]
    return _grid(heads, rows)


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
