"""What one `selmem measure` run wrote, joined so that every word and token knows its document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

CONTROL_PREFIX = "probe_bits_"
POOLED = "all sources"
CONV_TOKENS = 4  # last positions that the convolution state holds almost verbatim


@dataclass(frozen=True)
class Measurement:
    """The tables of one encoder and one probe.

    Attributes:
        encoder: as given to `selmem measure`.
        probe: likewise.
        run: the content of run.json.
        chunks: one row a chunk, with `document` (int, unique over sources), `doc_id`, `source`,
            `length` (0 for whole texts, whose id is "source/doc_id/whole/0"), `n_tokens`, `number`
            (of the chunk in its document) and the scores of its reconstruction.
        words: one row a word, with `chunk` (row of `chunks`), `document`, `source`, `length`,
            `first_position`, `last_position` (of its tokens), `from_end` (tokens from its last one
            to the chunk's end) and `chance_forced`: whether the null probe too misses it.
        tokens: one row a token, with the same keys, `forced_wrong` and `null_wrong` (0 or 1,
            `null_wrong` nan without a null probe), `unaligned` and the controls.
        reference_ids: token ids of each chunk.
        reconstructed_ids: token ids of each chunk's greedy reconstruction, without EOS.
    """

    encoder: str
    probe: str
    run: Mapping[str, Any]
    chunks: pd.DataFrame
    words: pd.DataFrame
    tokens: pd.DataFrame
    reference_ids: pa.ListArray
    reconstructed_ids: pa.ListArray

    @property
    def label(self) -> str:
        """Short name for tables and figures: the last part of the encoder's name."""
        return self.encoder.rstrip("/").rsplit("/", 1)[-1]

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls, in the order of the table."""
        names = (str(name) for name in self.tokens.columns)
        return tuple(n.removeprefix(CONTROL_PREFIX) for n in names if n.startswith(CONTROL_PREFIX))

    @property
    def tokenizer_hash(self) -> str | None:
        """Hash of the tokenizer, None in measurements that lack it."""
        config = self.run.get("config", {})
        return config.get("tokenizer_hash") if isinstance(config, dict) else None

    @property
    def has_null(self) -> bool:
        """Whether a null probe was measured, so that recovered bits exist."""
        return bool(self.tokens["recovered_bits"].notna().any())

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order of the table."""
        return tuple(str(name) for name in self.chunks["source"].cat.categories)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Chunk lengths in tokens, ascending; 0 for whole texts."""
        return tuple(sorted(int(n) for n in self.chunks["length"].unique()))
