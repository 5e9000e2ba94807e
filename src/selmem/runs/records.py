"""What a training run writes down as it goes: the learning curve and the best weights so far."""

import json
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from selmem.tables import atomic_path, write_text


class LearningCurve:
    """One row per held-out evaluation, rewritten whole after each.

    Args:
        path: JSON lines.
        up_to: rows of later steps, from a run that was killed after its last checkpoint, go.
    """

    def __init__(self, path: Path, up_to: int) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rows: list[dict[str, Any]] = [
            row for row in map(json.loads, lines) if row["step"] <= up_to
        ]

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, in place of one of the same step."""
        self.rows = [other for other in self.rows if other["step"] != row["step"]] + [row]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def tokens_per_second(self) -> float:
        """Return the speed between the last two rows, the evaluation included; 0 at the start."""
        if len(self.rows) < 2:
            return 0.0
        before, last = self.rows[-2:]
        seconds = max(float(last["seconds"]) - float(before["seconds"]), 0.1)
        return (int(last["tokens"]) - int(before["tokens"])) / seconds

    def row(self, step: int) -> dict[str, Any]:
        """Return the row of `step`."""
        return next(row for row in self.rows if row["step"] == step)


class BestWeights:
    """The float32 weights of the evaluation with the fewest held-out bits, on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.step, self._bits = -1, float("inf")
        if path.is_file():
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
            self.step, self._bits = int(metadata["step"]), float(metadata["bits"])

    def offer(self, model: nn.Module, step: int, bits: float) -> None:
        """Keep the weights of `model` if they are the best so far."""
        better = bits < self._bits or not isfinite(self._bits)
        if not better and step != self.step:
            return
        self.step, self._bits = step, bits
        weights = {name: value.detach().cpu() for name, value in model.named_parameters()}
        with atomic_path(self._path) as temporary:
            save_file(weights, temporary, {"step": str(step), "bits": repr(bits)})

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into `model`."""
        weights = load_file(self._path)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
