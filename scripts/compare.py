"""Compare files that were made again with the committed ones; exit status 1 where one differs.

    python scripts/compare.py MADE COMMITTED ...        files, or folders of the same file names

Tables (.parquet, .csv) are compared by value: the same rows in the same order, numbers within 0.02
of each other or 2 %, since another machine rounds sums otherwise and now and then a greedy
decoding parts there. Text is compared as text. A figure must be there and of the same size; other
versions of the plotting library draw other pixels.

Time: a second.
"""

import argparse
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

ABSOLUTE, RELATIVE = 0.02, 0.02
READERS = {".parquet": pd.read_parquet, ".csv": pd.read_csv}


def differences(made: Path, committed: Path) -> Iterator[str]:
    """Yield a line for every way in which a file differs, or any file of a folder."""
    if committed.is_dir():
        for path in sorted(committed.rglob("*")):
            if path.is_file():
                yield from differences(made / path.relative_to(committed), path)
    elif not made.is_file():
        yield f"{committed}: {made} was not made"
    elif committed.suffix in READERS:
        for line in table_differences(*(READERS[committed.suffix](p) for p in (made, committed))):
            yield f"{committed}: {line}"
    elif committed.suffix == ".png":
        if png_size(made) != png_size(committed):
            yield f"{committed}: {png_size(made)} pixels, committed are {png_size(committed)}"
    elif made.read_text(encoding="utf-8") != committed.read_text(encoding="utf-8"):
        yield f"{committed}: the text differs; see `diff {committed} {made}`"


def table_differences(made: pd.DataFrame, committed: pd.DataFrame) -> Iterator[str]:
    """Yield a line for every column that differs."""
    if list(made.columns) != list(committed.columns) or len(made) != len(committed):
        yield (
            f"{len(made)} rows of {', '.join(made.columns)}; committed are "
            f"{len(committed)} of {', '.join(committed.columns)}"
        )
        return
    for name in committed:
        ours, theirs = made[name], committed[name]
        if pd.api.types.is_float_dtype(theirs):
            same = np.isclose(ours, theirs, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        else:
            same = ((ours == theirs) | (ours.isna() & theirs.isna())).to_numpy()
        if not same.all():
            row = int(np.argmin(same))
            yield (
                f"{(~same).sum()} of {len(same)} rows of {name}, first row {row}: "
                f"{ours.iloc[row]}, committed is {theirs.iloc[row]}"
            )


def png_size(path: Path) -> tuple[int, ...]:
    """Return width and height in pixels."""
    return struct.unpack(">II", path.read_bytes()[16:24])


def main() -> int:
    """Print the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", type=Path, nargs="+", metavar="MADE COMMITTED")
    paths = parser.parse_args().paths
    if len(paths) % 2:
        parser.error("give pairs of MADE and COMMITTED")
    found = [
        line for pair in zip(paths[::2], paths[1::2], strict=True) for line in differences(*pair)
    ]
    print("\n".join(found) or f"{len(paths) // 2} as committed")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
