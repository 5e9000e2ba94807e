# SPDX-License-Identifier: Apache-2.0
"""The residual connection and the norm after it in Triton: one pass forward, one backward.

Forward, a program takes one row. Backward, it takes many, so that gradients of the weight leave it
as one row of partial sums, added up afterwards: no atomics, so results are deterministic.

Dims: M rows, H hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .norm_kernels import add_norm_backward_kernel, add_norm_forward_kernel
from .triton_runtime import cdiv, on_its_device, power_of_2

# programs of the backward pass: eight for each multiprocessor of an H200
PROGRAMS = 8 * 132


def add_norm(
    mixed: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add and norm; see `residual_norm.add_norm`. Differentiable for every tensor."""
    operands = (mixed.contiguous(), residual.contiguous(), weight.contiguous())
    if torch.is_grad_enabled() and any(part.requires_grad for part in operands):
        return _apply_add_norm(*operands, eps, dtype)
    normed, total, _ = add_norm_forward(*operands, eps, dtype)
    return normed, total


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mixed: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        normed, total, scale = add_norm_forward(mixed, residual, weight, eps, dtype)
        ctx.save_for_backward(total, weight, scale)
        ctx.dtypes = mixed.dtype, residual.dtype
        ctx.set_materialize_grads(False)
        return normed, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dnormed: Tensor | None, dtotal: Tensor | None) -> tuple[Any, ...]:
        total, weight, scale = ctx.saved_tensors
        if dnormed is None:
            dnormed = torch.zeros_like(total)
        if dtotal is not None:
            dtotal = dtotal.contiguous()
        grads = add_norm_backward(total, weight, scale, dnormed.contiguous(), dtotal, *ctx.dtypes)
        return (*grads, None, None)


_apply_add_norm: Callable[..., tuple[Tensor, Tensor]] = _AddNorm.apply


@on_its_device
def add_norm_forward(
    mixed: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normed sum, the sum, and what each row of the sum was multiplied by, (M,)."""
    rows, hidden = mixed.shape[:-1].numel(), mixed.shape[-1]
    wide = torch.promote_types(mixed.dtype, residual.dtype)
    total = torch.empty(mixed.shape, device=mixed.device, dtype=wide)
    normed = torch.empty(mixed.shape, device=mixed.device, dtype=dtype)
    scale = torch.empty(rows, device=mixed.device, dtype=torch.float32)
    add_norm_forward_kernel[(rows,)](
        mixed, residual, weight, total, normed, scale, eps, **_block(hidden)
    )
    return normed, total, scale


@on_its_device
def add_norm_backward(
    total: Tensor,
    weight: Tensor,
    scale: Tensor,
    dnormed: Tensor,
    dtotal: Tensor | None,
    mixed_dtype: torch.dtype,
    residual_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of what was added, in their dtypes, and of the weight."""
    rows, hidden = len(scale), total.shape[-1]
    each = cdiv(rows, PROGRAMS)
    programs = cdiv(rows, each)
    dmixed = torch.empty(total.shape, device=total.device, dtype=mixed_dtype)
    dresidual = None
    if residual_dtype != mixed_dtype:
        dresidual = torch.empty(total.shape, device=total.device, dtype=residual_dtype)
    dweight = torch.empty(programs, hidden, device=total.device, dtype=torch.float32)
    add_norm_backward_kernel[(programs,)](
        dnormed, dtotal, total, weight, scale, dmixed, dresidual, dweight, rows, each,
        **_block(hidden),
    )  # fmt: skip
    total_dweight = dweight.sum(0).to(weight.dtype)
    return dmixed, dmixed if dresidual is None else dresidual, total_dweight


def _block(hidden: int) -> dict[str, int]:
    block = max(128, power_of_2(hidden))
    return {"HIDDEN": hidden, "BLOCK": block, "num_warps": max(1, min(16, block // 256))}
