"""A study that was never run: the folders that its release is made from, with made-up numbers."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from selmem import bundled_path
from selmem.cards.tables import collect_card_tables

TRIAL = Path(__file__).parents[1] / "scripts" / "results" / "trial"
BUNDLE = {"encoders": "mamba-tiny", "probes": "mamba-tiny-probe", "nulls": "mamba-tiny-null-probe"}
SIZES = {"1m": (160, 6), "4m": (256, 9), "15m": (416, 13), "45m": (608, 19)}  # width, layers
LOSSES = (
    "omission_rate",
    "ci_low",
    "ci_high",
    "forced_omission_rate",
    "bits",
    "bits_low",
    "bits_high",
)


def write_study(work, sizes=tuple(SIZES), *, variants=True):
    """Write a whole working folder."""
    for size in sizes:
        for kind in BUNDLE:
            write_training(work, f"{kind}/{size}", bits=1 - 0.1 * list(SIZES).index(size))
        write_report(work / "reports" / size, size, gain=0.06 * list(SIZES).index(size))
        card = work / "tables" / f"mamba-own-{size}-probe"
        collect_card_tables(work / "reports" / size, card)
    for kind in ("probes", "nulls") if variants else ():
        write_training(work, f"{kind}/1m-twice", bits=0.995, longer=2)
        write_training(work, f"{kind}/4m-half", bits=0.93, longer=0.5)
        write_training(work, f"{kind}/4m-twice", bits=0.88, longer=2)
        write_training(work, f"{kind}/1m-seed1", bits=1.002)
    for name, gain in {"1m-again": 0.001, "1m-seed1": 0.01}.items() if variants else ():
        write_report(work / "reports" / name, name, gain=gain)
    if variants:
        write_comparisons(work / "comparisons")
        write_effects(work / "causal" / "effects")
    return work


def write_training(work, path, *, bits, longer=1):
    """Write the records of a training: the bundled model's, with other bits and another width."""
    kind, name = path.split("/")
    width, layers = SIZES[name.partition("-")[0]]
    folder = work / path
    folder.mkdir(parents=True)
    read = bundled_path(BUNDLE[kind])
    config, record = (
        json.loads((read / file).read_text()) for file in ("config.json", "training.json")
    )
    config |= {"hidden_size": width, "num_hidden_layers": layers}
    config |= {"intermediate_size": 2 * width, "time_step_rank": math.ceil(width / 16)}
    if kind != "encoders":
        config["encoder_name_or_path"] = f"selmem/mamba-own-{name.partition('-')[0]}"
    for numbers in ("steps", "tokens", "best_step"):
        record[numbers] = round(record[numbers] * longer)
    record["settings"]["max_steps"] = record["steps"]
    record["held_out_bits"] = {n: bits * x for n, x in record["held_out_bits"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "training.json").write_text(json.dumps(record))
    rows = [json.loads(x) for x in (read / "learning_curve.jsonl").read_text().splitlines()]
    for row in rows:
        row["tokens"] = round(row["tokens"] * longer)
        row["held_out_bits"] = {n: bits * x for n, x in row["held_out_bits"].items()}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "learning_curve.jsonl").write_text(lines)


def write_report(folder, name, *, gain):
    """Write the tables of a report: those of the trial, with losses lowered by a share `gain`."""
    (folder / "tables").mkdir(parents=True)
    rng = np.random.default_rng(len(name))
    for path in TRIAL.glob("*.parquet"):
        table = pd.read_parquet(path)
        for column in table.select_dtypes("float"):
            if column.startswith("recovered_"):
                table[column] += gain * (1 - table[column]) * 0.9
            elif column in LOSSES or column.startswith("omission_"):
                table[column] *= 1 - gain
            elif column in ("ours_controlled", "ours_paper_rule", "correlation"):
                table[column] += rng.normal(0, 0.005, len(table))
        if "encoder" in table:
            table = table.assign(encoder=name, probe=name)
        if "retained_over_chance" in table:
            table["retained_over_chance"] = 1 - table["omission_rate"] / table["chance_rate"]
            for end, other in (("low", "high"), ("high", "low")):
                table[f"retained_{end}"] = 1 - table[f"ci_{other}"] / table["chance_rate"]
        if path.stem == "controls":
            table = controls(table)
        table.to_parquet(folder / "tables" / path.name)
    shutil.copyfile(folder / "tables/omission.parquet", folder / "omission.parquet")
    add_metadata(folder / "tables" / "omission.parquet")


def controls(table):
    """Return the controls of one source as those of all, at several lengths."""
    own = table[(table["source"] == "conll2003") & (table["length"] == 16)]
    rest = table[table["source"] != "all sources"]
    parts = [rest]
    for length in (16, 64, 256):
        whole = own.assign(source="all sources", length=length)
        readers = [
            whole[whole["condition"] == "probe"].assign(condition=name)
            for name in ("conv", "ssm", "deep")
        ]
        for i, reader in enumerate(readers):
            for column in ("bits", "bits_low", "bits_high"):
                reader[column] *= 1.5 + i
            for column in [c for c in reader if c.startswith("recovered_fraction")]:
                reader[column] *= 0.5 + 0.2 * i
        parts += [whole, *readers]
    return pd.concat(parts, ignore_index=True)


def add_metadata(path):
    """Give a table the metadata that a report writes."""
    import pyarrow.parquet as pq

    from selmem.tables import write_table

    write_table(pq.read_table(path), path, metadata={"runs": ["made up"]})


def write_comparisons(folder):
    """Write what study_contrasts.py writes."""
    for name in ("sizes", "readers", "token_counts"):
        (folder / name).mkdir(parents=True)
    rows = pd.read_parquet(TRIAL / "verdicts.parquet").query("claim == 'length'").head(2)
    rows = rows.assign(claim="size", statement="Smaller models lose more.", length=[64, 256])
    pairs = [f"{a} against {b}" for a, b in pairwise(SIZES)]
    table = pd.concat([rows.assign(note=pair) for pair in pairs])
    table = table.assign(encoder="several", probe="several")
    table.to_parquet(folder / "sizes/table.parquet")
    readers = [("4m-deep", 64, 0.01), ("4m-only64", 64, -0.02), ("4m-only256", 256, -0.03)]
    contrasts = pd.DataFrame(
        [
            {"first": "4m", "second": name, "source": "all sources", "length": length,
             "outcome": "recovered_fraction", "first_value": 0.6, "second_value": 0.6 + gain,
             "difference": gain, "ci_low": gain - 0.01, "ci_high": gain + 0.01, "p_value": 0.01,
             "n_documents": 300}
            for name, length, gain in readers
        ]
    )  # fmt: skip
    contrasts.to_parquet(folder / "readers/table.parquet")
    token_counts().to_parquet(folder / "token_counts/table.parquet")


def token_counts():
    """Return what study_token_counts.py writes: every correlation another one."""
    names = ["length", "predictor", "outcome", "adjusted_for"]
    rows = [
        (length, f"count in the {corpus}", outcome, held)
        for length in (16, 64, 256)
        for corpus in ("corpus", "Pile")
        for outcome in ("omission_aligned", "recovered_fraction", "null_bits", "recovered_bits")
        for held in ("", "other count", "other count, characters, leading space")
    ]
    rows += [(n, "count in the corpus", "count in the Pile", "") for n in (16, 64, 256)]
    value = np.arange(len(rows)) / 100 - 0.4
    ends = {"correlation": value, "ci_low": value - 0.02, "ci_high": value + 0.02}
    return pd.DataFrame(rows, columns=names).assign(**ends)


def write_effects(folder):
    """Write the effects of the causal experiment."""
    rows = [
        {"length": length, "seed": seed, "group": "other words" if effect == "match" else "all",
         "outcome": outcome, "effect": effect, "value": value, "ci_low": value - 0.02,
         "ci_high": value + 0.02, "p_value": 0.01, "both_frequent": 0.3, "encoder_rare": 0.32,
         "reader_rare": 0.4, "both_rare": 0.41, "n_pairs": 200, "n_occurrences": 8000}
        for length in (16, 64)
        for seed in ("all", "0", "1", "2")
        for outcome in ("omission_aligned", "omission_forced", "omission_count", "recovered_bits",
                        "null_bits", "recovered_fraction")
        for effect, value in {"encoder": 0.03, "reader": 0.1, "interaction": -0.01,
                              "match": 0.002}.items()
    ]  # fmt: skip
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "effects.parquet")
