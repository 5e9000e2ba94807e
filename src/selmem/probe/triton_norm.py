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
from .triton_runtime import cdiv

# programs of the backward pass: eight for each multiprocessor of an H200
PROGRAMS = 8 * 132


def add_norm(
    mixed: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add and norm; see `residual_norm.add_norm`. Differentiable for every tensor."""
    return _apply_add_norm(mixed.contiguous(), residual.contiguous(), weight, eps, dtype)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mixed: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        weight = weight.contiguous()
        rows, hidden = mixed.shape[:-1].numel(), mixed.shape[-1]
        wide = torch.promote_types(mixed.dtype, residual.dtype)
        total = torch.empty(mixed.shape, device=mixed.device, dtype=wide)
        normed = torch.empty(mixed.shape, device=mixed.device, dtype=dtype)
        scale = torch.empty(rows, device=mixed.device, dtype=torch.float32)
        add_norm_forward_kernel[(rows,)](
            mixed, residual, weight, total, normed, scale, eps, **_block(hidden)
        )
        ctx.save_for_backward(total, weight, scale)
        ctx.dtypes = mixed.dtype, residual.dtype
        ctx.set_materialize_grads(False)
        return normed, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dnormed: Tensor | None, dtotal: Tensor | None) -> tuple[Any, ...]:
        total, weight, scale = ctx.saved_tensors
        mixed_dtype, residual_dtype = ctx.dtypes
        if dnormed is None:
            dnormed = torch.zeros_like(total)
        rows, hidden = len(scale), total.shape[-1]
        each = cdiv(rows, PROGRAMS)
        programs = cdiv(rows, each)
        dmixed = torch.empty(total.shape, device=total.device, dtype=mixed_dtype)
        dresidual = None
        if residual_dtype != mixed_dtype:
            dresidual = torch.empty(total.shape, device=total.device, dtype=residual_dtype)
        dweight = torch.empty(programs, hidden, device=total.device, dtype=torch.float32)
        add_norm_backward_kernel[(programs,)](
            dnormed.contiguous(), None if dtotal is None else dtotal.contiguous(), total, weight,
            scale, dmixed, dresidual, dweight, rows, each, **_block(hidden),
        )  # fmt: skip
        if dresidual is None:
            dresidual = dmixed
        return dmixed, dresidual, dweight.sum(0).to(weight.dtype), None, None


_apply_add_norm: Callable[..., tuple[Tensor, Tensor]] = _AddNorm.apply


def _block(hidden: int) -> dict[str, int]:
    block = max(128, 1 << (hidden - 1).bit_length())
    return {"HIDDEN": hidden, "BLOCK": block, "num_warps": max(1, min(16, block // 256))}
