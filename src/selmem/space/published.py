"""The published tables: what the page shows beside a text, and lets its readers explore."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selmem.errors import InputError
from selmem.tables import read_table

Row = dict[str, Any]

POOLED = "all sources"


class Published:
    """The aggregate tables of one or several probes, read when they are first asked for.

    Args:
        folder: holds `NAME/TABLE.parquet` (as `hub_cards/tables`) or `NAME/tables/TABLE.parquet`
            (folders of `selmem report`), or `data/TABLE/NAME.parquet` (the published dataset). None
            is like a folder without any.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._tables: dict[str, pa.Table | None] = {}
        self._lock = threading.Lock()

    @property
    def models(self) -> list[str]:
        """Names of the probes that the table `omission` is about."""
        table = self._read("omission")
        return [] if table is None else sorted(pc.unique(table["probe"]).to_pylist())

    def rows(self, name: str, **values: str | int) -> list[Row]:
        """Return the rows of a table whose columns have these values, in the table's order.

        Args:
            name: of the table; one that was not published has no rows.
            values: column and value.
        """
        table = self._read(name)
        if table is None:
            return []
        for column, value in values.items():
            table = table.filter(pc.equal(table[column], value))
        rows: list[Row] = table.to_pylist()
        return rows

    def options(self, column: str, **values: str | int) -> list[Any]:
        """Return the values of a column of `omission`, ascending.

        The pooled sources come first, the length of whole texts (0) last.
        """
        found = {row[column] for row in self.rows("omission", **values)}
        return [*({POOLED} & found), *sorted(found - {POOLED, 0}), *({0} & found)]

    def _read(self, name: str) -> pa.Table | None:
        with self._lock:
            if name not in self._tables:
                self._tables[name] = _joined(self._folder, name)
            return self._tables[name]


def _joined(folder: Path | None, name: str) -> pa.Table | None:
    if folder is None:
        return None
    reports = {path.parents[1]: path for path in folder.glob(f"*/tables/{name}.parquet")}
    direct = {path.parent: path for path in folder.glob(f"*/{name}.parquet")}
    paths = [*(reports | direct).values(), *folder.glob(f"data/{name}/*.parquet")]
    tables = [read_table(path).replace_schema_metadata(None) for path in sorted(paths)]
    return pa.concat_tables(tables, promote_options="permissive") if tables else None


@dataclass(frozen=True)
class StudyRates:
    """Published omission rates of a probe by tag, at one chunk length in tokens."""

    length: int
    by_tag: Mapping[str, float]


def study_rates(
    published: Published, probe: str, *, scheme: str, n_tokens: int
) -> StudyRates | None:
    """Return the published rates (rule aligned) at the length nearest to that of a text.

    Args:
        published: the tables.
        probe: Hub id or folder; its last part is compared with the names in the tables.
        scheme: pos, entity or kind.
        n_tokens: of the text.

    Returns:
        None where nothing of this probe is published.
    """
    own = [name for name in published.models if _last(name) == _last(probe)]
    rows = published.rows("omission", probe=own[0], scheme=scheme, rule="aligned") if own else []
    one_source = len({row["source"] for row in rows}) == 1
    rows = [row for row in rows if row["length"] > 0 and (one_source or row["source"] == POOLED)]
    if not rows:
        return None
    nearest = min({row["length"] for row in rows}, key=lambda length: abs(length - n_tokens))
    rates = {row["tag"]: row["omission_rate"] for row in rows if row["length"] == nearest}
    return StudyRates(nearest, rates)


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]


def require_published(published: Published, model: str) -> None:
    """Raise an InputError where there are no tables of the model."""
    if model not in published.models:
        raise InputError(
            f"there are no tables of {model[:100]!r}; there are tables of: "
            f"{', '.join(published.models) or 'no model'}"
        )
