# SPDX-License-Identifier: Apache-2.0
"""Single steps of a backbone in plain PyTorch, in as few operations as they take.

With a few rows, a CPU spends much of a step on starting operations. So what a step needs of the
weights is taken apart once, and a layer keeps its window as W vectors that change places.
`MambaBackbone.step` does the same through the operations of selective_scan.py.

Dims: B rows, H hidden size, D inner channels, N state size, W convolution width.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .mamba_backbone import MambaBackbone, MambaBlock, widen
from .mamba_state import MambaState
from .torch_scan import LOG2_E


class CpuSteps:
    """Reads one token per row at a time, from a given state on; autocast has no effect.

    Args:
        backbone: its weights are used as they are now.
        state: of B rows, left as it is.
    """

    def __init__(self, backbone: MambaBackbone, state: MambaState) -> None:
        self._embeddings = backbone.embeddings.weight
        self._wide_stream = backbone.config.residual_in_fp32
        self._layers = [
            _Layer(cast(MambaBlock, layer), window, ssm)
            for layer, window, ssm in zip(backbone.layers, state.conv, state.ssm, strict=True)
        ]
        self._last_norm = backbone.norm_f

    @torch.inference_mode()
    def __call__(self, token_ids: Tensor) -> Tensor:
        """Return hidden vectors after the final norm, (B, H), for token_ids, int64, (B,)."""
        with torch.autocast(token_ids.device.type, enabled=False):
            stream = F.embedding(token_ids, self._embeddings)
            if self._wide_stream:
                stream = widen(stream)
            for layer in self._layers:
                stream = stream + layer.step(stream)
            return self._last_norm(stream)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows, int64, (K,)."""
        for layer in self._layers:
            layer.keep(rows)


class _Layer:
    """Weights, window and state of one layer."""

    def __init__(self, block: MambaBlock, window: Tensor, ssm: Tensor) -> None:
        mixer = block.mixer
        self._dtype = mixer.in_proj.weight.dtype
        self._wide = torch.promote_types(self._dtype, torch.float32)
        self._norm, self._eps = block.norm.weight.to(self._wide), block.norm.eps
        # two products: both results are contiguous, and the first can stay in the window
        self._into_x, self._into_z = _halves(mixer.in_proj)
        *self._taps, self._last_tap = _columns(mixer.conv1d.weight.squeeze(1).to(self._wide))
        self._conv_bias = mixer.conv1d.bias
        self._selection = mixer.x_proj.weight
        self._sizes = [mixer.time_step_rank, mixer.state_size, mixer.state_size]
        self._dt_proj, self._dt_bias = mixer.dt_proj.weight, mixer.dt_proj.bias
        self._exponents = _channels_last(mixer.A_log.to(self._wide)).exp_().mul_(-LOG2_E)  # (N, D)
        self._skip = mixer.D
        self._out = mixer.out_proj.weight, mixer.out_proj.bias
        self._window = _columns(window.to(self._dtype))
        self._ssm = _channels_last(ssm.to(self._wide))  # (B, N, D)

    def step(self, stream: Tensor) -> Tensor:
        """Return the layer's output, (B, H), for the stream before it."""
        wide = self._wide
        normed = F.rms_norm(stream.to(wide), self._norm.shape, self._norm, self._eps)
        normed = normed.to(self._dtype)
        x = self._convolve(F.linear(normed, *self._into_x))
        gate = F.silu(F.linear(normed, *self._into_z).to(wide))
        low_rank, B, C = torch.split(F.linear(x, self._selection), self._sizes, dim=-1)
        x = x.to(wide)
        delta = F.softplus(F.linear(low_rank, self._dt_proj).to(wide).add_(self._dt_bias))
        decay = (delta[:, None] * self._exponents).exp2_()
        self._ssm.mul_(decay).addcmul_(B.to(wide)[:, :, None], (delta * x)[:, None])
        scanned = torch.bmm(C.to(wide)[:, None], self._ssm)[:, 0]
        y = scanned.addcmul_(x, self._skip).mul_(gate)
        return F.linear(y.to(self._dtype), *self._out)

    def keep(self, rows: Tensor) -> None:
        """Drop the other rows."""
        self._window = [past[rows] for past in self._window]
        self._ssm = self._ssm[rows]

    def _convolve(self, x: Tensor) -> Tensor:
        self._window = [*self._window[1:], x]
        y = x * self._last_tap
        for past, tap in zip(self._window, self._taps, strict=False):
            y.addcmul_(past.to(self._wide), tap)
        if self._conv_bias is not None:
            y.add_(self._conv_bias)
        return F.silu(y, inplace=True).to(self._dtype)


def _halves(linear: Any) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Return weight and bias of the first half of a linear layer's outputs, and of the second."""
    first, second = linear.weight.chunk(2)
    biases = (None, None) if linear.bias is None else linear.bias.chunk(2)
    return (first, biases[0]), (second, biases[1])


def _columns(values: Tensor) -> list[Tensor]:
    """Return copies of values (..., W) at each place of the last axis."""
    return [column.clone(memory_format=torch.contiguous_format) for column in values.unbind(-1)]


def _channels_last(values: Tensor) -> Tensor:
    """Return a copy of values (..., D, N) as (..., N, D)."""
    return values.mT.clone(memory_format=torch.contiguous_format)
