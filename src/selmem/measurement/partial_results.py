"""What an unfinished measurement has done so far: one file for each batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from selmem.measurement.cells import Cell
from selmem.measurement.scoring import Arrays
from selmem.probe import MambaState
from selmem.tables import atomic_path


class PartialResults:
    """Results of batches and sums of states, as files in one folder.

    Args:
        folder: of this configuration and these chunks only.
        pad_id: with which reconstructions of unequal length are filled up.
    """

    def __init__(self, folder: Path, pad_id: int) -> None:
        self.folder = folder
        self.pad_id = pad_id

    def has_batch(self, cell: int, start: int) -> bool:
        """Return whether the batch of cell number `cell` from row `start` on is done."""
        return self._batch(cell, start).is_file()

    def write_batch(self, cell: int, start: int, arrays: Arrays) -> None:
        """Keep the results of a batch."""
        _write(self._batch(cell, start), arrays)

    def read_cell(self, number: int, cell: Cell, batch_tokens: int) -> Arrays:
        """Return the results of all batches of a cell, joined in the order of its chunks.

        Rows are filled up to the longest; reconstructions with EOS, the others with zeros.
        """
        batches = [_read(self._batch(number, rows.start)) for rows in cell.batches(batch_tokens)]
        fill = {"reconstruction": self.pad_id}
        return {
            name: _stacked([arrays[name] for arrays in batches], fill.get(name, 0))
            for name in batches[0]
        }

    def has_sum(self, length: int, part: str) -> bool:
        """Return whether the states of this part of the chunks of one length are summed."""
        return self._sum(length, part).is_file()

    def write_sum(self, length: int, part: str, total: MambaState, n_chunks: int) -> None:
        """Keep a sum of states."""
        arrays: Arrays = {
            "conv": total.conv.numpy(),
            "ssm": total.ssm.numpy(),
            "n": np.array(n_chunks),
        }
        _write(self._sum(length, part), arrays)

    def read_mean(self, length: int, n_parts: int) -> MambaState:
        """Return the mean state, one row in float32, over the parts that `n_parts` wrote."""
        parts = [_read(self._sum(length, f"{rank}of{n_parts}")) for rank in range(n_parts)]
        n_chunks = sum(int(part["n"]) for part in parts)
        conv, ssm = (
            torch.from_numpy((sum(part[name] for part in parts) / n_chunks).astype(np.float32))
            for name in ("conv", "ssm")
        )
        return MambaState(conv, ssm)

    def _batch(self, cell: int, start: int) -> Path:
        return self.folder / f"cell{cell}_from{start}.npz"

    def _sum(self, length: int, part: str) -> Path:
        return self.folder / f"states{length}_{part}.npz"


def _stacked(arrays: Sequence[npt.NDArray[Any]], fill: int) -> npt.NDArray[Any]:
    widest = max(array.shape[1] for array in arrays)
    padding = [((0, 0), (0, widest - array.shape[1])) for array in arrays]
    return np.concatenate(
        [np.pad(a, pad, constant_values=fill) for a, pad in zip(arrays, padding, strict=True)]
    )


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)
