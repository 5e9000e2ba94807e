"""The tables of one source and length, from what the models and the rules said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedTokenizerFast

from selmem.chunks import Chunk, ChunkWord
from selmem.frequency import Frequencies
from selmem.measurement.cells import Cell
from selmem.measurement.matching import Matched, match_chunks
from selmem.measurement.placement import token_texts
from selmem.measurement.scoring import EXTRA_TOKENS, Arrays, until_eos
from selmem.tables import CHUNKS, RECONSTRUCTIONS, TOKENS, WORDS

ROUGE = ("rouge1", "rouge2", "rougeL")

Column = npt.NDArray[Any] | list[Any]


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What the tables call the models, and the controls that have a column of bits."""

    encoder: str
    probe: str
    controls: tuple[str, ...]


def cell_tables(
    cell: Cell,
    arrays: Arrays,
    tokenizer: PreTrainedTokenizerFast,
    naming: Naming,
    *,
    frequencies: Frequencies | None,
    seed: int,
) -> dict[str, pa.Table]:
    """Return the tables chunks, reconstructions, tokens and words of one cell.

    Args:
        cell: n chunks.
        arrays: of `scoring.score_batch`, for all chunks of the cell.
        tokenizer: of the ids.
        naming: names in the tables.
        frequencies: of tokens and words, if known.
        seed: of the draws behind the chance rate.
    """
    written = [
        until_eos(row[: chunk.length + EXTRA_TOKENS].tolist(), tokenizer.eos_token_id)
        for row, chunk in zip(arrays["reconstruction"], cell.chunks, strict=True)
    ]
    argmax = [
        row[: chunk.length].astype(np.int32)
        for row, chunk in zip(arrays["argmax"], cell.chunks, strict=True)
    ]
    matched = match_chunks(cell.chunks, written, argmax, tokenizer, seed=seed)
    return {
        "chunks": _chunks(cell, matched),
        "reconstructions": _reconstructions(cell, arrays, matched, written, naming),
        "tokens": _tokens(cell, arrays, matched, tokenizer, naming),
        "words": _words(cell, arrays, matched, frequencies),
    }


def _chunks(cell: Cell, matched: Sequence[Matched]) -> pa.Table:
    return pa.table(
        {
            "chunk_id": [chunk.chunk_id for chunk in cell.chunks],
            "doc_id": [chunk.doc_id for chunk in cell.chunks],
            "source": [chunk.source for chunk in cell.chunks],
            "length": [chunk.length for chunk in cell.chunks],
            "text": [chunk.text for chunk in cell.chunks],
            "token_ids": [list(chunk.token_ids) for chunk in cell.chunks],
            "pretoken_ends": [match.reference_pretoken_ends for match in matched],
        },
        schema=CHUNKS,
    )


def _reconstructions(
    cell: Cell,
    arrays: Arrays,
    matched: Sequence[Matched],
    written: Sequence[list[int]],
    naming: Naming,
) -> pa.Table:
    sums = {name: _text_bits(cell, arrays, name) for name in ("probe", "null", "base")}
    recovered = None if sums["null"] is None else sums["null"] - sums["probe"]
    n_chunks = len(cell.chunks)
    return pa.table(
        {
            "chunk_id": [chunk.chunk_id for chunk in cell.chunks],
            "encoder": [naming.encoder] * n_chunks,
            "probe": [naming.probe] * n_chunks,
            "length": cell.n_tokens,
            "reference": [chunk.text for chunk in cell.chunks],
            "text": [match.text for match in matched],
            "token_ids": written,
            "pretoken_ends": [match.pretoken_ends for match in matched],
            **_rouge(cell.chunks, matched),
            "exact_match": [
                tuple(ids) == chunk.token_ids
                for ids, chunk in zip(written, cell.chunks, strict=True)
            ],
            "encoder_perplexity": _floats(2 ** (sums["base"] / cell.n_tokens)),
            "null_bits": _floats(sums["null"], n_chunks),
            "recovered_bits": _floats(recovered, n_chunks),
            "eos_bits": _floats(arrays["probe_bits"][np.arange(n_chunks), cell.n_tokens]),
        },
        schema=RECONSTRUCTIONS,
    )


def _rouge(chunks: Sequence[Chunk], matched: Sequence[Matched]) -> dict[str, list[float]]:
    """Return the F1 of every ROUGE variant; it sees letters a-z and digits only."""
    scorer = RougeScorer(list(ROUGE), use_stemmer=False)
    pairs = zip(chunks, matched, strict=True)
    scores = [scorer.score(chunk.text, match.text) for chunk, match in pairs]
    return {f"{name}_f1": [score[name].fmeasure for score in scores] for name in ROUGE}


def _tokens(
    cell: Cell,
    arrays: Arrays,
    matched: Sequence[Matched],
    tokenizer: PreTrainedTokenizerFast,
    naming: Naming,
) -> pa.Table:
    size = int(cell.n_tokens.sum())
    flat = {
        name: values[_inside(cell, values)]
        for name, values in arrays.items()
        if name != "reconstruction"
    }
    null_bits: Any = flat.get("null_bits")
    controls = [f"probe_bits_{name}" for name in naming.controls]
    schema = pa.schema([*TOKENS, *((name, pa.float32()) for name in controls)])
    columns = {
        "chunk_id": [chunk.chunk_id for chunk in cell.chunks for _ in range(chunk.length)],
        "position": np.concatenate([np.arange(n, dtype=np.int32) for n in cell.n_tokens]),
        "token_id": np.concatenate([chunk.token_ids for chunk in cell.chunks]).astype(np.int32),
        "token": [t for chunk in cell.chunks for t in token_texts(tokenizer, chunk.token_ids)],
        "word_index": np.concatenate([_word_of_token(chunk) for chunk in cell.chunks]),
        "probe_bits": flat["probe_bits"],
        "null_bits": _floats(null_bits, size),
        "base_bits": flat["base_bits"],
        "recovered_bits": _floats(
            None if null_bits is None else np.subtract(null_bits, flat["probe_bits"]), size
        ),
        "forced_argmax_id": flat["argmax"],
        "forced_confidence": flat["confidence"],
        "null_argmax_id": flat.get("null_argmax", [None] * size),
        "aligned": np.concatenate([match.aligned for match in matched]),
        **{name: _floats(flat.get(name), size) for name in controls},
    }
    return pa.table(columns, schema=schema)


def _word_of_token(chunk: Chunk) -> npt.NDArray[np.int32]:
    """Return the first word that covers each token, -1 where none does."""
    words = np.full(chunk.length, -1, np.int32)
    for word in reversed(chunk.words):
        words[word.token_start : word.token_end] = word.word_index
    return words


def _words(
    cell: Cell, arrays: Arrays, matched: Sequence[Matched], frequencies: Frequencies | None
) -> pa.Table:
    words = [(chunk, word) for chunk in cell.chunks for word in chunk.words]
    spans = [span for match in matched for span in match.spans]
    null_bits = _word_bits(cell, arrays, "null")
    probe_bits = _word_bits(cell, arrays, "probe")
    recovered = None if null_bits is None else null_bits - probe_bits
    columns: dict[str, Column | pa.Array] = {
        "chunk_id": [chunk.chunk_id for chunk, _ in words],
        "word_index": [word.word_index for _, word in words],
        "word": [word.text for _, word in words],
        "char_start": [start for start, _ in spans],
        "char_end": [end for _, end in spans],
        "token_start": [word.token_start for _, word in words],
        "n_tokens": [word.token_end - word.token_start for _, word in words],
        "cut": [word.cut for _, word in words],
        "pos": [word.pos for _, word in words],
        "entity": [word.entity for _, word in words],
        "kind": [word.kind for _, word in words],
        "omitted_count": _joined([match.omitted_count for match in matched]),
        "omitted_aligned": _joined([match.omitted_aligned for match in matched]),
        "omitted_forced": _joined([match.omitted_forced for match in matched]),
        "chance_count": _chance([match.chance_count for match in matched], len(words)),
        "chance_aligned": _chance([match.chance_aligned for match in matched], len(words)),
        "null_bits": _floats(null_bits, len(words)),
        "recovered_bits": _floats(recovered, len(words)),
        **_frequency_columns(words, frequencies),
    }
    return pa.table(columns, schema=WORDS)


def _frequency_columns(
    words: Sequence[tuple[Chunk, ChunkWord]], frequencies: Frequencies | None
) -> dict[str, list[float | None]]:
    names = ("log10_word_frequency", "log10_min_token_frequency")
    if frequencies is None:
        return {name: [None] * len(words) for name in names}
    known = {text: frequencies.log10_word_frequency(text) for text in {w.text for _, w in words}}
    rarest: list[float | None] = [
        frequencies.log10_min_token_frequency(chunk.token_ids[word.token_start : word.token_end])
        for chunk, word in words
    ]
    return dict(zip(names, ([known[word.text] for _, word in words], rarest), strict=True))


def _inside(cell: Cell, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where values (n, T or more) belong to the text: not EOS, and no filling."""
    return np.arange(values.shape[1]) < cell.n_tokens[:, None]


def _text_bits(cell: Cell, arrays: Arrays, name: str) -> Any:
    """Return each chunk's bits without EOS as float64; None where they were not measured."""
    values = arrays.get(f"{name}_bits")
    if values is None:
        return None
    return values.sum(1, dtype=np.float64, where=_inside(cell, values))


def _word_bits(cell: Cell, arrays: Arrays, name: str) -> Any:
    """Return the sum of bits over the tokens of every word; None where there are none."""
    values = arrays.get(f"{name}_bits")
    if values is None:
        return None
    return np.array(
        [
            row[word.token_start : word.token_end].sum(dtype=np.float64)
            for row, chunk in zip(values, cell.chunks, strict=True)
            for word in chunk.words
        ]
    )


def _floats(values: Any, size: int | None = None) -> Any:
    """Return a float32 column; nulls where there are no values."""
    return [None] * (size or 0) if values is None else np.asarray(values, np.float32)


def _joined(rows: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(rows)


def _chance(rows: Sequence[npt.NDArray[Any] | None], size: int) -> Column:
    known = [row for row in rows if row is not None]
    return _joined(known) if len(known) == len(rows) else [None] * size
