"""The models that the page offers: those of this package and a list of Hub ids, nothing else."""

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from selmem.bundle import bundled_path
from selmem.errors import InputError
from selmem.measurement.models import load_models
from selmem.measurement.scoring import Models

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """An encoder with its probes.

    Attributes:
        name: what the page, its API and the published tables call it: the probe.
        encoder: Hub id or folder.
        probe: likewise.
        null_probe: likewise; None where there is none, and so no recovered bits.
    """

    name: str
    encoder: str
    probe: str
    null_probe: str | None = None


@dataclass(frozen=True)
class LoadedModels:
    """The models of a choice, on the CPU, and the tokenizer that they share."""

    choice: ModelChoice
    models: Models
    tokenizer: PreTrainedTokenizerFast


def bundled_choice() -> ModelChoice:
    """Return the models that come with the package."""
    return ModelChoice(
        name="mamba-tiny-probe",
        encoder=str(bundled_path("mamba-tiny")),
        probe=str(bundled_path("mamba-tiny-probe")),
        null_probe=str(bundled_path("mamba-tiny-null-probe")),
    )


def read_choices(path: Path) -> tuple[ModelChoice, ...]:
    """Return the models of a list of Hub ids; a probe's id is the name of its choice.

    Args:
        path: JSON, a list of objects with `encoder`, `probe` and perhaps `null_probe`.

    Raises:
        InputError: another structure, or something that is no Hub id.
    """
    entries = json.loads(path.read_text(encoding="utf-8"))
    return tuple(_choice(entry, path) for entry in entries)


def _choice(entry: dict[str, str], path: Path) -> ModelChoice:
    allowed = {field.name for field in fields(ModelChoice)} - {"name"}
    if not {"encoder", "probe"} <= set(entry) <= allowed:
        raise InputError(f"{path}: an entry has {sorted(entry)}, expected {sorted(allowed)}")
    for value in entry.values():
        if not _HUB_ID.fullmatch(value):
            raise InputError(f"{path}: {value!r} is no Hub id, expected NAMESPACE/NAME")
    return ModelChoice(name=entry["probe"], **entry)


class ModelStore:
    """Loads the offered models when they are first asked for, and keeps the last ones used.

    Args:
        choices: what is offered; the first is the default.
        kept: how many choices stay in memory.
    """

    def __init__(self, choices: Sequence[ModelChoice], *, kept: int = 1) -> None:
        self._choices = {choice.name: choice for choice in choices}
        self._kept = kept
        self._loaded: OrderedDict[str, LoadedModels] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Names of what is offered, the default first."""
        return list(self._choices)

    def load(self, name: str) -> LoadedModels:
        """Return the models of a choice.

        Raises:
            InputError: it is not offered, or cannot be loaded; the log then says why.
        """
        if name not in self._choices:
            raise InputError(
                f"the model {name[:100]!r} is not offered here; offered: {', '.join(self.names)}"
            )
        with self._lock:
            if name not in self._loaded:
                while len(self._loaded) >= self._kept:
                    self._loaded.popitem(last=False)
                self._loaded[name] = _load(self._choices[name])
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _load(choice: ModelChoice) -> LoadedModels:
    try:
        models, tokenizer = load_models(
            choice.encoder, choice.probe, choice.null_probe, {}, device=torch.device("cpu")
        )
    except InputError as error:
        # the reason may name folders of the server
        logger.warning("%s does not load: %s", choice.name, error)
        raise InputError(
            f"the model {choice.name} cannot be loaded at the moment; choose another one"
        ) from error
    return LoadedModels(choice, models, tokenizer)
