"""The published dataset: measured tables as Parquet, one config a table, one split a probe."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selmem.cards.dataset import Split, Tables
from selmem.cards.naming import hub_id
from selmem.errors import InputError
from selmem.hub.republication import publishable
from selmem.tables import SCHEMAS, read_metadata, read_table, write_table

RATES = "omission"  # the table that `selmem report` writes


def stage_tables(path: Path, namespace: str, out: Path) -> list[Split]:
    """Write the publishable part of measured tables to `out`/data/TABLE/SPLIT.parquet.

    Args:
        path: a folder with the five tables of one probe, or a folder of such folders. Where several
            of these measure one probe, its rates are those of omission.parquet in `path` itself.
        namespace: owner of the dataset on the Hub; models measured from a local folder are named
            after it and that folder.
        out: the staged folder.

    Raises:
        InputError: a table is absent, has other columns than it should, or holds two probes; two
            folders hold the same chunk of one probe.
    """
    measured: dict[str, dict[Path, Tables]] = {}
    for folder in _measured_folders(path):
        tables = {name: _read(folder / f"{name}.parquet") for name in SCHEMAS if name != RATES}
        name = _split_name(tables["reconstructions"], folder)
        measured.setdefault(name, {})[folder] = tables
    named = {
        name: publishable(_with_hub_ids(_joined(parts, path), namespace))
        for name, parts in measured.items()
    }
    _align_columns(list(named.values()))
    metadata = _public_metadata(path)
    return [
        Split(name, tables, _write(tables, name, out, metadata))
        for name, tables in sorted(named.items())
    ]


def _measured_folders(path: Path) -> list[Path]:
    folders = [path, *(sorted(path.iterdir()) if path.is_dir() else [])]
    found = [folder for folder in folders if (folder / "reconstructions.parquet").is_file()]
    if not found:
        raise InputError(
            f"neither {path} nor a folder in it has reconstructions.parquet; give what "
            "`selmem measure --out` wrote, with omission.parquet of `selmem report` beside it"
        )
    return found


def _joined(parts: Mapping[Path, Tables], path: Path) -> Tables:
    """Return the tables of one probe from those measured in folders of `path`, and its rates."""
    folders = list(parts)
    if len(folders) == 1:
        return {**parts[folders[0]], RATES: _read(folders[0] / f"{RATES}.parquet")}
    tables = {
        name: pa.concat_tables([part[name] for part in parts.values()], promote_options="default")
        for name in SCHEMAS
        if name != RATES
    }
    if repeated := _first_repeated(tables["chunks"]["chunk_id"]):
        raise InputError(
            f"{', '.join(map(str, folders))} measure one probe, and two of them hold chunk "
            f"{repeated}; leave one out"
        )
    if not (path / f"{RATES}.parquet").is_file():
        raise InputError(
            f"{len(folders)} folders in {path} measure one probe; write its rates over all of them "
            f"with `selmem report {' '.join(map(str, folders))} --out {path}`"
        )
    rates = _read(path / f"{RATES}.parquet")
    tables[RATES] = rates.filter(pc.equal(rates["probe"], tables["reconstructions"]["probe"][0]))
    return tables


def _first_repeated(values: pa.ChunkedArray) -> str | None:
    counts = pc.value_counts(values)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    return str(repeated[0]) if len(repeated) else None


def _read(file: Path) -> pa.Table:
    """Return a table with the columns of its schema first."""
    schema = SCHEMAS[file.stem]
    folder = file.parent
    writer = f"selmem report {folder} --out {folder}" if file.stem == RATES else "selmem measure"
    table = read_table(file, command=writer)
    absent = [field.name for field in schema if field.name not in table.schema.names]
    if absent:
        raise InputError(f"{file} has no column {', '.join(absent)}")
    extra = [field for field in table.schema if field.name not in schema.names]
    whole = pa.schema([*schema, *extra])
    return table.select(whole.names).cast(whole)


def _with_hub_ids(tables: Tables, namespace: str) -> Tables:
    """Name models that were read from a local folder as they are named on the Hub."""
    named = dict(tables)
    for name in ("reconstructions", "omission"):
        for column in ("encoder", "probe"):
            values = [hub_id(value, namespace) for value in named[name][column].to_pylist()]
            index = named[name].schema.get_field_index(column)
            field = named[name].schema.field(index)
            named[name] = named[name].set_column(index, field, pa.array(values, field.type))
    return named


def _split_name(reconstructions: pa.Table, folder: Path) -> str:
    probes = pc.unique(reconstructions["probe"]).to_pylist()
    if len(probes) != 1:
        raise InputError(
            f"{folder}/reconstructions.parquet holds {len(probes)} probes, expected 1; measure "
            "each into a folder of its own"
        )
    return re.sub(r"\W", "_", probes[0].rpartition("/")[2])


def _public_metadata(path: Path) -> dict[str, Any]:
    """Return what a reader needs of the run, without the paths of the machine it ran on."""
    stored = [
        read_metadata(folder / "reconstructions.parquet") for folder in _measured_folders(path)
    ]
    return {"run_config_hashes": sorted({str(run.get("config_hash")) for run in stored})}


def _align_columns(splits: Sequence[Tables]) -> None:
    """Give each table the same columns in every split; a control that was not run is null."""
    for name in SCHEMAS:
        whole = pa.unify_schemas([tables[name].schema for tables in splits])
        for tables in splits:
            table = tables[name]
            for field in whole:
                if field.name not in table.schema.names:
                    table = table.append_column(field, pa.nulls(table.num_rows, field.type))
            tables[name] = table.select(whole.names)


def _write(tables: Tables, split: str, out: Path, metadata: Mapping[str, Any]) -> dict[str, Path]:
    files = {name: out / "data" / name / f"{split}.parquet" for name in tables}
    for name, table in tables.items():
        write_table(table, files[name], metadata=metadata)
    return files
