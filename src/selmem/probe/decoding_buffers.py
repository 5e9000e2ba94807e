# SPDX-License-Identifier: Apache-2.0
"""The memory in which `graph_decoding.py` decodes, at the same addresses in every step.

Dims: L layers, B rows, S steps, D inner channels, W convolution width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .mamba_state import MambaState

# steps between two looks of the host, and how many tokens of a row are kept meanwhile
ROUND = 8


class Chosen(NamedTuple):
    """Where a choice is kept.

    Args:
        token: gets the tokens, int64, (B,).
        ended: whether a row has written EOS, (B,), updated.
        recent: gets the tokens in its row `slot`, int64, (S, at least B).
        slot: int64, (1,), moves on by one.
        eos: the token that ends a row.
    """

    token: Tensor
    ended: Tensor
    recent: Tensor
    slot: Tensor
    eos: int


class Buffers:
    """The memory that graphs read and write; a batch of `size` rows is the first of each.

    With `channels_last`, windows (B, D, W) lie in memory as (B, W, D).
    """

    def __init__(
        self, like: MambaState, most: int, dtype: torch.dtype, *, channels_last: bool
    ) -> None:
        device = like.conv.device
        (layers, _, channels, width), (_, _, *ssm) = like.conv.shape, like.ssm.shape
        self.most = self.size = most
        windows = (width, channels) if channels_last else (channels, width)
        self.conv = torch.zeros(layers, most, *windows, device=device, dtype=dtype)
        if channels_last:
            self.conv = self.conv.mT
        self.ssm = torch.zeros(layers, most, *ssm, device=device, dtype=like.ssm.dtype)
        self.token = torch.zeros(most, device=device, dtype=torch.int64)
        self.ended = torch.ones(most, device=device, dtype=torch.bool)
        self.recent = torch.zeros(ROUND, most, device=device, dtype=torch.int64)
        self.slot = torch.zeros(1, device=device, dtype=torch.int64)
        # of windows that are rings: in order again when a round ends, where rows may move
        self.turn = self.slot if channels_last and ROUND % width == 0 else None
        on_gpu = device.type == "cuda"
        self._seen = torch.ones(most, dtype=torch.bool, pin_memory=on_gpu)
        self._told = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def load(self, start: MambaState, size: int, eos: int) -> None:
        """Begin with the rows of `start`; rows beyond them have ended."""
        rows = start.batch_size
        self.size = size
        self.conv[:, :rows].copy_(start.conv)
        self.ssm[:, :rows].copy_(start.ssm)
        self.token.fill_(eos)
        self.ended.fill_(value=True)[:rows] = False

    def move(self, going: Tensor, size: int) -> None:
        """Keep the rows `going`, ascending, as the first of a batch of `size`."""
        rows, ended = len(going), self.ended[going]
        self.size = size
        for layer in (*self.conv, *self.ssm):
            layer[:rows] = layer[going]
        self.token[:rows] = self.token[going]
        self.ended.fill_(value=True)[:rows] = ended

    def look(self) -> None:
        """Begin to tell the host which rows have ended so far; what follows need not wait."""
        self._seen.copy_(self.ended, non_blocking=True)
        if self._told is not None:
            self._told.record(torch.cuda.current_stream(self.ended.device))

    def going(self, rows: int) -> Tensor:
        """Return which of the first `rows` had not ended at the last look, int64, on the CPU."""
        if self._told is not None:
            self._told.synchronize()
        return (~self._seen[:rows]).nonzero().squeeze(1)

    def chosen(self, eos: int) -> Chosen:
        """Return where the batch keeps its choice, no copy."""
        token, ended = self.token[: self.size], self.ended[: self.size]
        return Chosen(token, ended, self.recent, self.slot, eos)

    def state(self) -> MambaState:
        """Return the states of the batch, no copy."""
        return MambaState(self.conv[:, : self.size], self.ssm[:, : self.size])
