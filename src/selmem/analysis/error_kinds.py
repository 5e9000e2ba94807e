"""What kind of error a greedy reconstruction makes, and what stands in a lost word's place."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from selmem.analysis.groups import Ratio, each_group, ratio_table
from selmem.analysis.measurements import Measurement
from selmem.omission_rate.alignment import align
from selmem.resampling import Resampling

Ints = NDArray[np.int64]

EDITS = ("substituted", "deleted", "inserted")
FATES = (
    "first token kept",
    "another token kept",
    "replaced, same class",
    "replaced, other class",
    "replaced, no known word",
    "deleted",
)


@dataclass(frozen=True)
class Edits:
    """Every reference token's fate, the tokens of all chunks one after the other.

    Attributes:
        starts: (chunks + 1,) first token of each chunk.
        token_ids: (tokens,) of the references.
        aligned: (tokens,) bool.
        substitute: (tokens,) id of the token in its place, -1 where none is.
        inserted: (chunks,) tokens of the reconstruction that stand for none of the reference.
    """

    starts: Ints
    token_ids: Ints
    aligned: NDArray[np.bool_]
    substitute: Ints
    inserted: Ints


def find_edits(references: pa.ListArray, others: pa.ListArray) -> Edits:
    """Align token ids and return what became of every reference token.

    Between two neighbouring aligned tokens, the unaligned ones of the reference and those of the
    reconstruction pair up in order as substitutions; what is left over is deleted or inserted.
    """
    matches = align(references.to_pylist(), others.to_pylist())
    starts, ids = _flat(references)
    other_starts, other_ids = _flat(others)
    match = np.concatenate([*matches, np.empty(0, np.int64)]).astype(np.int64)
    aligned = match >= 0
    chunk = np.repeat(np.arange(len(references)), np.diff(starts))
    other_aligned = np.zeros(len(other_ids), bool)
    other_aligned[other_starts[chunk[aligned]] + match[aligned]] = True
    width = int(np.diff(other_starts).max(initial=0) + np.diff(starts).max(initial=0)) + 1
    keys = _places_in_gaps(starts, aligned, width)
    other_keys = _places_in_gaps(other_starts, other_aligned, width)
    free, other_free = np.flatnonzero(~aligned), np.flatnonzero(~other_aligned)
    _, ours, theirs = np.intersect1d(keys, other_keys, assume_unique=True, return_indices=True)
    substitute = np.full(len(ids), -1, np.int64)
    substitute[free[ours]] = other_ids[other_free[theirs]]
    left = np.delete(other_free, theirs)
    other_chunk = np.repeat(np.arange(len(references)), np.diff(other_starts))
    inserted = np.bincount(other_chunk[left], minlength=len(references))
    return Edits(starts, ids, aligned, substitute, inserted)


def _flat(lists: pa.ListArray) -> tuple[Ints, Ints]:
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values.to_numpy()[offsets[0] : offsets[-1]]
    return offsets - offsets[0], values.astype(np.int64)


def _places_in_gaps(starts: Ints, aligned: NDArray[np.bool_], width: int) -> Ints:
    """Return for each unaligned token a number for (chunk, gap, place in the gap)."""
    chunk = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    before = np.concatenate([[0], np.cumsum(aligned)])
    gap = chunk * width + before[:-1] - before[starts[chunk]]
    gaps = gap[~aligned]
    place = np.arange(len(gaps)) - np.searchsorted(gaps, gaps, side="left")
    return np.asarray(gaps * width + place)


def edit_table(measurement: Measurement, edits: Edits, resampling: Resampling) -> pd.DataFrame:
    """Return substitutions, deletions and insertions per reference token, by source and length."""
    chunks = measurement.chunks.copy()
    chunk = np.repeat(np.arange(len(chunks)), np.diff(edits.starts))
    replaced = edits.substitute >= 0
    counts = (
        np.bincount(chunk, replaced, len(chunks)),
        np.bincount(chunk, ~edits.aligned & ~replaced, len(chunks)),
        edits.inserted,
    )
    for name, count in zip(EDITS, counts, strict=True):
        chunks[name] = count.astype(float)
    ratios = [Ratio(name, name, "n_tokens") for name in EDITS]
    tables = []
    for source, length, part in each_group(chunks):
        table = ratio_table(part, np.zeros(len(part), int), [source], ratios, resampling)
        tables.append(table.assign(source=source, length=length))
    found = pd.concat(tables, ignore_index=True).drop(columns="group")
    found = found.rename(columns={"n_rows": "n_chunks"})
    return found.assign(encoder=measurement.encoder, probe=measurement.probe)


def fate_table(measurement: Measurement, edits: Edits, resampling: Resampling) -> pd.DataFrame:
    """Return what became of the omitted words (rule `aligned`), as shares of them.

    A word none of whose tokens is aligned is `replaced` if tokens stand in its tokens' place; the
    class of these is looked up among the annotated words of the same measurement with the same
    tokens (its most frequent part of speech). Rows: tag `all`, and each part of speech.
    """
    words = measurement.words[
        ~measurement.words["cut"] & (measurement.words["omitted_aligned"] > 0)
    ]
    words = words.assign(one=1.0, fate=_fates(measurement, words, edits))
    for fate in FATES:
        words[fate] = (words["fate"] == fate).astype(float)
    ratios = [Ratio(fate, fate, "one", is_rate=True) for fate in FATES]
    tables = []
    for source, length, part in each_group(words):
        codes = part["pos"].cat.codes.to_numpy().astype(np.int64)
        labels = [str(name) for name in part["pos"].cat.categories]
        for groups, names in ((np.zeros(len(part), int), ["all"]), (codes, labels)):
            if (groups >= 0).any():
                table = ratio_table(part, groups, names, ratios, resampling)
                tables.append(table.assign(source=source, length=length))
    if not tables:
        return pd.DataFrame()
    found = pd.concat(tables, ignore_index=True)
    found = found.rename(columns={"group": "tag", "n_rows": "n_omitted_words"})
    return found.assign(encoder=measurement.encoder, probe=measurement.probe)


def _fates(measurement: Measurement, words: pd.DataFrame, edits: Edits) -> list[str]:
    known = _classes_by_tokens(measurement, edits)
    first, end = _token_spans(words, edits)
    classes = words["pos"].astype(object).to_numpy()
    return [
        _fate(edits, slice(int(a), int(b)), classes[i], known)
        for i, (a, b) in enumerate(zip(first, end, strict=True))
    ]


def _fate(edits: Edits, span: slice, word_class: object, known: dict[bytes, object]) -> str:
    kept = edits.aligned[span]
    if kept.any():
        return FATES[0] if kept[0] else FATES[1]
    put = edits.substitute[span]
    put = put[put >= 0]
    if not len(put):
        return FATES[5]
    put_class = known.get(put.tobytes())
    if put_class is None:
        return FATES[4]
    return FATES[2] if put_class == word_class else FATES[3]


def _classes_by_tokens(measurement: Measurement, edits: Edits) -> dict[bytes, object]:
    """Return {token ids, as bytes: most frequent part of speech} of the annotated whole words."""
    words = measurement.words[~measurement.words["cut"] & measurement.words["pos"].notna()]
    first, end = _token_spans(words, edits)
    keys = [edits.token_ids[a:b].tobytes() for a, b in zip(first, end, strict=True)]
    counts = Counter(zip(keys, words["pos"].astype(object), strict=True))
    return {key: pos for (key, pos), _ in sorted(counts.items(), key=lambda item: item[1])}


def _token_spans(words: pd.DataFrame, edits: Edits) -> tuple[Ints, Ints]:
    starts = edits.starts[words["chunk"].to_numpy()]
    first = starts + words["first_position"].to_numpy()
    return first, starts + words["last_position"].to_numpy() + 1
