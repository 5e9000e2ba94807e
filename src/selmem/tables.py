"""The published tables: their schemas, and the only code that writes or reads them.

A table is written whole or not at all (temporary file, fsync, rename), and carries in its Parquet
metadata the run's configuration, the hash of it, and the versions that made it.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selmem.errors import InputError

METADATA_KEY = b"selmem"
RULES = ("count", "aligned", "forced")  # by which a word counts as omitted
WHOLE_TEXT = 0  # as a length: chunks that are a whole text, whatever their tokens

_INT_LIST = pa.list_(pa.int32())


def length_name(length: int) -> str:
    """Return what readers see of a length of chunks.

    >>> length_name(16), length_name(WHOLE_TEXT)
    ('16 tokens', 'whole texts')
    """
    return "whole texts" if length == WHOLE_TEXT else f"{length} tokens"


CHUNKS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("length", pa.int32()),  # tokens
        ("text", pa.string()),
        ("token_ids", _INT_LIST),
        ("pretoken_ends", _INT_LIST),  # characters of `text` after which a pre-token ends
    ]
)

RECONSTRUCTIONS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("encoder", pa.string()),
        ("probe", pa.string()),
        ("length", pa.int32()),  # tokens of the reference
        ("reference", pa.string()),
        ("text", pa.string()),
        ("token_ids", _INT_LIST),  # without EOS
        ("pretoken_ends", _INT_LIST),  # of `text`
        ("rouge1_f1", pa.float32()),
        ("rouge2_f1", pa.float32()),
        ("rougeL_f1", pa.float32()),
        ("exact_match", pa.bool_()),
        ("encoder_perplexity", pa.float32()),  # of the chunk, from a zero state
        ("null_bits", pa.float32()),  # sum over the chunk's tokens, EOS not included
        ("recovered_bits", pa.float32()),  # likewise
        ("eos_bits", pa.float32()),  # -log2 p_probe(EOS) after the last token
    ]
)

# one further float32 column `probe_bits_<control>` per control
TOKENS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("position", pa.int32()),  # 0-based within the chunk
        ("token_id", pa.int32()),
        ("token", pa.string()),
        ("word_index", pa.int32()),  # -1 where no word covers the token
        ("probe_bits", pa.float32()),  # -log2 p
        ("null_bits", pa.float32()),
        ("base_bits", pa.float32()),
        ("recovered_bits", pa.float32()),
        ("forced_argmax_id", pa.int32()),
        ("forced_confidence", pa.float32()),  # the probe's probability of that token
        ("null_argmax_id", pa.int32()),  # the null probe's best guess: the floor of forced rates
        ("aligned", pa.bool_()),
    ]
)

WORDS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("word_index", pa.int32()),  # 0-based within the chunk
        ("word", pa.string()),
        ("char_start", pa.int32()),  # of what the chunk's text holds of the word
        ("char_end", pa.int32()),
        ("token_start", pa.int32()),
        ("n_tokens", pa.int32()),  # in the chunk
        ("cut", pa.bool_()),
        ("pos", pa.string()),
        ("entity", pa.string()),
        ("kind", pa.string()),
        ("omitted_count", pa.float32()),  # fraction
        ("omitted_aligned", pa.bool_()),
        ("omitted_forced", pa.bool_()),
        ("chance_count", pa.float32()),
        ("chance_aligned", pa.float32()),
        ("null_bits", pa.float32()),
        ("recovered_bits", pa.float32()),
        ("log10_word_frequency", pa.float32()),  # null where no counts were given
        ("log10_min_token_frequency", pa.float32()),
    ]
)

OMISSION = pa.schema(
    [
        ("encoder", pa.string()),
        ("probe", pa.string()),
        ("source", pa.string()),
        ("length", pa.int32()),
        ("scheme", pa.string()),  # pos | entity | kind | all
        ("tag", pa.string()),
        ("rule", pa.string()),  # count | aligned | forced
        ("n_words", pa.int64()),
        ("n_documents", pa.int64()),
        ("omission_rate", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("chance_rate", pa.float64()),
        ("retained_over_chance", pa.float64()),
        ("recovered_fraction", pa.float64()),
        ("tokens_per_word", pa.float64()),
    ]
)

SCHEMAS: Mapping[str, pa.Schema] = {
    "chunks": CHUNKS,
    "reconstructions": RECONSTRUCTIONS,
    "tokens": TOKENS,
    "words": WORDS,
    "omission": OMISSION,
}


def require_writable(folder: Path) -> None:
    """Check that files can be written to `folder`, before the work for them; makes nothing.

    Raises:
        InputError: it, or the folder it would be made in, is a file or not ours to write to.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        reason = f"{existing} is a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        reason = f"no permission to write to {existing}"
    else:
        return
    raise InputError(f"cannot write to {folder}: {reason}; choose a folder you can write to")


def require_writable_file(path: Path) -> None:
    """Check that `path` can be written, before the work for it; makes nothing.

    Raises:
        InputError: it is a folder, or its own folder cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file in it")
    require_writable(path.parent)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, delete it on failure.

    Raises:
        InputError: the folder cannot be written, or `path` is a folder itself.
    """
    require_writable_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; choose a folder you can write to"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the canonical JSON form of `config`."""
    return sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def write_table(table: pa.Table, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write a Parquet file atomically, with `metadata` (JSON-able) under the key `selmem`."""
    payload = {**metadata, "config_hash": config_hash(metadata)}
    schema_metadata = {
        **(table.schema.metadata or {}),
        METADATA_KEY: json.dumps(payload, default=str).encode(),
    }
    with atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(schema_metadata), temporary, compression="zstd"
        )


def read_table(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    dictionary: Sequence[str] = (),
    command: str = "selmem measure",
) -> pa.Table:
    """Read one table.

    Args:
        path: a Parquet file.
        columns: those to read; all if None.
        dictionary: text columns to read as dictionary arrays, which saves memory.
        command: that writes such a table, for messages.

    Raises:
        InputError: the file is absent, truncated or no Parquet, or lacks one of `columns`.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; `{command}` writes it")
    try:
        missing = set(columns or ()) - set(pq.read_schema(path).names)
        if missing:
            raise InputError(
                f"{path} lacks the columns {', '.join(sorted(missing))}; "
                f"make it again with `{command}`"
            )
        return pq.read_table(
            path,
            columns=None if columns is None else list(columns),
            read_dictionary=list(dictionary) or None,
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({error}); make it again") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that `write_table` stored; empty for a file of another origin."""
    try:
        stored = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({error}); make it again") from error
    metadata: dict[str, Any] = json.loads(stored.get(METADATA_KEY, b"{}"))
    return metadata
