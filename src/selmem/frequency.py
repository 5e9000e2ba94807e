"""Frequencies of tokens and words in a corpus: counting, storing, loading."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from selmem.corpora import read_documents
from selmem.counting import CorpusCounts, count_texts
from selmem.errors import InputError
from selmem.segmentation import split_words
from selmem.tables import read_metadata, read_table, require_writable_file, write_table
from selmem.tokenization import load_tokenizer, n_token_ids, tokenizer_hash

logger = logging.getLogger(__name__)

FREQUENCIES = pa.schema(
    [
        ("unit", pa.string()),  # token | word
        ("token_id", pa.int32()),  # null for words
        ("word", pa.string()),  # null for tokens
        ("count", pa.int64()),
    ]
)

# a count of zero says "under one": half an occurrence stands for it on the logarithmic scale
_UNSEEN = 0.5
_MILLION = 1e6


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """How often tokens and words occur in a corpus.

    Attributes:
        token_counts: occurrences of every token id, (V,) int64.
        word_counts: occurrences of words as `segmentation.split_words` finds them; None where
            only tokens were counted.
        n_words: occurrences of all words.
    """

    token_counts: npt.NDArray[np.int64]
    word_counts: Mapping[str, int] | None
    n_words: int

    @property
    def n_tokens(self) -> int:
        """Occurrences of all tokens."""
        return int(self.token_counts.sum())

    def log10_word_frequency(self, word: str) -> float | None:
        """Return log10 of the occurrences per million words, None where words were not counted.

        A word that `split_words` takes apart ("AL-AIN") has the frequency of its rarest part. Case
        counts, as it does for tokens. An unseen word counts as half an occurrence.
        """
        if self.word_counts is None:
            return None
        count = min((self.word_counts.get(part, 0) for part in split_words(word)), default=0)
        return _log10_per_million(count, self.n_words)

    def log10_min_token_frequency(self, token_ids: Sequence[int]) -> float:
        """Return log10 of the occurrences per million tokens of the rarest of the tokens."""
        count = int(self.token_counts[np.asarray(token_ids)].min())
        return _log10_per_million(count, self.n_tokens)


def _log10_per_million(count: int, total: int) -> float:
    return math.log10(max(count, _UNSEEN) / total * _MILLION)


def count(sources: Sequence[str], id_or_path: str | Path, out: Path) -> Path:
    """Count the tokens and words of corpora, streamed, and write them as one Parquet file.

    Token counts are exact. Word counts are exact up to two million distinct words; beyond, each is
    too low by at most `word_count_error` in the file's metadata.

    Args:
        sources: see `corpora.read_documents`.
        id_or_path: of the tokenizer: Hub id, folder or `tokenizer.json`. Its hash is stored.
        out: the file to write.

    Returns:
        `out`.

    Raises:
        InputError: a source or the tokenizer cannot be read, or `out` cannot be written; the
            latter comes before counting starts.
    """
    tokenizer = load_tokenizer(id_or_path)
    require_writable_file(out)
    counts = count_texts(_texts(sources), tokenizer)
    metadata = {
        "sources": list(sources),
        "tokenizer_hash": tokenizer_hash(tokenizer),
        "n_tokens": int(counts.token_counts.sum()),
        "n_words": counts.n_words,
        "n_documents": counts.n_documents,
        "word_count_error": counts.word_count_error,
    }
    write_table(_table(counts), out, metadata=metadata)
    logger.info("%(n_tokens)d tokens, %(n_words)d words, %(n_documents)d documents", metadata)
    return out


def _texts(sources: Sequence[str]) -> Iterator[str]:
    with tqdm(unit="B", unit_scale=True, desc="counting", disable=None) as progress:
        for source in sources:
            for document in read_documents(source):
                yield document.text
                progress.update(len(document.text))


def _table(counts: CorpusCounts) -> pa.Table:
    """Return tokens by id, then words from the most frequent on."""
    words = sorted(counts.word_counts.items(), key=lambda item: (-item[1], item[0]))
    n_tokens, n_words = len(counts.token_counts), len(words)
    columns = [
        pa.array(["token"] * n_tokens + ["word"] * n_words, pa.string()),
        pa.array([*range(n_tokens), *[None] * n_words], pa.int32()),
        pa.array([None] * n_tokens + [word for word, _ in words], pa.string()),
        pa.array([*counts.token_counts.tolist(), *[n for _, n in words]], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=FREQUENCIES)


def load_frequencies(path: Path, tokenizer: PreTrainedTokenizerFast) -> Frequencies:
    """Return the frequencies of a file of `count`, or of an int64[V] array of token counts (.npy).

    Args:
        path: such a file.
        tokenizer: the one whose ids will be looked up.

    Raises:
        InputError: the file is damaged, of another origin, or counts another tokenizer's tokens.
    """
    return _load_array(path, tokenizer) if path.suffix == ".npy" else _load_table(path, tokenizer)


def _load_array(path: Path, tokenizer: PreTrainedTokenizerFast) -> Frequencies:
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read token counts from {path}: {error}") from error
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"{path}: expected int64[V], not {counts.dtype}{list(counts.shape)}")
    if len(counts) != (n_ids := n_token_ids(tokenizer)):
        raise InputError(
            f"{path} counts {len(counts)} tokens, the tokenizer has {n_ids}: "
            "the counts belong to another tokenizer"
        )
    return Frequencies(token_counts=counts.astype(np.int64), word_counts=None, n_words=0)


def _load_table(path: Path, tokenizer: PreTrainedTokenizerFast) -> Frequencies:
    table, metadata = read_table(path, command="selmem count"), read_metadata(path)
    if table.schema.names != FREQUENCIES.names or "tokenizer_hash" not in metadata:
        raise InputError(f"{path} is not a file of `selmem count`; it has {table.schema.names}")
    expected = tokenizer_hash(tokenizer)
    if metadata["tokenizer_hash"] != expected:
        raise InputError(
            f"{path} counts tokens of tokenizer {metadata['tokenizer_hash'][:12]}, the tokenizer "
            f"in use is {expected[:12]}; count again with `selmem count --tokenizer`"
        )
    counts = table["count"].to_numpy()
    is_token = table["token_id"].is_valid().to_numpy(zero_copy_only=False)
    words = table["word"].filter(pa.array(~is_token)).to_pylist()
    return Frequencies(
        token_counts=counts[is_token],
        word_counts=dict(zip(words, counts[~is_token].tolist(), strict=True)),
        n_words=metadata["n_words"],
    )
