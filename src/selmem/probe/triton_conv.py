# SPDX-License-Identifier: Apache-2.0
"""The short causal convolution with its SiLU in Triton, with gradients for everything.

One program is one warp. It owns a block of channels and walks a stretch of time with the last W
inputs in registers, so every input is read once. The backward pass recomputes the convolution.

Dims: B batch, T tokens, D inner channels, W convolution width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .conv_kernels import conv_backward_kernel, conv_forward_kernel
from .triton_runtime import cdiv, on_its_device, rows

MANY_PROGRAMS = 4096


class ConvTile(NamedTuple):
    """What one program works on."""

    channels: int
    stretch: int  # tokens in a row
    unrolled: int  # tokens loaded before the first is used


FORWARD_TILE = ConvTile(128, 64, 8)
BACKWARD_TILE = ConvTile(128, 64, 4)


def _fitting(tile: ConvTile, batch: int, n_tokens: int, channels: int) -> ConvTile:
    """Return `tile`, with a shorter stretch where there would be too few programs."""
    programs = batch * cdiv(n_tokens, tile.stretch) * cdiv(channels, tile.channels)
    return tile if programs >= MANY_PROGRAMS // 4 else tile._replace(stretch=16)


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_window: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convolve over time and apply SiLU; see `selective_scan.causal_conv`.

    x may be a view with strides between rows. Differentiable for every argument.
    """
    operands = (rows(x), weight, bias, initial_window)
    if torch.is_grad_enabled() and any(o is not None and o.requires_grad for o in operands):
        y = _apply_causal_conv(*operands)
    else:
        y = conv_forward(*operands)
    return y, _final_window(x, weight.shape[1], initial_window)


def _final_window(x: Tensor, width: int, initial_window: Tensor | None) -> Tensor:
    missing = width - x.shape[1]
    last = x[:, -width:].transpose(1, 2)
    if missing <= 0:
        return last
    if initial_window is None:
        return F.pad(last, (missing, 0))
    return torch.cat([initial_window[..., -missing:].to(x.dtype), last], dim=-1)


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, initial_window: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, initial_window)
        return conv_forward(x, weight, bias, initial_window)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, window = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3]
        return conv_backward(x, weight, bias, window, rows(dy), window_gradient=wanted)


_apply_causal_conv: Callable[..., Tensor] = _CausalConv.apply


@on_its_device
def conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_window: Tensor | None,
) -> Tensor:
    """Return silu(convolution), (B, T, D), contiguous, in the dtype of x."""
    batch, n_tokens, channels = x.shape
    tile = _fitting(FORWARD_TILE, *x.shape)
    window = None if initial_window is None else initial_window.contiguous()
    y = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    grid = (cdiv(channels, tile.channels) * batch, cdiv(n_tokens, tile.stretch))
    conv_forward_kernel[grid](
        x, weight.contiguous(), bias, window, y, n_tokens, x.stride(0),
        X_ROW=x.stride(1), CHANNELS=channels, WIDTH=weight.shape[1], BD=tile.channels,
        STRETCH=tile.stretch, UNROLLED=tile.unrolled, BIAS=bias is not None,
        WINDOW=window is not None, num_warps=1,
    )  # fmt: skip
    return y


@on_its_device
def conv_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_window: Tensor | None,
    dy: Tensor,
    window_gradient: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight, bias and the initial window (None where not asked)."""
    (batch, n_tokens, channels), width = x.shape, weight.shape[1]
    window = None if initial_window is None else initial_window.contiguous()
    tile = _fitting(BACKWARD_TILE, *x.shape)
    blocks, stretches = cdiv(channels, tile.channels), cdiv(n_tokens, tile.stretch)
    texts = max(1, batch * blocks * stretches // MANY_PROGRAMS)
    groups = cdiv(batch, texts)
    dx = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    shape = (groups * stretches, width + 1, channels)
    dweights = torch.empty(shape, device=x.device, dtype=torch.float32)
    dwindow = None
    if window_gradient and window is not None:
        dwindow = torch.zeros(window.shape, device=x.device, dtype=window.dtype)
    conv_backward_kernel[(blocks, stretches, groups)](
        x, weight.contiguous(), bias, window, dy, dx, dweights, dwindow,
        batch, texts, n_tokens, x.stride(0), dy.stride(0),
        X_ROW=x.stride(1), DY_ROW=dy.stride(1), CHANNELS=channels, WIDTH=width,
        BD=tile.channels, STRETCH=tile.stretch, UNROLLED=tile.unrolled, BIAS=bias is not None,
        WINDOW=window is not None, WINDOW_GRADIENT=dwindow is not None, num_warps=1,
    )  # fmt: skip
    total = dweights.sum(0)
    dweight = total[:width].t().to(weight.dtype)
    return dx, dweight, None if bias is None else total[width].to(bias.dtype), dwindow
