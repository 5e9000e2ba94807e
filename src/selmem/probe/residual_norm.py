# SPDX-License-Identifier: Apache-2.0
"""What stands between two layers: the residual connection and the norm after it, in one pass.

Dims: H hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .selective_scan import implementation


def add_norm(
    mixed: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add the output of a layer to the residual stream and norm the sum for the next layer.

    Args:
        mixed: output of a layer, (..., H).
        residual: the stream before it, (..., H).
        weight: of the root-mean-square norm, (H,).
        eps: of the norm.
        dtype: of the normed vectors; statistics are in float32, or float64 for float64.

    Returns:
        the normed vectors (..., H) in `dtype`, and the stream (..., H) in the wider dtype of both.
    """
    wide = torch.float64 in (mixed.dtype, residual.dtype, weight.dtype)
    if implementation(None, mixed.device) == "triton" and not wide:
        from .triton_norm import add_norm as fast

        return fast(mixed, residual, weight, eps, dtype)
    return add_norm_ref(mixed, residual, weight, eps, dtype)


def add_norm_ref(
    mixed: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Do the same as `add_norm` in plain operations."""
    residual = residual + mixed
    return rms_norm(residual, weight, eps).to(dtype), residual


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the root-mean-square norm of hidden (..., H) times weight, float32 at least."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return F.rms_norm(hidden.to(wide), weight.shape, weight.to(wide), eps)
