# SPDX-License-Identifier: Apache-2.0
"""One token of Mamba-1 in Triton: state and window are advanced in place, for decoding.

Dims: B batch, D inner channels, N state size, W convolution width.
"""

import torch
from torch import Tensor

from .decoding_buffers import Chosen
from .step_kernels import choose_kernel, state_kernel, window_kernel
from .triton_runtime import cdiv, on_its_device, power_of_2


@on_its_device
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
) -> Tensor:
    """Advance `state` by one token; see `selective_scan.selective_state_update`.

    A `state` that is not contiguous costs two copies. The last axis of the others is contiguous.
    """
    if not state.is_contiguous():
        packed = state.contiguous()
        y = selective_state_update(packed, x, dt, A, B, C, D, z, dt_bias)
        state.copy_(packed)
        return y
    batch, channels, n_states = state.shape
    y = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    block = 64
    state_kernel[(cdiv(channels, block) * batch,)](
        state, x, dt, A.contiguous(), B, C, D, z, dt_bias, y,
        x.stride(0), dt.stride(0), B.stride(0), C.stride(0), z.stride(0),
        CHANNELS=channels, N=n_states, NP=power_of_2(n_states), BD=block, num_warps=4,
    )  # fmt: skip
    return y


@on_its_device
def conv_update(window: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Shift x into `window` and convolve; see `selective_scan.conv_update`.

    A `window` that is not contiguous costs two copies.
    """
    if not window.is_contiguous():
        packed = window.contiguous()
        y = conv_update(packed, x, weight, bias)
        window.copy_(packed)
        return y
    batch, channels, width = window.shape
    y = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    block = 256
    window_kernel[(cdiv(channels, block) * batch,)](
        window, x, weight.contiguous(), bias, y, x.stride(0),
        CHANNELS=channels, WIDTH=width, BD=block, BIAS=bias is not None, num_warps=4,
    )  # fmt: skip
    return y


@on_its_device
def choose(logits: Tensor, chosen: Chosen) -> None:
    """Keep the likeliest token of each row; see `choosing.choose`."""
    token, ended, recent, slot, eos = chosen
    rows, vocabulary = logits.shape
    block = max(128, min(4096, power_of_2(vocabulary)))
    choose_kernel[(rows,)](
        logits, token, ended.view(torch.uint8), recent, slot, recent.stride(0),
        EOS=eos, VOCABULARY=vocabulary, BLOCK=block, num_warps=max(1, block // 512),
    )  # fmt: skip
    slot.add_(1)
