"""Compare the study's other readers with the plain probe of the same encoder.

    python scripts/study_contrasts.py WORK

Reads the folders of `selmem measure` in WORK/measured and writes WORK/reports/contrasts.parquet:
how much more the plain probe of 1m or 4m loses than one of another seed, with extra layers or of
one length, on the chunks that both measured, paired by document. Pairs of which one was not
measured are left out and named. Stage `report` of study.py runs it.

Time: not yet measured on the study's tables.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd
import pyarrow as pa
from study_runs import CONTROLLED, DEDICATED, SEEDED

from selmem.analysis import load_measurement
from selmem.analysis.contrasts import model_contrast_table
from selmem.resampling import Resampling
from selmem.tables import write_table

PAIRS = (
    *((size, f"{size}-seed{seed}") for size, seed in product(SEEDED, (1, 2))),
    (CONTROLLED, f"{CONTROLLED}-deep"),
    *((CONTROLLED, f"{CONTROLLED}-only{length}") for length in DEDICATED),
)


def contrasts(measured: Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> pd.DataFrame:
    """Return how the loss of each pair differs; `first` and `second` name their folders."""
    tables = []
    for pair in pairs:
        folders = [measured / name for name in pair]
        if missing := [str(f) for f in folders if not (f / "run.json").is_file()]:
            print(f"left out: {' and '.join(missing)}")
            continue
        table = model_contrast_table([load_measurement(f) for f in folders], Resampling())
        tables.append(table.assign(first=pair[0], second=pair[1]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def main() -> None:
    """Read the argument and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    table = contrasts(work / "measured")
    path = work / "reports" / "contrasts.parquet"
    write_table(pa.Table.from_pandas(table, preserve_index=False), path, metadata={})
    print(f"{len(table)} rows in {path}")


if __name__ == "__main__":
    main()
