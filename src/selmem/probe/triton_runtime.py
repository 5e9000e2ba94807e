# SPDX-License-Identifier: Apache-2.0
"""Whether and how the Triton kernels run here."""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

try:
    import triton
except ImportError:
    triton = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def available() -> bool:
    """Return whether the kernels run here: on a CUDA device, or in Triton's interpreter."""
    return triton is not None and (INTERPRETED or torch.cuda.is_available())


def jit(kernel: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile `kernel` with Triton where it is installed; else return it, never to be called."""
    if kernel is None:
        return functools.partial(jit, **options)
    return kernel if triton is None else triton.jit(kernel, **options)


def rows(values: Tensor) -> Tensor:
    """Return `values` (B, T, ...) with its last axis contiguous; views with row strides pass."""
    return values if values.stride(-1) == 1 or values.shape[-1] == 1 else values.contiguous()


def cdiv(dividend: int, divisor: int) -> int:
    """Return the quotient rounded up."""
    return -(-dividend // divisor)
