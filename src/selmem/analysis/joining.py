"""Several folders of one encoder and probe as one measurement."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pandas.api.types import union_categoricals

from selmem.analysis.measurements import Measurement
from selmem.errors import InputError

_WEIGHTS = ("encoder_fingerprint", "probe_fingerprints", "tokenizer_hash", "dtype")
_OF_CHUNK = ("document", "source", "length")


def join_measurements(parts: Sequence[Measurement], folders: Sequence[Path]) -> Measurement:
    """Return the measurement whose chunks are those of all parts.

    Args:
        parts: of one encoder and probe; their sources or lengths differ.
        folders: where each was read, for messages.

    Raises:
        InputError: two parts hold the same chunk, or their models are of other weights.
    """
    for part, folder in zip(parts[1:], folders[1:], strict=True):
        _require_same_models(parts[0], part, folders[0], folder)
    chunks = _stacked([part.chunks for part in parts])
    _require_different_chunks(chunks, [len(part.chunks) for part in parts], folders)
    documents = chunks["source"].astype(str) + "\x1f" + chunks["doc_id"].astype(str)
    chunks["document"] = pd.factorize(documents)[0]
    return Measurement(
        encoder=parts[0].encoder,
        probe=parts[0].probe,
        run=_joined_run([part.run for part in parts]),
        chunks=chunks,
        words=_of_chunks([part.words for part in parts], parts, chunks),
        tokens=_of_chunks([part.tokens for part in parts], parts, chunks),
        reference_ids=pa.concat_arrays([part.reference_ids for part in parts]),
        reconstructed_ids=pa.concat_arrays([part.reconstructed_ids for part in parts]),
    )


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the frames one below the other; columns that some lack are filled with nan."""
    common = [name for name in frames[0] if all(name in frame for frame in frames)]
    categories = {
        name: union_categoricals([_named(frame[name]) for frame in frames], sort_categories=True)
        for name in common
        if all(isinstance(frame[name].dtype, pd.CategoricalDtype) for frame in frames)
    }
    plain = [frame.drop(columns=list(categories)) for frame in frames]
    joined = pd.concat(plain, ignore_index=True)
    for name, values in categories.items():
        joined[name] = values
    others = [name for name in joined if name not in common]
    return joined[[*common, *others]]


def _named(column: pd.Series) -> pd.Series:
    """Return a column of categories whose names are text, also where there are none."""
    return column.astype(pd.CategoricalDtype(column.cat.categories.astype(str)))


def _of_chunks(
    frames: Sequence[pd.DataFrame], parts: Sequence[Measurement], chunks: pd.DataFrame
) -> pd.DataFrame:
    """Return rows that know their chunk, with `chunk` and what follows from it for the joined."""
    starts = pd.Series([len(part.chunks) for part in parts]).cumsum().shift(fill_value=0)
    shifted = [
        frame.drop(columns=list(_OF_CHUNK)).assign(chunk=frame["chunk"] + start)
        for frame, start in zip(frames, starts, strict=True)
    ]
    joined = _stacked(shifted)
    rows = joined["chunk"].to_numpy()
    for name in _OF_CHUNK:
        joined[name] = chunks[name].take(rows).array
    return joined


def _require_same_models(
    first: Measurement, other: Measurement, first_folder: Path, folder: Path
) -> None:
    ours, theirs = (m.run.get("config", {}) for m in (first, other))
    different = [name for name in _WEIGHTS if ours.get(name) != theirs.get(name)]
    if different:
        raise InputError(
            f"{folder} and {first_folder} both measure probe {other.probe} on {other.encoder}, but "
            f"with another {', '.join(different)}; report them apart"
        )


def _require_different_chunks(
    chunks: pd.DataFrame, sizes: Sequence[int], folders: Sequence[Path]
) -> None:
    repeated = chunks["chunk_id"].duplicated()
    if not repeated.any():
        return
    name = chunks.loc[repeated, "chunk_id"].iloc[0]
    ends = pd.Series(sizes).cumsum()
    first, second = (
        folders[int((ends <= row).sum())] for row in chunks.index[chunks["chunk_id"] == name][:2]
    )
    raise InputError(f"{second} and {first} both hold chunk {name}; give one of them")


def _joined_run(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what run.json would say of all: lists joined, and what differs as a list."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for run in runs for key in run):
        values = [run[key] for run in runs if key in run]
        if key != "config_hash":
            joined[key] = _joined_value(values)
    return joined


def _joined_value(values: Sequence[Any]) -> Any:
    if all(isinstance(value, dict) for value in values):
        return _joined_run(values)
    if all(isinstance(value, list) for value in values):
        return [*{str(item): item for value in values for item in value}.values()]
    different = [value for i, value in enumerate(values) if value not in values[:i]]
    return different[0] if len(different) == 1 else different
