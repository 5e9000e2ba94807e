"""The small tables behind a probe's card and the demo's page Explore: aggregates, no text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from selmem.analysis import analyse, load_measurement
from selmem.analysis.controls import PLAIN_READERS, control_table
from selmem.errors import InputError
from selmem.report import load_tables
from selmem.resampling import Resampling
from selmem.tables import OMISSION, config_hash, read_metadata, read_table, write_table

# beside the published columns of `omission`
DRAWN_INTERVALS = ("retained_low", "retained_high", "recovered_low", "recovered_high")
_CELL = ["source", "length"]


def collect_card_tables(folder: Path, out: Path, *, controls: Sequence[Path] = ()) -> Path:
    """Write omission, controls, positions, lengths and verdicts of one probe; return their folder.

    Each is as `selmem report` makes it, cut to what is shown: `omission` to its published columns
    and the intervals that the picture has, `positions` to the scale relative.

    Args:
        folder: what `selmem report` wrote about one probe, on any sources, or `selmem measure`.
        out: `hub_cards/tables/NAME`.
        controls: more such folders, for the table `controls` alone. Of a source and length that
            several folders have, the rows of the one with the most controls are taken.

    Raises:
        InputError: a folder holds no such tables or those of several probes, or no control was
            measured.
    """
    tables, runs = _read(folder)
    probe = _only_probe(tables["omission"], folder)
    collected = {
        "omission": tables["omission"][[*OMISSION.names, *DRAWN_INTERVALS]],
        "controls": tables["controls"],
        "positions": tables["positions"].query("scale == 'relative'"),
        "lengths": tables["lengths"],
        "verdicts": tables["verdicts"].query("probe == @probe"),
    }
    for further in controls:
        own, own_runs = _read_controls(further)
        if _only_probe(own, further) != probe:
            raise InputError(f"{further} is not about the probe {probe} as {folder} is")
        collected["controls"] = _with_more_controls(collected["controls"], own)
        runs = [*runs, *own_runs]
    if set(collected["controls"]["condition"]) <= set(PLAIN_READERS):
        raise InputError(f"{folder} was measured without controls; measure with --controls")
    for name, frame in collected.items():
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        write_table(table, out / f"{name}.parquet", metadata={"runs": runs})
    return out


def _read(folder: Path) -> tuple[Mapping[str, pd.DataFrame], list[Any]]:
    """Return the tables of a report, or of a measurement, and the hashes of its runs."""
    path = folder / "tables" / "omission.parquet"
    if path.is_file():
        return load_tables(folder), read_metadata(path)["runs"]
    measurement = load_measurement(folder)
    return analyse([measurement], Resampling()), [config_hash(measurement.run)]


def _read_controls(folder: Path) -> tuple[pd.DataFrame, list[Any]]:
    """Return the table `controls` of a report, or of a measurement, and the hashes of its runs."""
    path = folder / "tables" / "controls.parquet"
    if path.is_file():
        return read_table(path).to_pandas(), read_metadata(path)["runs"]
    measurement = load_measurement(folder)
    return control_table(measurement, Resampling()), [config_hash(measurement.run)]


def _only_probe(table: pd.DataFrame, folder: Path) -> str:
    probes = sorted(set(table["probe"]))
    if len(probes) != 1:
        raise InputError(
            f"{folder} is about {len(probes)} probes ({', '.join(probes[:3])}); report each probe "
            "into a folder of its own"
        )
    return str(probes[0])


def _with_more_controls(first: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of both; of a source and length in both, those with more conditions."""
    both = pd.concat([first.assign(of=0), other.assign(of=1)], ignore_index=True)
    n = both.groupby([*_CELL, "of"], observed=True)["condition"].transform("size")
    ranked = both.assign(n=n).sort_values("n", ascending=False, kind="stable")
    richest = ranked.groupby(_CELL, observed=True)["of"].transform("first")
    return ranked[ranked["of"] == richest].sort_index().drop(columns=["of", "n"])
