"""Collect the aggregates of the study that are committed.

    python scripts/study_tables.py WORK

WORK is the working folder of study.py. Read are the records of every training (config.json,
training.json, learning_curve.jsonl; the weights, where they are there, for their SHA-256) and what
its stages `report` and `report-causal` made: WORK/reports/NAME/tables of every size and other
reader, WORK/tables, WORK/comparisons, WORK/causal/effects/effects.parquet; and WORK/overlap.parquet
(`selmem overlap`). What is not there is named and left out. Written are

    hub_cards/tables/mamba-own-SIZE-probe    as by card_tables.py, thinned
    scripts/results/study/models/MODEL       what the cards are made of, but for the weights
    scripts/results/study/*.parquet          trainings, learning_curves, convergence, verdicts,
                                             variants, reruns, correlations, pairs, common_words,
                                             contrasts, token_counts, causal, overlap

Fractions are rounded to four decimals. Of single sources only the lengths of `SOURCE_LENGTHS` are
kept, with tags over all words of the chunks.

Time: under a minute.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from study_measures import CARD, CONTROL_LENGTHS
from study_records import (
    Training,
    card_record,
    convergence_table,
    curve_table,
    read_trainings,
    training_table,
)
from study_runs import CAUSAL, FROM_SCRATCH, NAME, PROBE_RATES, SEEDS

from selmem.analysis.measurements import POOLED
from selmem.measurement.config import MeasureConfig
from selmem.overlap import read_overlap
from selmem.tables import WHOLE_TEXT, read_metadata, read_table, write_table, write_text

ROOT = Path(__file__).resolve().parents[1]
SIZES = tuple(PROBE_RATES)
SOURCE_LENGTHS = (WHOLE_TEXT, *CONTROL_LENGTHS)
PER_SIZE = ("correlations", "pairs", "common_words", "verdicts")
DIGITS = 4
NAMES = {"encoder": "", "probe": "-probe", "null probe": "-null-probe"}
# a run of the family measured again, and the run whose intervals it should fall into
RERUNS = {
    **dict.fromkeys(FROM_SCRATCH, CAUSAL),
    **{name: size for name, (size, _) in SEEDS.items()},
}
CELL = ["source", "length", "scheme", "tag", "rule"]
ENDS = {
    "omission_rate": ("ci_low", "ci_high"),
    "recovered_fraction": ("recovered_low", "recovered_high"),
}


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with four decimals, p-values excepted."""
    names = [n for n in table.select_dtypes("float").columns if not n.startswith("p_")]
    return table.assign(**{name: table[name].round(DIGITS) for name in names})


def write(table: pd.DataFrame, path: Path, metadata: dict[str, Any] | None = None) -> None:
    """Write a table, rounded."""
    content = pa.Table.from_pandas(rounded(table), preserve_index=False)
    write_table(content.replace_schema_metadata(None), path, metadata=metadata or {})


def thinned(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return what is committed of a card table of one size.

    Of single sources: the lengths of `SOURCE_LENGTHS`; of `omission` no class without late words;
    of `controls` no single layer. Everything stays where there is but one source.
    """
    if POOLED not in set(table.get("source", ())):
        return table
    kept = table["length"].isin(SOURCE_LENGTHS)
    if name == "omission":
        kept &= ~table["scheme"].str.endswith("_without_last_4")
    if name == "controls":
        kept &= table["layer"] < 0
    return table[kept | (table["source"] == POOLED)]


def card_tables(size: str, tables: Path, hub_cards: Path) -> None:
    """Write the tables behind a size's card, under the names of its models."""
    names = {"encoder": NAME.format(size).rpartition("/")[2], "probe": CARD.format(size)}
    for path in sorted((tables / CARD.format(size)).glob("*.parquet")):
        metadata, table = read_metadata(path), read_table(path).to_pandas()
        out = hub_cards / "tables" / CARD.format(size) / path.name
        write(thinned(path.stem, table).assign(**names), out, {"runs": metadata["runs"]})


def table_at(path: Path) -> pd.DataFrame:
    """Return a table; no rows where there is none."""
    return read_table(path).to_pandas() if path.is_file() else pd.DataFrame()


def report_table(report: Path, name: str) -> pd.DataFrame:
    """Return a table of a report; no rows where it has none."""
    return table_at(report / "tables" / f"{name}.parquet")


def comparison(work: Path, what: str) -> pd.DataFrame:
    """Return what stands in WORK/comparisons; no rows where nothing was compared."""
    return table_at(work / "comparisons" / what / "table.parquet")


def per_size(reports: Path, name: str) -> pd.DataFrame:
    """Return a table of every size, one after the other, with the size in place of the models.

    The verdicts end with those about the sizes themselves, each under the larger of two.
    """
    parts = [report_table(reports / size, name) for size in SIZES]
    tables = [part.assign(size=size) for size, part in zip(SIZES, parts, strict=True) if len(part)]
    if name == "verdicts":
        of_sizes = comparison(reports.parent, "sizes")
        if len(of_sizes):
            larger = of_sizes["note"].str.rpartition(" against ")[2]
            tables.append(of_sizes.assign(size=larger))
    found = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return found.drop(columns=["encoder", "probe"], errors="ignore")


def variant_table(reports: Path) -> pd.DataFrame:
    """Return the rates over all words and sources of every report, so that readers compare.

    At 16 tokens the reports of sizes have the dialect pairs besides; see `n_words`.
    """
    tables = []
    for report in sorted(path for path in reports.glob("*") if path.is_dir()):
        omission = report_table(report, "omission")
        if not len(omission):
            continue
        size, _, variant = report.name.partition("-")
        rows = omission[(omission["scheme"] == "all") & (omission["source"] == _main(omission))]
        kept = ["length", "tag", "rule", "n_words", "n_documents", *ENDS, *sum(ENDS.values(), ())]
        kept += ["chance_rate", "retained_over_chance"]
        tables.append(rows[kept].assign(size=size, variant=variant))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _main(omission: pd.DataFrame) -> str:
    return POOLED if POOLED in set(omission["source"]) else str(omission["source"].iloc[0])


def overlap_table(work: Path) -> pd.DataFrame:
    """Return what the measured sources share with the training corpus, a row for each.

    Columns: how many documents, of them left out by `selmem measure`, and n-grams, in all and in
    the corpus; the last two also without those documents. A text too short for an n-gram stays.
    """
    reports = [report_table(work / "reports" / size, "omission") for size in SIZES]
    measured = {source for table in reports for source in table.get("source", ())}
    path = work / "overlap.parquet"
    overlaps = [o for o in read_overlap(path) if o.source in measured] if path.is_file() else []
    if not overlaps:
        return pd.DataFrame()
    kept = np.array([o.within(MeasureConfig.max_overlap) for o in overlaps])
    table = pd.DataFrame(overlaps).drop(columns="doc_id")
    table.insert(1, "n_documents", 1)
    table["n_left_out"] = (~kept).astype(int)
    for name in ("n_ngrams", "n_found"):
        table[f"{name}_kept"] = table[name] * kept
    return table.groupby("source").sum().reset_index()


def rerun_table(reports: Path) -> pd.DataFrame:
    """Return every cell of a run made again beside the interval of the first.

    Cells: all words of every source, and the classes over all sources, where both runs measured the
    same number of words (not over all sources at 16 tokens, if one measured the dialect pairs too).
    Outcomes: omission rate under each rule and recovered fraction. `inside` says whether the second
    lies in the first's interval.
    """
    tables = []
    for second, first in RERUNS.items():
        pair = [report_table(reports / name, "omission") for name in (first, second)]
        if all(len(table) for table in pair):
            tables.append(_cells(*pair).assign(run=second, first_run=first))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _cells(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    whole = (first["scheme"] == "all") & (first["tag"] == "whole")
    classes = first["scheme"].isin(("pos", "entity")) & (first["source"] == _main(first))
    both = first[whole | classes].merge(second, on=[*CELL, "n_words"], suffixes=("", "_again"))
    tables = []
    for outcome, (low, high) in ENDS.items():
        known = both[[low, high, f"{outcome}_again"]].notna().all(axis=1)
        rows = both[known & ((outcome == "omission_rate") | (both["rule"] == "count"))]
        names = {outcome: "value", low: "low", high: "high", f"{outcome}_again": "value_again"}
        kept = rows[[*CELL, "n_words", *names]].rename(columns=names)
        inside = kept["value_again"].between(kept["low"], kept["high"])
        tables.append(kept.assign(outcome=outcome, inside=inside))
    return pd.concat(tables, ignore_index=True)


def print_reruns(table: pd.DataFrame) -> None:
    """Print for each run and outcome how many cells lie in the first's intervals."""
    for (run, outcome), rows in table.groupby(["run", "outcome"], sort=False):
        inside = int(rows["inside"].sum())
        print(f"{run}: {inside} of {len(rows)} cells of {outcome} inside the first's intervals")


def write_models(trainings: list[Training], out: Path) -> None:
    """Write what the cards of the family's own models are made of, but for the weights."""
    for training in trainings:
        if training.size in SIZES and not training.variant:
            name = NAME.format(training.size).rpartition("/")[2] + NAMES[training.kind]
            for file, text in card_record(training).items():
                write_text(out / name / file, text)


def collect(work: Path, root: Path) -> None:
    """Write everything below `root`, the repository."""
    reports, out = work / "reports", root / "scripts" / "results" / "study"
    for size in SIZES:
        card_tables(size, work / "tables", root / "hub_cards")
    trainings = read_trainings(work)
    shutil.rmtree(out, ignore_errors=True)
    write_models(trainings, out / "models")
    tables = {
        "trainings": training_table(trainings),
        "learning_curves": curve_table(trainings),
        "convergence": convergence_table(trainings),
        "variants": variant_table(reports),
        "reruns": rerun_table(reports),
        "contrasts": comparison(work, "readers"),
        "token_counts": comparison(work, "token_counts"),
        "causal": table_at(work / "causal/effects/effects.parquet"),
        "overlap": overlap_table(work),
        **{name: per_size(reports, name) for name in PER_SIZE},
    }
    for name, table in tables.items():
        if len(table):
            write(table, out / f"{name}.parquet")
    if len(tables["reruns"]):
        print_reruns(tables["reruns"])
    absent = [name for name, table in tables.items() if not len(table)]
    cards = [CARD.format(size) for size in SIZES]
    absent += [f"tables/{card}" for card in cards if not (work / "tables" / card).is_dir()]
    print(f"left out, since not there: {', '.join(absent) or 'nothing'}")


def main() -> None:
    """Read the arguments, collect, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT, help="default: this repository")
    arguments = parser.parse_args()
    collect(arguments.work, arguments.root)
    made = ("scripts/results/study", "hub_cards/tables")
    files = [p for name in made for p in (arguments.root / name).rglob("*") if p.is_file()]
    print(f"{sum(path.stat().st_size for path in files) / 1e6:.2f} MB in {', '.join(made)}")


if __name__ == "__main__":
    main()
