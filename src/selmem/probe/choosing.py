# SPDX-License-Identifier: Apache-2.0
"""The choice of the likeliest token."""

import torch
from torch import Tensor

from .decoding_buffers import Chosen
from .selective_scan import implementation


def choose(logits: Tensor, chosen: Chosen) -> None:
    """Keep the likeliest token of each row that has not ended, and EOS in the others.

    Args:
        logits: of B rows and V tokens, (B, V), contiguous.
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
