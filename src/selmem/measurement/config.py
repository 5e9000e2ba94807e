"""The configuration of a measurement."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selmem.corpora import parse_source
from selmem.errors import InputError
from selmem.measurement.models import DTYPES, model_name, probe_names
from selmem.tables import WHOLE_TEXT

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
        lengths: tokens per chunk; `tables.WHOLE_TEXT` for whole documents, of those that have at
            most as many tokens as the probes were trained for.
        out: folder for the tables.
        controls: also with parts of the state exchanged; not for whole texts, whose lengths differ.
        training_corpus: folder of a corpus store; the mean states that stand in for a layer are
            those of its training documents. Without it, those of the measured chunks.
        max_chunks: most chunks of a source and length.
        batch_tokens: tokens per batch.
        device: "cpu", "cuda", ...; None takes a GPU where there is one.
        dtype: of matrix products; states and sums are float32.
        seed: of the sample of chunks, the donors of states, and the draws behind chance.
        annotate: how to find words where a source has none: "spacy" or "none" (no tags).
        frequencies: file of `selmem count`, or .npy with token counts.
        overlap: file of `selmem overlap`; documents above `max_overlap` are left out.
        max_overlap: largest share of a document's 13-grams that may stand in the training corpus.
        workers: processes that match words and write tables; the numbers do not depend on it.
    """

    encoder: str
    probe: str
    null_probe: str | None = None
    probes: tuple[str, ...] = ()
    data: tuple[str, ...]
    lengths: tuple[int, ...]
    out: Path
    controls: bool = False
    training_corpus: Path | None = None
    max_chunks: int = 2000
    batch_tokens: int = 4096
    device: str | None = None
    dtype: str = "float32"
    seed: int = 0
    annotate: str = "spacy"
    frequencies: Path | None = None
    overlap: Path | None = None
    max_overlap: float = 0.1
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse values that no measurement can use.

        Raises:
            InputError: names the field, its value and what is expected.
        """
        if not self.data or not self.lengths:
            raise InputError("give at least one source and one length")
        if min(self.lengths) < WHOLE_TEXT or len(set(self.lengths)) < len(self.lengths):
            raise InputError(
                f"lengths are {self.lengths}, expected different positive numbers, or 0 for whole "
                "texts"
            )
        for name, least in (
            ("max_chunks", 1),
            ("batch_tokens", 1),
            ("seed", 0),
            ("workers", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.training_corpus is not None and not self.controls:
            raise InputError("training_corpus is for the mean states of the controls; add controls")
        if not 0 <= self.max_overlap <= 1:
            raise InputError(f"max_overlap is {self.max_overlap}, expected a share from 0 to 1")
        for name, choice, known in (
            ("annotate", self.annotate, ANNOTATORS),
            ("dtype", self.dtype, tuple(DTYPES)),
        ):
            if choice not in known:
                raise InputError(f"{name} is {choice!r}, expected one of {', '.join(known)}")

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers, JSON-able; models and files by name, not by place."""
        null_probe, frequencies, overlap = self.null_probe, self.frequencies, self.overlap
        return {
            "encoder": model_name(self.encoder),
            "probe": model_name(self.probe),
            "null_probe": None if null_probe is None else model_name(null_probe),
            "probes": {name: model_name(path) for name, path in probe_names(self.probes).items()},
            "data": [_source_name(source) for source in self.data],
            "lengths": list(self.lengths),
            "controls": self.controls,
            "max_chunks": self.max_chunks,
            "dtype": self.dtype,
            "seed": self.seed,
            "annotate": self.annotate,
            "frequencies": None if frequencies is None else frequencies.name,
            "overlap": None if overlap is None else overlap.name,
            "max_overlap": None if overlap is None else self.max_overlap,
        }


def _source_name(given: str) -> str:
    source = parse_source(given)
    address = source.address if source.is_hub else Path(source.address).name
    option = f"#{source.option}" if source.option else ""
    return f"{source.name}={'hub:' if source.is_hub else ''}{address}{option}"
