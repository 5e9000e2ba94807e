"""Drawing the figures of a report into a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd

from selmem.analysis.measurements import POOLED
from selmem.figures.captions import CAPTIONS
from selmem.figures.plans import DRAWN, Draw, Tables, draw_models
from selmem.tables import atomic_path


@dataclass(frozen=True)
class Drawn:
    """A figure on disk.

    Attributes:
        name: file name without suffix.
        title: as a heading.
        caption: what it shows and how to read it.
        png: the file's bytes.
    """

    name: str
    title: str
    caption: str
    png: bytes


def draw_figures(tables: Tables, folder: Path, *, prefix: str = "") -> list[Drawn]:
    """Draw every figure that the tables of one model have data for, and write it as PNG.

    Args:
        tables: of one encoder and probe.
        folder: is made if it does not exist.
        prefix: of the file names.
    """
    main = pooled(tables)
    return [
        made for name, draw in DRAWN.items() for made in _drawn(name, draw, main, folder, prefix)
    ]


def draw_model_figure(tables: Tables, folder: Path) -> list[Drawn]:
    """Draw the figure that compares models; nothing for one model.

    Args:
        tables: of all models, `omission` with a column `model`.
        folder: is made if it does not exist.
    """
    return list(_drawn("models", draw_models, pooled(tables), folder, ""))


def _drawn(name: str, draw: Draw, tables: Tables, folder: Path, prefix: str) -> Iterator[Drawn]:
    title, caption = CAPTIONS[name]
    figure = draw(tables, title)
    if figure is not None:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        with atomic_path(folder / f"{prefix}{name}.png") as path:
            path.write_bytes(buffer.getvalue())
        yield Drawn(f"{prefix}{name}", title, caption, buffer.getvalue())


def pooled(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return the rows over all sources, or of the only source; tables without sources whole."""
    found = dict(tables)
    for name, table in tables.items():
        if len(table) and "source" in table and name not in ("pairs", "too_short"):
            main = table[table["source"] == POOLED]
            found[name] = main if len(main) else table
    found["by_source"] = tables.get("omission", pd.DataFrame())
    return found
