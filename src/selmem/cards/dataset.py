"""The card of the published tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import DatasetCardData

from selmem.cards.columns import COLUMNS
from selmem.cards.rendering import render_card
from selmem.licences import licence_of
from selmem.tables import SCHEMAS

Tables = dict[str, pa.Table]

ROW_MEANINGS: Mapping[str, str] = {
    "chunks": "a chunk of T tokens of one document",
    "reconstructions": "what the probe wrote for a chunk, and scores of it",
    "tokens": "a token of a chunk, with its bits under probe, null probe and encoder",
    "words": "a word of a chunk, with its tags and whether it was omitted",
    "omission": "an omission rate of one tag, source and length, with its interval",
}


@dataclass(frozen=True)
class Split:
    """The tables of one measured probe, as they are published."""

    name: str
    tables: Tables
    files: Mapping[str, Path]  # the staged Parquet file of each table


def dataset_card(splits: Sequence[Split], repo_id: str, templates: Path) -> str:
    """Return the card of the dataset in `splits`.

    Raises:
        InputError: a number is missing.
    """
    context = {
        "repo_id": repo_id,
        "namespace": repo_id.split("/")[0],
        "columns": COLUMNS,
        "metadata": _metadata(splits, repo_id).to_yaml(),
        "tables": [_table_facts(name, splits) for name in SCHEMAS],
        "splits": [_split_facts(split) for split in splits],
        "sources": _source_facts(splits),
    }
    return render_card("dataset", templates, context)


def _metadata(splits: Sequence[Split], repo_id: str) -> DatasetCardData:
    return DatasetCardData(
        license="other",
        license_name="per-source",
        license_link=f"https://huggingface.co/datasets/{repo_id}#sources-and-licences",
        language="en",
        pretty_name="Omissions of Mamba states",
        size_categories=[_size_category(splits)],
        tags=["mamba", "state-space-model", "interpretability", "probing", "text-reconstruction"],
        configs=[_config(name, splits) for name in SCHEMAS],
        dataset_info=[_info(name, splits) for name in SCHEMAS],
    )


def _config(name: str, splits: Sequence[Split]) -> dict[str, Any]:
    files = [{"split": split.name, "path": f"data/{name}/{split.name}.parquet"} for split in splits]
    return {"config_name": name, "data_files": files}


def _info(name: str, splits: Sequence[Split]) -> dict[str, Any]:
    """Return the `dataset_info` of one config, as the library `datasets` writes it."""
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo

    infos = SplitDict()
    for split in splits:
        table = split.tables[name]
        infos.add(SplitInfo(split.name, num_bytes=table.nbytes, num_examples=table.num_rows))
    schema = splits[0].tables[name].schema
    info = DatasetInfo(
        features=Features.from_arrow_schema(schema.remove_metadata()),
        splits=infos,
        download_size=sum(split.files[name].stat().st_size for split in splits),
        dataset_size=sum(split.tables[name].nbytes for split in splits),
    )
    return {"config_name": name, **info._to_yaml_dict()}


def _size_category(splits: Sequence[Split]) -> str:
    """Return the Hub's name for the order of magnitude of all rows."""
    rows = sum(table.num_rows for split in splits for table in split.tables.values())
    bounds = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}
    return next((name for bound, name in bounds.items() if rows < bound), "10M<n<100M")


def _table_facts(name: str, splits: Sequence[Split]) -> dict[str, Any]:
    return {
        "name": name,
        "row": ROW_MEANINGS[name],
        "n_rows": sum(split.tables[name].num_rows for split in splits),
        "n_bytes": sum(split.files[name].stat().st_size for split in splits),
    }


def _split_facts(split: Split) -> dict[str, Any]:
    chunks, written = split.tables["chunks"], split.tables["reconstructions"]
    return {
        "name": split.name,
        "encoder": written["encoder"][0].as_py(),
        "probe": written["probe"][0].as_py(),
        "lengths": _lengths(chunks),
        "n_chunks": chunks.num_rows,
        "n_documents": _n_documents(chunks),
    }


def _lengths(chunks: pa.Table) -> list[str]:
    """Return the lengths that were asked for, as the chunks' ids have them."""
    found = {chunk_id.rsplit("/", 2)[1] for chunk_id in chunks["chunk_id"].to_pylist()}
    return sorted(found, key=lambda name: int(name) if name.isdigit() else math.inf)


def _source_facts(splits: Sequence[Split]) -> list[dict[str, Any]]:
    columns = ["source", "doc_id", "chunk_id"]
    chunks = pa.concat_tables([split.tables["chunks"].select(columns) for split in splits])
    facts = []
    for source in sorted(chunks["source"].unique().to_pylist()):
        rows = chunks.filter(pc.equal(chunks["source"], source))
        facts.append(
            {
                "name": source,
                "licence": licence_of(source).name,
                "published": licence_of(source).republish,
                "n_chunks": pc.count_distinct(rows["chunk_id"]).as_py(),
                "n_documents": _n_documents(rows),
            }
        )
    return facts


def _n_documents(chunks: pa.Table) -> int:
    return len(set(zip(chunks["source"].to_pylist(), chunks["doc_id"].to_pylist(), strict=True)))
