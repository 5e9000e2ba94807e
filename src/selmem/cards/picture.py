"""The picture of a probe's committed tables, which says what it was drawn from."""

from hashlib import sha256
from pathlib import Path

from selmem.analysis.measurements import POOLED
from selmem.errors import InputError
from selmem.figures.captions import CAPTIONS
from selmem.figures.curves import retention_by_length
from selmem.tables import atomic_path, read_table

SOURCES = ("omission", "lengths")
_NAME = "retention_by_length"


def draw_card_picture(tables: Path, path: Path) -> Path:
    """Draw what comes back by length, over all sources or of the only one; return `path`.

    Args:
        tables: what `collect_card_tables` wrote.
        path: PNG; its field `Source` is what `tables_hash` says of the tables.

    Raises:
        InputError: a table is absent.
    """
    omission, lengths = (read_table(tables / f"{name}.parquet").to_pandas() for name in SOURCES)
    sources = sorted(set(lengths["source"]))
    if POOLED not in sources and len(sources) != 1:
        raise InputError(f"{tables} has {len(sources)} sources and no rows over {POOLED}")
    source = POOLED if POOLED in sources else sources[0]
    figure = retention_by_length(
        omission[omission["source"] == source],
        lengths[lengths["source"] == source],
        title=CAPTIONS[_NAME].title,
    )
    metadata = {"Software": None, "Source": tables_hash(tables)}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata=metadata)
    return path


def tables_hash(tables: Path) -> str:
    """Return the SHA-256 (hex) of the tables that are drawn, one after the other."""
    return sha256(
        b"".join((tables / f"{name}.parquet").read_bytes() for name in SOURCES)
    ).hexdigest()
