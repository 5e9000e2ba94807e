"""Datasets of the Hugging Face Hub, streamed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selmem.documents import Document
from selmem.errors import InputError
from selmem.readers.records import ToClass, record_document


def read_hub(
    address: str, source: str, to_class: ToClass, columns: Sequence[str] = ()
) -> Iterator[Document]:
    """Yield a document per row of `dataset[@revision][:config[:split]]`, streamed.

    Class labels (`pos_tags`, `ner_tags`) become their names. A row without an id is named by its
    number, from 1. Without a split, the dataset must have only one.

    Raises:
        InputError: no such dataset, configuration or split, or no text column.
    """
    rows, split = _load(address)
    names = _label_names(rows.features or {})
    for number, row in enumerate(rows, start=1):
        record = {column: _named(value, names.get(column)) for column, value in row.items()}
        where = f"hub:{address}, row {number}"
        yield record_document(
            record, source, str(number), to_class, where=where, columns=columns, split=split
        )


def _load(address: str) -> tuple[Any, str]:
    from datasets import load_dataset

    name, config, split = (*address.split(":"), "", "")[:3]
    name, _, revision = name.partition("@")
    try:
        splits = load_dataset(name, config or None, revision=revision or None, streaming=True)
    except (OSError, ValueError) as error:  # DatasetNotFoundError is a FileNotFoundError
        raise InputError(f"cannot load the dataset {name}: {error}") from error
    if not split and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        raise InputError(
            f"hub:{address}: "
            + (f"no split {split!r}" if split else "which split?")
            + f" It has {', '.join(splits)}; write hub:{name}:{config or 'default'}:SPLIT"
        )
    return splits[split], split


def _label_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the label names of each column of class labels, single or in lists."""
    inner = {column: getattr(feature, "feature", feature) for column, feature in features.items()}
    return {column: feature.names for column, feature in inner.items() if hasattr(feature, "names")}


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(entry, names) for entry in value]
    return names[value] if value >= 0 else None  # -1 is a label that is kept back
