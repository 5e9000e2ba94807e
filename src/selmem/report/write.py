"""Writing a report: tables, figures, and one HTML file that needs nothing else."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pyarrow as pa

from selmem.analysis import Measurement, analyse, load_measurements
from selmem.figures import Drawn, draw_figures, draw_model_figure, pooled
from selmem.report.notes import notes
from selmem.report.rows import (
    TextTable,
    VerdictRow,
    headline_table,
    model_rows,
    omission_tables,
    verdict_rows,
)
from selmem.resampling import Resampling
from selmem.tables import (
    OMISSION,
    config_hash,
    read_table,
    require_writable,
    write_table,
    write_text,
)

TEMPLATES = Path(__file__).parents[1] / "templates"
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class ModelPart:
    """What the report says about one encoder and probe."""

    anchor: str
    label: str
    encoder: str
    probe: str
    source: str  # of the figures and headline numbers
    headline: TextTable
    verdicts: Sequence[VerdictRow]
    figures: Sequence[Drawn]
    omission: Sequence[TextTable]
    notes: Sequence[str]
    run: Sequence[tuple[str, str]]


def write_report(dirs: Sequence[Path], out: Path, *, resampling: Resampling | None = None) -> Path:
    """Analyse what `selmem measure` wrote and write the report; return the path of report.html.

    Writes OUT/omission.parquet, OUT/tables/*.parquet (all other tables), OUT/figures/*.png and
    OUT/report.html, each whole or not at all.

    Args:
        dirs: one folder for each measured probe.
        out: folder of the report; may be one of `dirs`.
        resampling: of documents; by default 2,000 resamples, seed 0.

    Raises:
        InputError: a table is absent, damaged or of another run; `out` cannot be written.
    """
    resampling = resampling or Resampling()
    measurements = load_measurements(dirs)
    require_writable(out)
    tables = analyse(measurements, resampling)
    metadata = _metadata(measurements, resampling)
    write_tables(tables, out, metadata)
    named = _named(tables, measurements)
    parts = [_model_part(m, named, out, len(measurements)) for m in measurements]
    compared = draw_model_figure(named, out / "figures") if len(measurements) > 1 else []
    html = (
        _environment()
        .get_template("report.html.j2")
        .render(
            parts=parts,
            compared=compared,
            models=model_rows(tables["models"]),
            size_verdicts=verdict_rows(_several(tables["verdicts"])),
            resampling=resampling,
            metadata=metadata,
            css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        )
    )
    path = out / "report.html"
    write_text(path, html)
    return path


def write_tables(tables: Tables, out: Path, metadata: Mapping[str, Any]) -> None:
    """Write OUT/omission.parquet in its published schema, and all tables to OUT/tables."""
    published = tables["omission"][list(OMISSION.names)]
    table = pa.Table.from_pandas(published, schema=OMISSION, preserve_index=False)
    write_table(table, out / "omission.parquet", metadata=metadata)
    for name, frame in tables.items():
        if len(frame.columns):
            whole = pa.Table.from_pandas(frame, preserve_index=False)
            whole = whole.replace_schema_metadata(None)
            write_table(whole, out / "tables" / f"{name}.parquet", metadata=metadata)


def load_tables(out: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a written report, by name.

    Raises:
        InputError: there is no report, or a table is damaged.
    """
    paths = sorted((out / "tables").glob("*.parquet")) or [out / "tables" / "omission.parquet"]
    return {path.stem: read_table(path).to_pandas() for path in paths}


def _metadata(measurements: Sequence[Measurement], resampling: Resampling) -> dict[str, Any]:
    return {
        "selmem": version("selmem"),
        "runs": [config_hash(m.run) for m in measurements],
        "n_resamples": resampling.n_resamples,
        "seed": resampling.seed,
        "level": resampling.level,
    }


def _named(tables: Tables, measurements: Sequence[Measurement]) -> dict[str, pd.DataFrame]:
    """Return the tables with the models' short names in a column `model` of `omission`."""
    keys = [(m.encoder, m.probe) for m in measurements]
    names = dict(zip(keys, _labels(measurements), strict=True))
    omission = tables["omission"]
    rows = zip(omission["encoder"], omission["probe"], strict=True)
    return {**tables, "omission": omission.assign(model=[names[key] for key in rows])}


def _labels(measurements: Sequence[Measurement]) -> list[str]:
    """Return short names, with the probe's where two probes read the same encoder."""
    encoders = [m.label for m in measurements]
    return [
        m.label if encoders.count(m.label) == 1 else f"{m.label} ({m.probe})" for m in measurements
    ]


def _model_part(measurement: Measurement, tables: Tables, out: Path, n_models: int) -> ModelPart:
    own = {name: _of_model(table, measurement) for name, table in tables.items()}
    own["models"] = tables["models"]
    main = pooled(own)
    slug = _slug(f"{measurement.encoder}-{measurement.probe}")
    prefix = f"{slug}-" if n_models > 1 else ""
    return ModelPart(
        anchor=slug,
        label=measurement.label,
        encoder=measurement.encoder,
        probe=measurement.probe,
        source=str(main["lengths"]["source"].iloc[0]),
        headline=headline_table(main["omission"], main["lengths"]),
        verdicts=verdict_rows(own["verdicts"]),
        figures=draw_figures(own, out / "figures", prefix=prefix),
        omission=omission_tables(main["omission"]),
        notes=notes(measurement, own),
        run=_run_rows(measurement),
    )


def _of_model(table: pd.DataFrame, measurement: Measurement) -> pd.DataFrame:
    if "encoder" not in table:
        return table
    mine = (table["encoder"] == measurement.encoder) & (table["probe"] == measurement.probe)
    return table[mine]


def _several(verdicts: pd.DataFrame) -> pd.DataFrame:
    return verdicts[verdicts["encoder"] == "several"]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()


def _run_rows(measurement: Measurement) -> list[tuple[str, str]]:
    """Return the run's configuration and versions, flat, as text."""
    rows: list[tuple[str, str]] = []
    for part, values in measurement.run.items():
        if isinstance(values, dict):
            rows += [(f"{part}.{name}", _plain(value)) for name, value in values.items()]
        else:
            rows.append((part, _plain(values)))
    return rows


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"
