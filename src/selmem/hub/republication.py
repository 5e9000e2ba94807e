"""What of the measured tables may be published: licences decide source by source.

Of a source that may not be republished, tags, counts and omission flags stay; everything that is
its text, or from which its text could be computed, goes. Exact bits of a token or a short text name
it to whoever has the public models, and a frequency names its word, so they go too.
"""

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from selmem.errors import InputError
from selmem.licences import licence_of

# per table: the columns that stay in rows of such a source; None drops the rows. Columns that are
# not named here are withheld, so a new one has to be thought about before it is published
HARMLESS: Mapping[str, frozenset[str] | None] = {
    "chunks": frozenset({"chunk_id", "doc_id", "source", "length"}),
    "reconstructions": frozenset(
        {"chunk_id", "encoder", "probe", "length", "exact_match", "eos_bits"}
        | {"rouge1_f1", "rouge2_f1", "rougeL_f1"}
    ),
    "tokens": None,
    "words": frozenset(
        {"chunk_id", "word_index", "token_start", "n_tokens", "cut", "pos", "entity", "kind"}
        | {"omitted_count", "omitted_aligned", "omitted_forced", "chance_count", "chance_aligned"}
    ),
}
AGGREGATES = frozenset({"omission"})  # hold no row of a single text


def withheld_sources(sources: Iterable[str]) -> set[str]:
    """Return those of `sources` whose text may not be published again."""
    return {source for source in sources if not licence_of(source).republish}


def publishable(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the five tables without what may not be published.

    Args:
        tables: table by name, as `measure` and `report` write them. `chunks` tells the source of
            every chunk_id.

    Raises:
        InputError: a chunk_id of another table is not in `chunks`, so its source is unknown.
    """
    chunks = tables["chunks"]
    withheld = withheld_sources(chunks["source"].unique().to_pylist())
    hidden = chunks.filter(pc.is_in(chunks["source"], pa.array(sorted(withheld), pa.string())))
    return {
        name: _withhold(name, table, hidden["chunk_id"], chunks["chunk_id"])
        for name, table in tables.items()
    }


def _withhold(
    name: str, table: pa.Table, hidden: pa.ChunkedArray, known: pa.ChunkedArray
) -> pa.Table:
    if name in AGGREGATES:
        return table
    harmless = HARMLESS[name]
    strays = table.filter(pc.invert(pc.is_in(table["chunk_id"], known)))
    if strays.num_rows:
        raise InputError(
            f"{name} has chunk {strays['chunk_id'][0].as_py()!r}, which is not in chunks; without "
            "its source it cannot be told whether it may be published"
        )
    mask = pc.is_in(table["chunk_id"], hidden)
    if harmless is None:
        return table.filter(pc.invert(mask))
    for index, field in enumerate(table.schema):
        if field.name not in harmless:
            kept = pc.if_else(mask, pa.scalar(None, field.type), table[field.name])
            table = table.set_column(index, field, kept)
    return table
