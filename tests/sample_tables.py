"""The five tables of a small measurement: one source that may be published again, one that may not.

Every text, word and token of the source that may not contains the letters of `SECRET`.
"""

import pyarrow as pa

from selmem.tables import SCHEMAS, write_table

SECRET = "zqx"
OPEN, CLOSED = "gsm8k", "conll2003"


def write_measured(folder, *, probe="selmem/mamba-tiny-probe", controls=("conv",)):
    """Write the five tables of one probe into `folder`."""
    for name, rows in sample_rows(probe, controls).items():
        schema = SCHEMAS[name]
        for control in controls if name == "tokens" else ():
            schema = schema.append(pa.field(f"probe_bits_{control}", pa.float32()))
        table = pa.Table.from_pylist(rows, schema=schema)
        write_table(table, folder / f"{name}.parquet", metadata={"data": ["/home/me/private.txt"]})
    (folder / "run.json").write_text("{}")
    return folder


def sample_rows(probe, controls=()):
    """Return the rows of every table: two documents a source, two chunks of four tokens each."""
    chunks = [_chunk(source, doc, i) for source in (OPEN, CLOSED) for doc in "ab" for i in (0, 1)]
    return {
        "chunks": chunks,
        "reconstructions": [_reconstruction(chunk, probe) for chunk in chunks],
        "tokens": [_token(chunk, i, controls) for chunk in chunks for i in range(4)],
        "words": [_word(chunk, i) for chunk in chunks for i in range(2)],
        "omission": [
            _omission(probe, source, length, tag, rule)
            for source in (OPEN, CLOSED)
            for length in (4, 16)
            for tag in ("all", "noun")
            for rule in ("count", "aligned", "forced")
        ],
    }


def _mark(source):
    return SECRET if source == CLOSED else "plain"


def _chunk(source, doc, number):
    mark = _mark(source)
    ids = [7001, 7002, 7003, 7004] if source == CLOSED else [1, 2, 3, 4]
    return {
        "chunk_id": f"{source}/{doc}/4/{number}",
        "doc_id": doc,
        "source": source,
        "length": 4,
        "text": f"{mark}one {mark}two",
        "token_ids": ids,
        "pretoken_ends": [8, 17],
    }


def _reconstruction(chunk, probe):
    return {
        "chunk_id": chunk["chunk_id"],
        "encoder": "selmem/mamba-tiny",
        "probe": probe,
        "length": 4,
        "reference": chunk["text"],
        "text": chunk["text"],
        "token_ids": chunk["token_ids"],
        "pretoken_ends": chunk["pretoken_ends"],
        "rouge1_f1": 1.0,
        "rouge2_f1": 1.0,
        "rougeL_f1": 1.0,
        "exact_match": True,
        "encoder_perplexity": 77.125,
        "null_bits": 40.0,
        "recovered_bits": 30.0,
        "eos_bits": 0.5,
    }


def _token(chunk, position, controls):
    row = {
        "chunk_id": chunk["chunk_id"],
        "position": position,
        "token_id": chunk["token_ids"][position],
        "token": f"{_mark(chunk['source'])}{position}",
        "word_index": position // 2,
        "probe_bits": 2.5,
        "null_bits": 10.0,
        "base_bits": 9.0,
        "recovered_bits": 7.5,
        "forced_argmax_id": chunk["token_ids"][position],
        "forced_confidence": 0.625,
        "null_argmax_id": chunk["token_ids"][position],
        "aligned": True,
    }
    return row | {f"probe_bits_{control}": 5.0 for control in controls}


def _word(chunk, index):
    return {
        "chunk_id": chunk["chunk_id"],
        "word_index": index,
        "word": f"{_mark(chunk['source'])}{('one', 'two')[index]}",
        "char_start": 9 * index,
        "char_end": 9 * index + 8,
        "token_start": 2 * index,
        "n_tokens": 2,
        "cut": False,
        "pos": "noun",
        "entity": "O",
        "kind": "word",
        "omitted_count": 0.0,
        "omitted_aligned": False,
        "omitted_forced": False,
        "chance_count": 0.9,
        "chance_aligned": 0.95,
        "null_bits": 20.0,
        "recovered_bits": 15.0,
        "log10_word_frequency": -4.0,
        "log10_min_token_frequency": -5.0,
    }


def _omission(probe, source, length, tag, rule):
    rate = 0.1 + 0.01 * length + (0.05 if tag == "noun" else 0) + (0.02 if rule != "count" else 0)
    return {
        "encoder": "selmem/mamba-tiny",
        "probe": probe,
        "source": source,
        "length": length,
        "scheme": "all" if tag == "all" else "pos",
        "tag": tag,
        "rule": rule,
        "n_words": 1234 * length,
        "n_documents": 12,
        "omission_rate": rate,
        "ci_low": rate - 0.03,
        "ci_high": rate + 0.04,
        "chance_rate": None if rule == "forced" else 0.9,
        "retained_over_chance": None if rule == "forced" else 1 - rate / 0.9,
        "recovered_fraction": 0.75 - 0.01 * length,
        "tokens_per_word": 1.5,
    }
