"""The configuration of a measurement."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selmem.errors import InputError
from selmem.measurement.models import DTYPES

ANNOTATORS = ("spacy", "none")


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What to measure, with which models, and where to.

    Attributes:
        encoder: Hub id or folder.
        probe: Hub id or folder.
        null_probe: Hub id or folder; without it there are no recovered bits.
        probes: further probes, `[NAME=]ID_OR_PATH`, each a column of bits.
        data: sources, as `corpora.read_documents` takes them.
        lengths: tokens per chunk.
        out: folder for the tables.
        controls: also with parts of the state exchanged.
        max_chunks: most chunks of a source and length.
        batch_tokens: tokens per batch.
        device: "cpu", "cuda", ...; None takes a GPU where there is one.
        dtype: of matrix products; states and sums are float32.
        seed: of the sample of chunks, the donors of states, and the draws behind chance.
        annotate: how to find words where a source has none: "spacy" or "none" (no tags).
        frequencies: file of `selmem count`, or .npy with token counts.
    """

    encoder: str
    probe: str
    null_probe: str | None = None
    probes: tuple[str, ...] = ()
    data: tuple[str, ...]
    lengths: tuple[int, ...]
    out: Path
    controls: bool = False
    max_chunks: int = 2000
    batch_tokens: int = 4096
    device: str | None = None
    dtype: str = "float32"
    seed: int = 0
    annotate: str = "spacy"
    frequencies: Path | None = None

    def __post_init__(self) -> None:
        """Refuse values that no measurement can use.

        Raises:
            InputError: names the field, its value and what is expected.
        """
        if not self.data or not self.lengths:
            raise InputError("give at least one source and one length")
        if min(self.lengths) < 1 or len(set(self.lengths)) < len(self.lengths):
            raise InputError(f"lengths are {self.lengths}, expected positive and different numbers")
        for name, value in (("max_chunks", self.max_chunks), ("batch_tokens", self.batch_tokens)):
            if value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")
        for name, choice, known in (
            ("annotate", self.annotate, ANNOTATORS),
            ("dtype", self.dtype, tuple(DTYPES)),
        ):
            if choice not in known:
                raise InputError(f"{name} is {choice!r}, expected one of {', '.join(known)}")

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers, JSON-able."""
        free = {"out", "device", "batch_tokens"}
        values = {name: value for name, value in asdict(self).items() if name not in free}
        loaded: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return loaded
