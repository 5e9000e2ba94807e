"""The small tables behind a probe's card, to be committed: aggregates, no text."""

from pathlib import Path

import pyarrow as pa

from selmem.analysis.controls import control_table
from selmem.analysis.loading import load_measurement
from selmem.analysis.omission import omission_table
from selmem.errors import InputError
from selmem.resampling import Resampling
from selmem.tables import read_metadata, write_table


def collect_card_tables(measured: Path, out: Path) -> Path:
    """Write `omission.parquet` and `controls.parquet` of one measured probe; return their folder.

    Args:
        measured: what `selmem measure --controls` wrote.
        out: `hub_cards/tables/NAME`.

    Raises:
        InputError: a table is absent, or no control was measured.
    """
    measurement = load_measurement(measured)
    if not measurement.controls:
        raise InputError(f"{measured} was measured without controls; measure with --controls")
    run = read_metadata(measured / "reconstructions.parquet")
    resampling = Resampling()
    frames = {
        "omission": omission_table(measurement, resampling),
        "controls": control_table(measurement, resampling),
    }
    for name, frame in frames.items():
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        metadata = {"run_config_hash": run.get("config_hash")}
        write_table(table, out / f"{name}.parquet", metadata=metadata)
    return out
