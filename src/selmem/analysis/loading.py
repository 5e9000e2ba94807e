"""Reading and checking the tables of `selmem measure`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selmem.analysis.joining import join_measurements
from selmem.analysis.measurements import CONTROL_PREFIX, Measurement
from selmem.errors import InputError
from selmem.json_files import read_object
from selmem.tables import WHOLE_TEXT, read_table

_WORD_TEXT = ("chunk_id", "word", "pos", "entity", "kind")
_WORD_COLUMNS = (
    *_WORD_TEXT,
    "word_index",
    "token_start",
    "n_tokens",
    "cut",
    "omitted_count",
    "omitted_aligned",
    "omitted_forced",
    "chance_count",
    "chance_aligned",
    "null_bits",
    "recovered_bits",
    "log10_word_frequency",
)
_TOKEN_COLUMNS = (
    "chunk_id",
    "position",
    "token_id",
    "word_index",
    "probe_bits",
    "null_bits",
    "base_bits",
    "recovered_bits",
    "forced_argmax_id",
    "forced_confidence",
    "null_argmax_id",
    "aligned",
)
_SCORES = (
    "rouge1_f1",
    "rouge2_f1",
    "rougeL_f1",
    "exact_match",
    "encoder_perplexity",
    "null_bits",
    "recovered_bits",
    "eos_bits",
)


def load_measurements(folders: Sequence[Path]) -> list[Measurement]:
    """Read the folders that `selmem measure` wrote; those of one encoder and probe become one.

    Raises:
        InputError: none given; a table is absent, damaged or of another run; the same chunk twice
            under one encoder and probe, or with other tokens under another.
    """
    if not folders:
        raise InputError("no folder given; name at least one that `selmem measure` wrote")
    groups: dict[tuple[str, str], list[tuple[Measurement, Path]]] = {}
    for folder in map(Path, folders):
        part = load_measurement(folder)
        groups.setdefault((part.encoder, part.probe), []).append((part, folder))
    found = []
    for group in groups.values():
        parts, places = [part for part, _ in group], [folder for _, folder in group]
        found.append(join_measurements(parts, places) if len(group) > 1 else parts[0])
        _check_same_tokens(found[0], found[-1], Path(folders[0]), places[0])
    return found


def load_measurement(folder: Path) -> Measurement:
    """Read one folder that `selmem measure` wrote.

    Raises:
        InputError: a table is absent, damaged, empty, or does not belong to the others.
    """
    chunk_table = read_table(
        folder / "chunks.parquet",
        columns=("chunk_id", "doc_id", "source", "length", "token_ids"),
        dictionary=("source",),
    )
    reconstruction_table = read_table(
        folder / "reconstructions.parquet",
        columns=("chunk_id", "encoder", "probe", "token_ids", *_SCORES),
    )
    chunks = _chunk_frame(chunk_table, folder)
    rows = _rows(reconstruction_table["chunk_id"], chunks, folder / "reconstructions.parquet")
    _check_one_each(rows, len(chunks), folder)
    order = pa.array(np.argsort(rows))
    reconstructions = reconstruction_table.take(order)
    scores = reconstructions.select(list(_SCORES)).to_pandas()
    for name in _SCORES:
        chunks[name] = scores[name].astype(float).to_numpy()
    tokens = _token_frame(folder, chunks)
    return Measurement(
        encoder=_only(reconstructions["encoder"], "encoder", folder),
        probe=_only(reconstructions["probe"], "probe", folder),
        run=read_object(folder / "run.json", "`selmem measure` writes it"),
        chunks=chunks,
        words=_word_frame(folder, chunks, tokens),
        tokens=tokens,
        reference_ids=chunk_table["token_ids"].combine_chunks(),
        reconstructed_ids=reconstructions["token_ids"].combine_chunks(),
    )


def _chunk_frame(table: pa.Table, folder: Path) -> pd.DataFrame:
    if not table.num_rows:
        raise InputError(f"{folder / 'chunks.parquet'} holds no chunk; measure some text first")
    frame: pd.DataFrame = table.drop_columns(["token_ids"]).to_pandas()
    frame["source"] = frame["source"].astype(str).astype("category")
    keys = frame["source"].astype(str) + "\x1f" + frame["doc_id"].astype(str)
    frame["document"] = pd.factorize(keys)[0]
    parts = frame["chunk_id"].str.rsplit("/", n=2)
    frame["number"] = parts.str[-1].astype(int)
    frame["n_tokens"] = frame["length"]
    frame["length"] = frame["length"].where(parts.str[-2] != "whole", WHOLE_TEXT)
    if frame["chunk_id"].duplicated().any():
        repeated = frame.loc[frame["chunk_id"].duplicated(), "chunk_id"].iloc[0]
        raise InputError(f"{folder / 'chunks.parquet'} holds chunk {repeated} twice; measure again")
    return frame


def _rows(chunk_ids: pa.ChunkedArray, chunks: pd.DataFrame, path: Path) -> NDArray[np.int64]:
    """Return the row of `chunks` of each chunk id."""
    codes = chunk_ids.combine_chunks()
    if not isinstance(codes, pa.DictionaryArray):
        codes = codes.dictionary_encode()
    known = pd.Index(chunks["chunk_id"]).get_indexer(pd.Index(codes.dictionary.to_pylist()))
    if (known < 0).any():
        stranger = codes.dictionary[int(np.argmin(known))].as_py()
        raise InputError(
            f"{path} speaks of chunk {stranger}, which chunks.parquet beside it lacks; "
            "the tables are of different runs"
        )
    return np.asarray(known[codes.indices.to_numpy()] if len(codes) else known, dtype=np.int64)


def _check_one_each(rows: NDArray[np.int64], n_chunks: int, folder: Path) -> None:
    counts = np.bincount(rows, minlength=n_chunks)
    if (counts != 1).any():
        raise InputError(
            f"{folder / 'reconstructions.parquet'} has {counts[counts != 1][0]} rows for a chunk, "
            "expected one; was the measurement interrupted? run it again to resume"
        )


def _only(column: pa.ChunkedArray, name: str, folder: Path) -> str:
    values = column.unique().to_pylist()
    if len(values) != 1:
        raise InputError(
            f"{folder / 'reconstructions.parquet'} holds {len(values)} values of {name} "
            f"({', '.join(map(str, values[:3]))}); measure each {name} into a folder of its own"
        )
    return str(values[0])


def _keyed(table: pa.Table, chunks: pd.DataFrame, path: Path) -> pd.DataFrame:
    rows = _rows(table["chunk_id"], chunks, path)
    frame: pd.DataFrame = table.drop_columns(["chunk_id"]).to_pandas()
    frame["chunk"] = rows
    for name in ("document", "source", "length"):
        frame[name] = chunks[name].take(rows).array
    return frame


def _token_frame(folder: Path, chunks: pd.DataFrame) -> pd.DataFrame:
    path = folder / "tokens.parquet"
    read_table(path, columns=_TOKEN_COLUMNS[:1])
    controls = [n for n in pq.read_schema(path).names if n.startswith(CONTROL_PREFIX)]
    table = read_table(path, columns=(*_TOKEN_COLUMNS, *controls), dictionary=("chunk_id",))
    frame = _keyed(table, chunks, path)
    n_tokens = chunks["n_tokens"].to_numpy()
    counts = np.bincount(frame["chunk"], minlength=len(chunks))
    if (counts != n_tokens).any():
        chunk = int(np.argmax(counts != n_tokens))
        raise InputError(
            f"{path} has {counts[chunk]} tokens of chunk {chunks['chunk_id'][chunk]}, expected "
            f"{n_tokens[chunk]}; was the measurement interrupted? run it again to resume"
        )
    order = np.lexsort((frame["position"], frame["chunk"]))
    if (np.diff(order) != 1).any():
        frame = frame.take(order).reset_index(drop=True)
    truth = frame["token_id"]
    guess = frame["null_argmax_id"].astype(float)
    frame["forced_wrong"] = (frame["forced_argmax_id"] != truth).astype(np.float32)
    frame["null_wrong"] = (guess != truth).astype(np.float32).where(guess.notna())
    frame["unaligned"] = (~frame["aligned"].astype(bool)).astype(np.float32)
    return frame


def _word_frame(folder: Path, chunks: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    path = folder / "words.parquet"
    frame = _keyed(read_table(path, columns=_WORD_COLUMNS, dictionary=_WORD_TEXT), chunks, path)
    for name in ("omitted_aligned", "omitted_forced", "omitted_count"):
        frame[name] = frame[name].astype(float)
    frame["cut"] = frame["cut"].astype(bool)
    frame["first_position"] = frame["token_start"]
    frame["last_position"] = frame["token_start"] + frame["n_tokens"] - 1
    n_tokens = chunks["n_tokens"].to_numpy()
    frame["from_end"] = n_tokens[frame["chunk"]] - frame["last_position"]
    if len(frame) and (frame["from_end"].min() < 1 or frame["first_position"].min() < 0):
        raise InputError(f"{path} has words outside of their chunk; the tables do not fit together")
    starts = np.concatenate([[0], np.cumsum(n_tokens)])[frame["chunk"]]
    missed = np.concatenate([[0.0], np.cumsum(tokens["null_wrong"].to_numpy(dtype=float))])
    first, end = starts + frame["first_position"], starts + frame["last_position"] + 1
    wrong = (missed[end] > missed[first]).astype(np.float32)
    frame["chance_forced"] = np.where(np.isfinite(missed[end]), wrong, np.nan)
    return frame


def _check_same_tokens(
    first: Measurement, other: Measurement, first_folder: Path, folder: Path
) -> None:
    """Refuse folders whose tokenizers differ: their chunks are not the same text."""
    shared = pd.Index(first.chunks["chunk_id"]).get_indexer(pd.Index(other.chunks["chunk_id"]))
    rows = np.flatnonzero(shared >= 0)
    ours = first.reference_ids.take(pa.array(shared[rows]))
    theirs = other.reference_ids.take(pa.array(rows))
    if first.tokenizer_hash != other.tokenizer_hash or not ours.equals(theirs):
        raise InputError(
            f"{first_folder} and {folder} are of different tokenizers or texts: the same chunk has "
            "other tokens, so they cannot be compared; report them apart"
        )
