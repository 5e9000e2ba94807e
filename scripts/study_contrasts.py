"""Compare the study's models with each other: other readers with the plain probe, and the sizes.

    python scripts/study_contrasts.py WORK readers
    python scripts/study_contrasts.py WORK sizes

Both read the folders of `selmem measure` in WORK/measured and write
WORK/comparisons/{readers,sizes}/table.parquet. readers: how much more the plain probe of 1m or 4m
loses than one of another seed, with extra layers or of one length, on the chunks that both
measured, paired by document. sizes: the verdicts on the claim that larger models lose less, each
size against the next. What was not measured is left out and named. Stage `report` of study.py runs
both.

Time: a minute or two for the readers, less for the sizes.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from study_runs import CONTROLLED, DEDICATED, PROBE_RATES, SEEDS

from selmem.analysis import load_measurement
from selmem.analysis.contrasts import model_contrast_table
from selmem.analysis.measurements import Measurement
from selmem.analysis.verdicts import size_verdict_table
from selmem.resampling import Resampling
from selmem.tables import write_table

PAIRS = (
    *((size, name) for name, (size, _) in SEEDS.items()),
    (CONTROLLED, f"{CONTROLLED}-deep"),
    *((CONTROLLED, name) for name in DEDICATED),
)


def contrasts(measured: Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> pd.DataFrame:
    """Return how the loss of each pair differs; `first` and `second` name their folders."""
    tables = []
    for pair in pairs:
        if len(both := load(measured, pair)) == len(pair):
            table = model_contrast_table(both, Resampling())
            tables.append(table.assign(first=pair[0], second=pair[1]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def sizes(measured: Path) -> pd.DataFrame:
    """Return the verdicts on the claim about size, in the columns of a report's verdicts."""
    return size_verdict_table(load(measured, PROBE_RATES), Resampling())


def load(measured: Path, names: Iterable[str]) -> list[Measurement]:
    """Return the measurements that are there; those that are not are printed."""
    folders = [measured / name for name in names]
    there = [folder for folder in folders if (folder / "run.json").is_file()]
    if missing := [str(folder) for folder in folders if folder not in there]:
        print(f"left out: {' and '.join(missing)}")
    return [load_measurement(folder) for folder in there]


def main() -> None:
    """Read the arguments and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=("readers", "sizes"))
    arguments = parser.parse_args()
    measured = arguments.work / "measured"
    table = contrasts(measured) if arguments.what == "readers" else sizes(measured)
    path = arguments.work / "comparisons" / arguments.what / "table.parquet"
    write_table(pa.Table.from_pandas(table, preserve_index=False), path, metadata={})
    print(f"{len(table)} rows in {path}")


if __name__ == "__main__":
    main()
