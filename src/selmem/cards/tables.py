"""The small tables behind a probe's card, to be committed: aggregates, no text."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from selmem.errors import InputError
from selmem.tables import read_metadata, read_table, write_table

PROBE, NULL, ENCODER = "the probe", "null probe", "encoder from an empty state"
_FIXED = {"probe_bits": PROBE, "null_bits": NULL, "base_bits": ENCODER}
_PREFIX = "probe_bits_"

CONTROLS = pa.schema(
    [
        ("source", pa.string()),
        ("length", pa.int32()),  # tokens
        ("control", pa.string()),
        ("n_tokens", pa.int64()),
        ("bits_per_token", pa.float64()),
        ("recovered_fraction", pa.float64()),  # 1 - bits / the null probe's bits
    ]
)


def collect_card_tables(measured: Path, report: Path, out: Path) -> Path:
    """Write the tables that the card of one measured probe needs, and return their folder.

    Args:
        measured: what `selmem measure` wrote.
        report: what `selmem report` wrote from it.
        out: `hub_cards/tables/NAME`.

    Raises:
        InputError: a table is absent.
    """
    omission = report / "omission.parquet"
    source = read_metadata(measured / "tokens.parquet")
    write_table(control_table(measured), out / "controls.parquet", metadata=_public(source))
    write_table(read_table(omission), out / "omission.parquet", metadata=_public(source))
    return out


def control_table(measured: Path) -> pa.Table:
    """Return the mean bits per token under the probe and every control, by source and length.

    Raises:
        InputError: no control was measured.
    """
    chunks = read_table(measured / "chunks.parquet", columns=["chunk_id", "source", "length"])
    tokens = read_table(measured / "tokens.parquet")
    columns = [name for name in tokens.schema.names if name in _FIXED or name.startswith(_PREFIX)]
    if len(columns) == len(_FIXED):
        raise InputError(f"{measured} was measured without controls; measure with --controls")
    joined = tokens.select(["chunk_id", *columns]).join(chunks, "chunk_id")
    sums = joined.group_by(["source", "length"]).aggregate(
        [(name, function) for name in columns for function in ("sum", "count")]
    )
    rows = [_row(group, name) for group in sums.to_pylist() for name in columns]
    return pa.Table.from_pylist(rows, CONTROLS).sort_by(
        [(name, "ascending") for name in ("source", "length", "bits_per_token")]
    )


def _row(group: dict[str, Any], column: str) -> dict[str, Any]:
    null = group["null_bits_sum"]
    return {
        "source": group["source"],
        "length": group["length"],
        "control": _FIXED.get(column) or column.removeprefix(_PREFIX).replace("_", " "),
        "n_tokens": group[f"{column}_count"],
        "bits_per_token": group[f"{column}_sum"] / group[f"{column}_count"],
        "recovered_fraction": 1 - group[f"{column}_sum"] / null,
    }


def _public(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"run_config_hash": metadata.get("config_hash")}
