"""Tokenizers: loading one, decoding ids, and a hash of all that decides which ids a text gets."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from selmem.errors import InputError

_END_OF_TEXT = "<|endoftext|>"


def load_tokenizer(
    id_or_path: str | Path, *, revision: str | None = None
) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer that pads on the left, with its EOS where it has no padding token.

    Args:
        id_or_path: Hub id, folder, or a `tokenizer.json`.
        revision: commit, tag or branch on the Hub.

    Raises:
        InputError: nothing to load there, or no fast tokenizer.
    """
    path = Path(id_or_path)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file() and not (path.is_dir() and (path / "tokenizer_config.json").is_file()):
        tokenizer = _from_file(file)
    else:
        tokenizer = _from_pretrained(str(id_or_path), revision)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _from_file(file: Path) -> PreTrainedTokenizerFast:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        special = {token["content"] for token in content.get("added_tokens", [])}
        names = {"eos_token": _END_OF_TEXT, "bos_token": _END_OF_TEXT}
        build: type[Any] = PreTrainedTokenizerFast
        tokenizer: PreTrainedTokenizerFast = build(
            tokenizer_file=str(file), **(names if _END_OF_TEXT in special else {})
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a tokenizer.json of `tokenizers`: {error}") from error
    return tokenizer


def _from_pretrained(name: str, revision: str | None) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"no tokenizer at {name}: {error}; give a Hub id, a folder or a tokenizer.json"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"the tokenizer of {name} has no character offsets; a fast one is needed")
    return tokenizer


def tokenizer_hash(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a SHA-256 (hex) over all that decides which ids a text gets.

    Padding, truncation, special-token templates and the decoder do not enter, nor the order or
    the notation in which entries are stored.
    """
    stored: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    merges = [
        merge.split(" ") if isinstance(merge, str) else merge
        for merge in stored["model"].get("merges", [])
    ]
    content = {
        "vocabulary": tokenizer.get_vocab(),
        "merges": merges,
        "normalizer": stored["normalizer"],
        "pre_tokenizer": stored["pre_tokenizer"],
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def n_token_ids(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return one more than the largest id, added tokens included."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return 1 + max(vocabulary.values())


def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return a copy of the backend without truncation and padding, that takes all text for text.

    "<|endoftext|>" in a document is then tokenized as the characters it is, not as the special
    token.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def decode(tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int]) -> str:
    """Return the text of the ids as it is, special tokens included.

    Bytes that are no whole character, as at a border between tokens of one, become U+FFFD.
    """
    text: str = tokenizer.backend_tokenizer.decode(list(token_ids), skip_special_tokens=False)
    return text
