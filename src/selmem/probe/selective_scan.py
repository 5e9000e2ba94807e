# SPDX-License-Identifier: Apache-2.0
"""The two recurrent operations of Mamba-1, from an initial state to a final one, channel-last.

Every operation has a plain twin with the suffix `_ref` and the same arguments. Which of the fast
implementations runs is chosen by device, by the argument `implementation` or by the environment
variable SELMEM_SCAN ("triton", "torch", "mamba_ssm"), and logged once.

Dims: B batch, T tokens, D inner channels, N state size, W convolution width.
"""

import functools
import importlib.util
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

IMPLEMENTATIONS = ("triton", "torch", "mamba_ssm")


class Operations(NamedTuple):
    """One implementation of the four operations of this module, without the argument that chooses.

    On a GPU the functions of `triton_scan`, elsewhere those of `torch_scan`.
    """

    selective_scan: Callable[..., tuple[Tensor, Tensor]]
    causal_conv: Callable[..., tuple[Tensor, Tensor]]
    selective_state_update: Callable[..., Tensor]
    conv_update: Callable[..., Tensor]


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None = None,
    *,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the gated Mamba recurrence over a text, starting from `initial_state`.

    Args:
        x: input after the convolution, (B, T, D).
        dt: step size before bias and softplus, (B, T, D).
        A: state matrix, (D, N), negative, float32.
        B: input map, (B, T, N).
        C: output map, (B, T, N).
        D: skip connection, (D,), float32.
        z: gate before its SiLU, (B, T, D).
        dt_bias: added to dt before the softplus, (D,), float32.
        initial_state: state before the first token, (B, D, N), float32; zero if None.
        implementation: "triton", "torch" or "mamba_ssm"; by device if None.

    Returns:
        y (B, T, D) in the dtype of x, skip and gate included, and the state after the last token
        (B, D, N). State and exponentials are float32, or float64 if x is.

    Raises:
        ValueError: for an unknown implementation, or one that cannot do what is asked.
        ImportError: when the implementation asked for is not installed.

    Source: Gu and Dao 2023, arXiv:2312.00752, Eq. 2.
    """
    scan = operations(implementation, x.device).selective_scan
    return scan(x, dt, A, B, C, D, z, dt_bias, initial_state)


def selective_scan_ref(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Do the same as `selective_scan`, token by token in plain operations; differentiable."""
    wide = _wide(x)
    delta = F.softplus(dt.to(wide) + dt_bias)
    state = x.new_zeros(x.shape[0], *A.shape, dtype=wide)
    if initial_state is not None:
        state = initial_state.to(wide)
    outputs = []
    for t in range(x.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta * x)[:, t, :, None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :].to(wide)).sum(-1))
    y = (torch.stack(outputs, dim=1) + D * x) * F.silu(z.to(wide))
    return y.to(x.dtype), state


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_window: Tensor | None = None,
    *,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolve each channel with its own last W inputs, then apply SiLU.

    Args:
        x: input, (B, T, D).
        weight: one filter per channel, the newest input last, (D, W).
        bias: (D,) or None.
        initial_window: the W inputs before the first token, (B, D, W); zeros if None. The oldest
            of them reaches no output.
        implementation: as for `selective_scan`.

    Returns:
        y (B, T, D) in the dtype of x, and the last W inputs (B, D, W) in the dtype of x.
    """
    conv = operations(implementation, x.device).causal_conv
    return conv(x, weight, bias, initial_window)


def causal_conv_ref(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_window: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Do the same as `causal_conv`, one window and one dot product at a time."""
    width, wide = weight.shape[1], _wide(x)
    padded = _with_window(x, width, initial_window).to(wide)
    windows = padded.unfold(1, width, 1)[:, 1:]  # (B, T, D, W)
    y = torch.einsum("btdw,dw->btd", windows, weight.to(wide))
    y = F.silu(y if bias is None else y + bias)
    return y.to(x.dtype), padded[:, -width:].transpose(1, 2).to(x.dtype)


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
    *,
    implementation: str | None = None,
) -> Tensor:
    """Advance `state` (B, D, N) by one token in place and return its output (B, D).

    The arguments are those of `selective_scan` without the axis of tokens; no gradient.
    """
    update = operations(implementation, x.device).selective_state_update
    return update(state, x, dt, A, B, C, D, z, dt_bias)


def selective_state_update_ref(
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
    """Do the same as `selective_state_update` through the reference scan of one token."""
    x, dt, B, C, z = (part[:, None] for part in (x, dt, B, C, z))
    y, final = selective_scan_ref(x, dt, A, B, C, D, z, dt_bias, state)
    state.copy_(final)
    return y[:, 0]


def conv_update(
    window: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    implementation: str | None = None,
) -> Tensor:
    """Shift x (B, D) into `window` (B, D, W) in place and return the convolution (B, D)."""
    return operations(implementation, x.device).conv_update(window, x, weight, bias)


def conv_update_ref(window: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Do the same as `conv_update` through the reference convolution of one token."""
    y, final = causal_conv_ref(x[:, None], weight, bias, window)
    window.copy_(final)
    return y[:, 0]


def operations(asked: str | None, device: torch.device) -> Operations:
    """Return the implementation for `device`; the argument or SELMEM_SCAN may name another.

    Raises:
        ValueError: for an unknown name.
        ImportError: when what was asked for is not installed or does not run here.
    """
    return _load(implementation(asked, device))


def implementation(asked: str | None, device: torch.device) -> str:
    """Return the name of the implementation that `operations` returns; same arguments, errors."""
    return _chosen(asked or os.environ.get("SELMEM_SCAN") or None, device.type)


@functools.cache
def _chosen(asked: str | None, device_type: str) -> str:
    if asked not in (None, *IMPLEMENTATIONS):
        raise ValueError(f"scan implementation {asked!r} is unknown; one of {IMPLEMENTATIONS}")
    missing = (asked == "triton" and not _triton_runs()) or (
        asked == "mamba_ssm" and importlib.util.find_spec("mamba_ssm") is None
    )
    if missing:
        raise ImportError(
            f"scan implementation {asked!r} was asked for and is not available here; install it "
            "or unset SELMEM_SCAN"
        )
    chosen = asked or ("triton" if device_type == "cuda" and _triton_runs() else "torch")
    logger.info("scan on %s: %s (%s)", device_type, chosen, "asked for" if asked else "automatic")
    return chosen


def _triton_runs() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    from .triton_scan import available

    return available()


@functools.cache
def _load(chosen: str) -> Operations:
    if chosen == "triton":
        from .triton_scan import causal_conv, conv_update, selective_scan, selective_state_update
    else:
        from .torch_scan import causal_conv, conv_update, selective_scan, selective_state_update
    if chosen == "mamba_ssm":
        selective_scan = _mamba_ssm_scan
    return Operations(selective_scan, causal_conv, selective_state_update, conv_update)


def _mamba_ssm_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Encode with mamba_ssm's kernel; no gradient goes through the final state it returns."""
    if initial_state is not None:
        raise ValueError(
            "mamba_ssm's scan takes no initial state, so it can encode but not run a probe; "
            "use 'triton' or 'torch'"
        )
    scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    x, dt, z, B, C = (part.transpose(1, 2) for part in (x, dt, z, B, C))
    y, final_state = scan(
        x, dt, A, B, C, D, z, dt_bias, delta_softplus=True, return_last_state=True
    )
    return y.transpose(1, 2), final_state


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _with_window(x: Tensor, width: int, window: Tensor | None) -> Tensor:
    if window is None:
        return F.pad(x, (0, 0, width, 0))
    return torch.cat([window.transpose(1, 2).to(x.dtype), x], dim=1)  # (B, W + T, D)
