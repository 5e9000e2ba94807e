# SPDX-License-Identifier: Apache-2.0
"""The choice of the likeliest token, and what a decoder keeps of it.

Dims: B rows, S steps, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .selective_scan import implementation


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


def choose(logits: Tensor, chosen: Chosen) -> None:
    """Keep the likeliest token of each row that has not ended, and EOS in the others.

    Args:
        logits: (B, V), contiguous.
        chosen: where.
    """
    if implementation(None, logits.device) == "triton" and logits.dtype != torch.float64:
        from .triton_step import choose as triton_choose

        triton_choose(logits, chosen)
    else:
        choose_ref(logits, chosen)


def choose_ref(logits: Tensor, chosen: Chosen) -> None:
    """Do the same as `choose` in plain operations."""
    token, ended, recent, slot, eos = chosen
    token.copy_(logits.argmax(-1).masked_fill(ended, eos))
    ended.logical_or_(token == eos)
    recent[:, : len(token)].index_copy_(0, slot, token[None])
    slot.add_(1)
