# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of a linear layer without ever holding all logits, in a few tokens at a time.

Dims: M tokens, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .selective_scan import implementation

IGNORED = -100
# of logits at a time: 64 M float32 values and as many copies as plain operations make of them
CHUNK_BYTES = 2**28
# where they are overwritten with their gradient, there are no copies
CHUNK_BYTES_IN_PLACE = 2**29


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, chunk_tokens: int | None = None
) -> Tensor:
    """Return the summed cross-entropy of softmax(hidden @ weight.T) against labels.

    The gradients are computed along with the value, chunk by chunk, so no logits are kept. The
    products run in the dtype of autocast, the softmax and the sum in float32 (float64 for float64).

    Args:
        hidden: (..., H).
        weight: (V, H).
        labels: int64, of the leading shape of hidden; -100 is ignored.
        chunk_tokens: tokens at a time; by the size of the vocabulary if None.

    Returns:
        the sum over the labels that count, a scalar in nats.
    """
    flat = hidden.flatten(0, -2)
    dtype = _product_dtype(flat, weight)
    if chunk_tokens is None:
        chunk_tokens = _chunk_tokens(weight.shape[0], dtype, in_place=_in_place(flat.device, dtype))
    with torch.autocast(hidden.device.type, enabled=False):
        operands = (flat, weight) if torch.is_grad_enabled() else (flat.detach(), weight.detach())
        return _apply_linear_cross_entropy(*operands, labels.flatten(), chunk_tokens, dtype)


@torch.no_grad()
def forced_statistics(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, chunk_tokens: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the model said at each token about the label, without keeping its logits.

    Args:
        hidden: (..., H).
        weight: (V, H).
        labels: int64, of the leading shape of hidden; -100 gives a loss of 0.
        chunk_tokens: tokens at a time; by the size of the vocabulary if None.

    Returns:
        negative log-likelihood of the label in nats (float32), the most probable token (int64) and
        its probability (float32), each of the shape of labels.
    """
    dtype = _product_dtype(hidden, weight)
    flat, weight = hidden.flatten(0, -2).to(dtype), weight.to(dtype)
    targets = labels.flatten()
    nll = torch.zeros(targets.shape, device=hidden.device)
    best = torch.zeros_like(targets)
    probability = torch.zeros_like(nll)
    with torch.autocast(hidden.device.type, enabled=False):
        for rows in _chunks(len(targets), chunk_tokens or _chunk_tokens(weight.shape[0], dtype)):
            logits = _wide(flat[rows] @ weight.t())
            top, best[rows] = logits.max(-1)
            normaliser = logits.logsumexp(-1)
            counted = targets[rows] != IGNORED
            label = logits.gather(1, targets[rows].clamp(min=0)[:, None]).squeeze(1)
            nll[rows] = torch.where(counted, normaliser - label, 0).float()
            probability[rows] = (top - normaliser).exp().float()
    shape = labels.shape
    return nll.view(shape), best.view(shape), probability.view(shape)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        chunk_tokens: int,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.dtypes = hidden.dtype, weight.dtype
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if need_weight else None
        total = hidden.new_zeros((), dtype=wide)
        loss_and_gradient = _loss_and_gradient
        if _in_place(hidden.device, dtype):
            loss_and_gradient = _loss_and_gradient_in_place
        for rows in _chunks(len(labels), chunk_tokens):
            loss, grad_logits = loss_and_gradient(hidden[rows] @ weight.t(), labels[rows])
            total += loss
            if grad_hidden is not None:
                grad_hidden[rows] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.t() @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = [
            None if part is None else (part * grad).to(dtype)
            for part, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*grads, None, None, None)


def _loss_and_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss, and its gradient for the logits (M, V) in their dtype."""
    counted = labels != IGNORED
    target = labels.clamp(min=0)[:, None]
    wide = _wide(logits)
    normaliser = wide.logsumexp(-1, keepdim=True)
    loss = ((normaliser - wide.gather(1, target)).squeeze(1) * counted).sum()
    grad = wide.sub_(normaliser).exp_()
    grad.scatter_add_(1, target, -torch.ones_like(normaliser)).mul_(counted[:, None])
    return loss, grad.to(logits.dtype)


def _loss_and_gradient_in_place(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Do the same on a GPU, in one pass that overwrites the logits."""
    from .triton_cross_entropy import cross_entropy_

    return cross_entropy_(logits, labels, IGNORED).sum(), logits


def _in_place(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype != torch.float64 and implementation(None, device) == "triton"


_apply_linear_cross_entropy: Callable[..., Tensor] = _LinearCrossEntropy.apply


def _product_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _chunk_tokens(vocabulary: int, dtype: torch.dtype, *, in_place: bool = False) -> int:
    if not in_place:
        return max(1, CHUNK_BYTES // (4 * vocabulary))
    tokens = CHUNK_BYTES_IN_PLACE // (dtype.itemsize * vocabulary)
    return max(1, tokens // 128 * 128 or tokens)  # whole tiles of matrix products


def _chunks(n_tokens: int, chunk_tokens: int) -> Iterator[slice]:
    for start in range(0, n_tokens, chunk_tokens):
        yield slice(start, start + chunk_tokens)
