# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy in Triton: loss and gradient of a row of logits in one launch, in place.

A program takes one row. It reads it twice: for the normaliser, with a running maximum and sum per
place in a block, and for the gradient, when the row is still in the cache.
"""

import torch
from torch import Tensor

from .cross_entropy_kernels import cross_entropy_kernel
from .triton_runtime import on_its_device, power_of_2

LARGEST_BLOCK = 4096


@on_its_device
def cross_entropy_(logits: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Return the loss of each row in nats, float32, (M,), and overwrite logits with its gradient.

    Args:
        logits: (M, V), contiguous.
        labels: int64, (M,), each `ignored` or in [0, V).
        ignored: the label that does not count: loss and gradient are 0.
    """
    rows, vocabulary = logits.shape
    losses = torch.empty(rows, device=logits.device, dtype=torch.float32)
    block = max(128, min(LARGEST_BLOCK, power_of_2(vocabulary)))
    cross_entropy_kernel[(rows,)](
        logits, labels.contiguous(), losses,
        IGNORED=ignored, VOCABULARY=vocabulary, BLOCK=block, num_warps=max(1, block // 512),
    )  # fmt: skip
    return losses
