"""Tables such as `selmem measure` writes, with errors that come in documents and a known truth.

Words come from a Zipf vocabulary; each has a part of speech, an entity type, a kind, a number of
tokens and a frequency. A token's error probability grows with its document's own effect, its
distance to the end of the chunk, the chunk's length, its rarity, and for NUM and ORG a fixed extra.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from scipy.special import expit

from selmem.analysis import load_measurement
from selmem.tables import CHUNKS, RECONSTRUCTIONS, TOKENS, WORDS, write_table

POS = ("NOUN", "VERB", "ADJ", "ADP", "DET", "PUNCT", "NUM", "PRON", "ADV", "INTJ")
POS_SHARES = (0.3, 0.15, 0.1, 0.1, 0.1, 0.1, 0.08, 0.04, 0.025, 0.005)
ENTITIES = ("O", "PER", "LOC", "ORG", "MISC")
CONTROLS = ("conv_only", "other_state", "layer_0_other", "layer_1_other")
FIRST_ERROR_ID = 1_000_000  # ids that no reference holds


@dataclass
class World:
    """What the tables look like; the defaults suit most tests."""

    seed: int = 0
    n_documents: int = 40  # per source
    words_per_document: int = 120  # mean
    lengths: tuple[int, ...] = (16, 64)  # tokens
    sources: tuple[str, ...] = ("news",)
    encoder: str = "tiny-130m"
    intercept: float = -1.6
    effect: tuple[tuple[str, float], ...] = (("NUM", 1.0), ("ORG", 0.8))  # log odds of a tag
    source_effect: tuple[tuple[str, float], ...] = ()
    rarity: float = 0.3  # extra per decade of rarity
    null_probe: bool = True
    entities: bool = True
    controls: tuple[str, ...] = ()
    frequencies: bool = True
    annotated: bool = True


@cache
def loaded(**changes):
    """Return the measurement of such tables; made once for equal (hashable) arguments."""
    with TemporaryDirectory() as folder:
        return load_measurement(write_measurement(Path(folder), **changes))


def vocabulary(rng, n=1500):
    """Return the columns of a Zipf vocabulary as a dict of arrays."""
    pos = rng.choice(POS, n, p=POS_SHARES)
    noun = pos == "NOUN"
    entity = np.where(noun, rng.choice(ENTITIES, n, p=(0.6, 0.1, 0.1, 0.1, 0.1)), "O")
    kind = np.select(
        [pos == "NUM", pos == "PUNCT", rng.random(n) < 0.03],
        ["number", "punctuation", "variable"],
        "word",
    )
    n_tokens = np.where(np.isin(pos, ("DET", "ADP", "PUNCT")), 1, rng.integers(1, 4, n))
    share = 1 / (np.arange(n) + 5.0)
    return {
        "text": np.array([f"w{i}{p.lower()}" for i, p in enumerate(pos)]),
        "pos": pos,
        "entity": entity,
        "kind": kind,
        "n_tokens": n_tokens,
        "first_id": np.concatenate([[10], 10 + np.cumsum(n_tokens)[:-1]]),
        "share": share / share.sum(),
        "log10_frequency": np.log10(share / share.sum()) - rng.normal(0, 0.2, n) ** 2,
    }


def write_measurement(folder, world=None, **changes):
    """Write the four tables and run.json into `folder`; return the folder."""
    world = World(**changes) if world is None else world
    rng = np.random.default_rng(world.seed)
    words = vocabulary(np.random.default_rng(11))
    parts = [
        _document_tables(rng, world, words, source, number)
        for source in world.sources
        for number in range(world.n_documents)
    ]
    columns = {
        name: {key: np.concatenate([p[name][key] for p in parts]) for key in parts[0][name]}
        for name in ("tokens", "words")
    }
    rows = {name: [row for p in parts for row in p[name]] for name in ("chunks", "reconstructions")}
    metadata = {"encoder": world.encoder, "synthetic": True}
    tables = {
        "chunks": pa.Table.from_pylist(rows["chunks"], CHUNKS),
        "reconstructions": pa.Table.from_pylist(rows["reconstructions"], RECONSTRUCTIONS),
        "tokens": _table(columns["tokens"], TOKENS),
        "words": _table(columns["words"], WORDS),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(table, folder / f"{name}.parquet", metadata=metadata)
    run = {"config": {"encoder": world.encoder, "lengths": list(world.lengths)}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def _table(columns, schema):
    names = [*schema.names, *(name for name in columns if name not in schema.names)]
    arrays = {}
    for name in names:
        kind = schema.field(name).type if name in schema.names else pa.float32()
        values = columns[name]
        if values.dtype.kind == "f":
            arrays[name] = pa.array(values, pa.float64(), from_pandas=True).cast(kind)
        else:
            arrays[name] = pa.array(values.tolist(), kind)
    return pa.table(arrays)


def _document_tables(rng, world, vocabulary, source, number):
    n_words = max(4, int(rng.lognormal(np.log(world.words_per_document), 0.5)))
    drawn = rng.choice(len(vocabulary["share"]), n_words, p=vocabulary["share"])
    n_tokens = vocabulary["n_tokens"][drawn]
    word = np.repeat(np.arange(n_words), n_tokens)
    piece = np.arange(len(word)) - np.repeat(np.cumsum(n_tokens) - n_tokens, n_tokens)
    document = {
        "doc_id": f"{number:05d}",
        "source": source,
        "word": word,
        "piece": piece,
        "token_id": vocabulary["first_id"][drawn][word] + piece,
        "drawn": drawn,
        "effect": rng.normal(0, 0.5) + dict(world.source_effect).get(source, 0),
    }
    tables = {"chunks": [], "reconstructions": [], "tokens": [], "words": []}
    for length in world.lengths:
        for start in range(0, len(word) - length + 1, length):
            _add_chunk(rng, world, vocabulary, document, start, length, tables)
    return {
        **{name: tables[name] for name in ("chunks", "reconstructions")},
        **{name: _joined(tables[name], name, world) for name in ("tokens", "words")},
    }


def _joined(parts, name, world):
    schema = {"tokens": TOKENS, "words": WORDS}[name]
    if not parts:
        extra = [f"probe_bits_{c}" for c in world.controls]
        names = [*schema.names, *(extra if name == "tokens" else [])]
        return {key: np.empty(0, object if key in TEXTS else float) for key in names}
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


TEXTS = {"chunk_id", "token", "word", "pos", "entity", "kind"}


def _add_chunk(rng, world, vocabulary, document, start, length, tables):
    inside = slice(start, start + length)
    word, piece = document["word"][inside], document["piece"][inside]
    item = document["drawn"][word]
    chunk_id = f"{document['source']}/{document['doc_id']}/{length}/{start // length}"
    p = _error_probability(world, vocabulary, item, length, document["effect"])
    hard = rng.random(length)
    wrong_forced, wrong_aligned = hard < p, (hard < 1.1 * p) | (rng.random(length) < 0.02)
    token_ids = document["token_id"][inside]
    tokens = _token_columns(rng, world, vocabulary, item, piece, p, wrong_forced)
    tokens |= {
        "chunk_id": np.full(length, chunk_id, object),
        "position": np.arange(length),
        "token_id": token_ids,
        "word_index": word - word[0] if world.annotated else np.full(length, -1),
        "forced_argmax_id": np.where(wrong_forced, FIRST_ERROR_ID + 7, token_ids),
        "null_argmax_id": np.where(tokens["null_bits"] > 1.5, FIRST_ERROR_ID + 8, token_ids)
        if world.null_probe
        else np.full(length, None, object),
        "aligned": ~wrong_aligned,
    }
    tables["tokens"].append(tokens)
    if world.annotated:
        whole = vocabulary["n_tokens"][document["drawn"]]
        tables["words"].append(_word_columns(world, vocabulary, document, word, whole, tokens))
    tables["chunks"].append(
        {
            "chunk_id": chunk_id,
            "doc_id": document["doc_id"],
            "source": document["source"],
            "length": length,
            "text": " ".join(vocabulary["text"][item]),
            "token_ids": token_ids.tolist(),
            "pretoken_ends": [],
        }
    )
    tables["reconstructions"].append(_reconstruction(rng, world, chunk_id, length, tokens))


def _error_probability(world, vocabulary, item, length, effect):
    remaining = np.arange(length, 0, -1)
    extra = sum(
        value * ((vocabulary["pos"][item] == tag) | (vocabulary["entity"][item] == tag))
        for tag, value in world.effect
    )
    rarity = -vocabulary["log10_frequency"][item] - 3
    recent = np.where(remaining <= 4, -2.0, 0.0)
    slope = 0.5 * np.log2(length / 16) + 0.6 * remaining / length
    return expit(world.intercept + effect + extra + world.rarity * rarity + slope + recent)


def _token_columns(rng, world, vocabulary, item, piece, p, wrong):
    n = len(item)
    null = np.clip(-2.5 * vocabulary["log10_frequency"][item] + rng.normal(0, 1, n), 0.2, None)
    null = np.where(piece > 0, 0.4 * null, null)
    probe = np.where(wrong, null * rng.uniform(0.4, 1.1, n), rng.exponential(0.2, n))
    columns = {
        "token": np.array(
            [f"{t}.{k}" for t, k in zip(vocabulary["text"][item], piece, strict=True)], object
        ),
        "probe_bits": probe,
        "null_bits": null if world.null_probe else np.full(n, np.nan),
        "base_bits": np.clip(null + rng.normal(0.1, 0.5, n), 0.1, None),
        "recovered_bits": null - probe if world.null_probe else np.full(n, np.nan),
    }
    columns["forced_confidence"] = np.clip(1 - p + rng.normal(0, 0.02, n), 0.02, 1)
    for i, control in enumerate(world.controls):
        columns[f"probe_bits_{control}"] = probe + (i + 1) * rng.uniform(0.3, 1.5, n)
    return columns


def _word_columns(world, vocabulary, document, word, whole, tokens):
    index, starts, counts = np.unique(word, return_index=True, return_counts=True)
    item = document["drawn"][index]
    wrong = np.add.reduceat(~tokens["aligned"], starts) > 0
    forced = np.add.reduceat(tokens["forced_argmax_id"] != tokens["token_id"], starts) > 0
    common = np.clip(40 * vocabulary["share"][item], 0, 0.9)
    unknown = np.full(len(index), np.nan)
    frequency = vocabulary["log10_frequency"][item] if world.frequencies else unknown
    return {
        "chunk_id": tokens["chunk_id"][starts],
        "word_index": index - index[0],
        "word": vocabulary["text"][item].astype(object),
        "char_start": starts,
        "char_end": starts + counts,
        "token_start": starts,
        "n_tokens": counts,
        "cut": counts < whole[index],
        "pos": vocabulary["pos"][item].astype(object),
        "entity": vocabulary["entity"][item].astype(object)
        if world.entities
        else np.full(len(index), None, object),
        "kind": vocabulary["kind"][item].astype(object),
        "omitted_count": wrong * (1 - common / 2),
        "omitted_aligned": wrong,
        "omitted_forced": forced,
        "chance_count": 1 - common,
        "chance_aligned": 1 - common / 2,
        "null_bits": np.add.reduceat(tokens["null_bits"], starts),
        "recovered_bits": np.add.reduceat(tokens["recovered_bits"], starts),
        "log10_word_frequency": frequency,
        "log10_min_token_frequency": frequency - 0.1,
    }


def _reconstruction(rng, world, chunk_id, length, tokens):
    kept = tokens["aligned"]
    replaced = ~kept & (rng.random(length) < 0.7)
    ids = np.where(kept, tokens["token_id"], FIRST_ERROR_ID + rng.integers(0, 50, length))
    known = np.isfinite(tokens["null_bits"]).all()
    return {
        "chunk_id": chunk_id,
        "encoder": world.encoder,
        "probe": f"{world.encoder}-probe",
        "length": length,
        "reference": chunk_id,
        "text": chunk_id,
        "token_ids": ids[kept | replaced].tolist(),
        "pretoken_ends": [],
        "rouge1_f1": float(kept.mean()),
        "rouge2_f1": float(kept.mean() ** 2),
        "rougeL_f1": float(kept.mean() ** 1.5),
        "exact_match": bool(kept.all()),
        "encoder_perplexity": float(2 ** tokens["base_bits"].mean()),
        "null_bits": float(tokens["null_bits"].sum()) if known else None,
        "recovered_bits": float(tokens["recovered_bits"].sum()) if known else None,
        "eos_bits": float(rng.exponential(0.5)),
    }
