"""Compare the study's measurements in pairs, on the chunks that both have.

    python scripts/study_contrasts.py WORK

Reads the folders of `selmem measure` in WORK/measured and writes WORK/reports/contrasts.parquet
(each size against the next larger one, and every other reader of 1m and 4m against the plain one)
and WORK/reports/size_verdicts.parquet (does the smaller model lose more?). Pairs of which one was
not measured are left out and named.

Time: not yet measured on the study's tables.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path

import pandas as pd
import pyarrow as pa
from study_runs import CONTROLLED, DEDICATED, PROBE_RATES, SEEDED

from selmem.analysis import load_measurement
from selmem.analysis.contrasts import model_contrast_table
from selmem.analysis.measurements import Measurement
from selmem.analysis.verdicts import size_verdict_table
from selmem.resampling import Resampling
from selmem.tables import write_table

Tables = Callable[[Sequence[Measurement], Resampling], pd.DataFrame]
SIZE_PAIRS = tuple(pairwise(PROBE_RATES))
READER_PAIRS = (
    *((size, f"{size}-seed{seed}") for size, seed in product(SEEDED, (1, 2))),
    (CONTROLLED, f"{CONTROLLED}-deep"),
    *((CONTROLLED, f"{CONTROLLED}-only{length}") for length in DEDICATED),
)


def contrasts(measured: Path, pairs: Sequence[tuple[str, str]], make: Tables) -> pd.DataFrame:
    """Return the table of every pair of measured folders; `first` and `second` name them."""
    tables = []
    for pair in pairs:
        folders = [measured / name for name in pair]
        if missing := [str(f) for f in folders if not (f / "run.json").is_file()]:
            print(f"left out: {' and '.join(missing)}")
            continue
        table = make([load_measurement(folder) for folder in folders], Resampling())
        tables.append(table.assign(first=pair[0], second=pair[1]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def main() -> None:
    """Read the argument and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    wanted: dict[str, tuple[Sequence[tuple[str, str]], Tables]] = {
        "contrasts": ((*SIZE_PAIRS, *READER_PAIRS), model_contrast_table),
        "size_verdicts": (SIZE_PAIRS, size_verdict_table),
    }
    for name, (pairs, make) in wanted.items():
        table = contrasts(work / "measured", pairs, make)
        if len(table):
            path = work / "reports" / f"{name}.parquet"
            write_table(pa.Table.from_pandas(table, preserve_index=False), path, metadata={})
            print(f"{len(table)} rows in {path}")


if __name__ == "__main__":
    main()
