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
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

IMPLEMENTATIONS = ("triton", "torch", "mamba_ssm")
# steps between two saved states: the backward pass recomputes the states in between
SAVE_EVERY = 16


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
    operands = (x, dt, A, B, C, D, z, dt_bias, initial_state)
    chosen = choose_implementation(implementation, x.device)
    if chosen == "triton":
        return _triton().selective_scan(*operands)  # type: ignore[no-any-return]
    if chosen == "mamba_ssm":
        return _scan_mamba_ssm(*operands)
    if torch.is_grad_enabled() and any(o is not None and o.requires_grad for o in operands):
        return _apply_torch_scan(*operands)
    y, final_state, _ = _scan_torch(*operands)
    return y, final_state


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
    chosen = choose_implementation(implementation, x.device)
    if chosen == "triton":
        return _triton().causal_conv(x, weight, bias, initial_window)  # type: ignore[no-any-return]
    width, wide = weight.shape[1], _wide(x)
    padded = _with_window(x, width, initial_window)
    taps = weight.to(wide)
    y = padded[:, 1 : 1 + x.shape[1]] * taps[:, 0]
    for tap in range(1, width):
        y = torch.addcmul(y, padded[:, tap + 1 : tap + 1 + x.shape[1]], taps[:, tap])
    y = F.silu(y if bias is None else y + bias.to(wide))
    return y.to(x.dtype), padded[:, -width:].transpose(1, 2)


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
    operands = (state, x, dt, A, B, C, D, z, dt_bias)
    chosen = choose_implementation(implementation, x.device)
    if chosen == "triton":
        return _triton().selective_state_update(*operands)  # type: ignore[no-any-return]
    wide = state.dtype
    delta = F.softplus(dt.to(wide) + dt_bias)
    # states before channels: long contiguous rows, which is how the caller's state is laid out
    rows = state.transpose(1, 2)
    decay = (delta[:, None, :] * A.t()).exp_()
    rows.mul_(decay).addcmul_(B.to(wide)[:, :, None], (delta * x)[:, None, :])
    y = torch.matmul(C.to(wide)[:, None, :], rows).squeeze(1)
    return ((y + D * x) * F.silu(z.to(wide))).to(x.dtype)


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
    if choose_implementation(implementation, x.device) == "triton":
        return _triton().conv_update(window, x, weight, bias)  # type: ignore[no-any-return]
    window.copy_(torch.cat([window[..., 1:], x[..., None].to(window.dtype)], dim=-1))
    y = (window * weight).sum(-1)
    return F.silu(y if bias is None else y + bias).to(x.dtype)


def conv_update_ref(window: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Do the same as `conv_update` through the reference convolution of one token."""
    y, final = causal_conv_ref(x[:, None], weight, bias, window)
    window.copy_(final)
    return y[:, 0]


def choose_implementation(asked: str | None, device: torch.device) -> str:
    """Return "triton", "torch" or "mamba_ssm" for `device`; the argument and SELMEM_SCAN decide.

    Raises:
        ValueError: for an unknown name.
        ImportError: when what was asked for is not installed or does not run here.
    """
    return _choose(asked or os.environ.get("SELMEM_SCAN") or None, device.type)


@functools.cache
def _choose(asked: str | None, device_type: str) -> str:
    if asked is None:
        chosen = "triton" if device_type == "cuda" and _triton_available() else "torch"
        logger.info("scan on %s: %s (automatic)", device_type, chosen)
        return chosen
    if asked not in IMPLEMENTATIONS:
        raise ValueError(f"scan implementation {asked!r} is unknown; one of {IMPLEMENTATIONS}")
    missing = asked == "triton" and not _triton_available()
    missing |= asked == "mamba_ssm" and importlib.util.find_spec("mamba_ssm") is None
    if missing:
        raise ImportError(
            f"scan implementation {asked!r} was asked for and is not available here; install it "
            "or unset SELMEM_SCAN"
        )
    logger.info("scan on %s: %s (asked for)", device_type, asked)
    return asked


def _triton() -> ModuleType:
    from . import triton_scan

    return triton_scan


def _triton_available() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    return bool(_triton().available())


def _scan_mamba_ssm(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    if initial_state is not None:
        raise ValueError(
            "mamba_ssm's scan takes no initial state, so it can encode but not run a probe; "
            "use 'triton' or 'torch'"
        )
    x, dt, z, B, C = (part.transpose(1, 2) for part in (x, dt, z, B, C))
    y, final_state = selective_scan_fn(
        x, dt, A, B, C, D, z, dt_bias, delta_softplus=True, return_last_state=True
    )
    return y.transpose(1, 2), final_state


def _scan_torch(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None,
    saved_states: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state and the scan's output before skip and gate (B, T, D).

    The loop never holds more than one (B, N, D) state: memory traffic, not arithmetic, is what
    the CPU runs out of. `saved_states` receives a copy of the state before every SAVE_EVERY-th
    token.
    """
    wide = _wide(x)
    delta = F.softplus(dt.to(wide) + dt_bias)
    inputs = delta * x
    B, C = B.to(wide), C.to(wide)
    rows = A.to(wide).t().contiguous()
    state = x.new_zeros(x.shape[0], *rows.shape, dtype=wide)
    if initial_state is not None:
        state.copy_(initial_state.transpose(1, 2))
    decay = torch.empty_like(state)
    scanned = torch.empty_like(delta)
    with torch.autocast(x.device.type, enabled=False):
        for t in range(x.shape[1]):
            if saved_states is not None and t % SAVE_EVERY == 0:
                saved_states.append(state.clone())
            torch.mul(delta[:, t, None, :], rows, out=decay)
            state.mul_(decay.exp_()).addcmul_(B[:, t, :, None], inputs[:, t, None, :])
            scanned[:, t] = torch.bmm(C[:, t, None, :], state).squeeze(1)
    y = torch.addcmul(scanned, x.to(wide), D.to(wide)).mul_(F.silu(z.to(wide)))
    return y.to(x.dtype), state.transpose(1, 2), scanned


class _TorchScan(torch.autograd.Function):
    """`_scan_torch` with a backward pass that recomputes the states between the saved ones."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> tuple[Tensor, Tensor]:
        saved: list[Tensor] = []
        y, final_state, scanned = _scan_torch(*operands, saved_states=saved)
        ctx.save_for_backward(*operands[:-1], scanned, *saved)
        ctx.has_initial_state = operands[-1] is not None
        return y, final_state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, z, dt_bias, scanned, *saved = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            grads = _scan_backward(
                (x, dt, A, B, C, D, z, dt_bias), scanned, saved, grad_y, grad_final
            )
        return (*grads[:-1], grads[-1] if ctx.has_initial_state else None)


_apply_torch_scan: Callable[..., tuple[Tensor, Tensor]] = _TorchScan.apply


def _scan_backward(
    operands: tuple[Tensor, ...],
    scanned: Tensor,
    saved: list[Tensor],
    grad_y: Tensor,
    grad_final: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of all nine operands of the scan, each in the dtype of its operand."""
    x, dt, A, B, C, D, z, dt_bias = operands
    wide = _wide(x)
    xw, zw, Bw, Cw, grad_y = (part.to(wide) for part in (x, z, B, C, grad_y))
    raw = dt.to(wide) + dt_bias
    delta = F.softplus(raw)
    gate = torch.sigmoid(zw)
    skipped = torch.addcmul(scanned, xw, D.to(wide))
    grad_z = grad_y * skipped * gate * (1 + zw * (1 - gate))
    grad_scanned = grad_y * zw * gate
    rows = A.to(wide).t().contiguous()
    sweep = _Sweep(rows, delta, xw, Bw, Cw, grad_scanned, grad_final.transpose(1, 2).to(wide))
    for segment in reversed(range(len(saved))):
        sweep.segment(segment * SAVE_EVERY, saved[segment])
    grad_x = sweep.grad_x + grad_scanned * D.to(wide)
    grad_dt = sweep.grad_delta * torch.sigmoid(raw)
    grads = (
        grad_x,
        grad_dt,
        sweep.grad_rows.t(),
        sweep.grad_B,
        sweep.grad_C,
        (grad_scanned * xw).sum((0, 1)),
        grad_z,
        grad_dt.sum((0, 1)),
        sweep.grad_state.transpose(1, 2),
    )
    wanted = (*(part.dtype for part in operands), wide)
    return tuple(grad.to(dtype) for grad, dtype in zip(grads, wanted, strict=True))


class _Sweep:
    """The backward sweep over tokens, segment by segment from the last to the first."""

    def __init__(
        self,
        rows: Tensor,
        delta: Tensor,
        x: Tensor,
        B: Tensor,
        C: Tensor,
        grad_scanned: Tensor,
        grad_state: Tensor,
    ) -> None:
        self.rows, self.delta, self.x, self.B, self.C = rows, delta, x, B, C
        self.inputs = delta * x
        self.grad_scanned = grad_scanned
        self.grad_state = grad_state.clone(memory_format=torch.contiguous_format)  # (B, N, D)
        self.grad_rows = torch.zeros_like(rows)
        self.grad_delta, self.grad_x = torch.empty_like(x), torch.empty_like(x)
        self.grad_B, self.grad_C = torch.empty_like(B), torch.empty_like(C)

    def segment(self, start: int, state: Tensor) -> None:
        """Recompute the states after `start` from the one before it, then go back over them."""
        stop = min(start + SAVE_EVERY, self.x.shape[1])
        decays, states = [], [state]
        for t in range(start, stop):
            decays.append(torch.mul(self.delta[:, t, None, :], self.rows).exp_())
            states.append(
                torch.addcmul(
                    decays[-1] * states[-1], self.B[:, t, :, None], self.inputs[:, t, None, :]
                )
            )
        for t in reversed(range(start, stop)):
            self._token(t, decays[t - start], states[t - start], states[t - start + 1])

    def _token(self, t: int, decay: Tensor, before: Tensor, after: Tensor) -> None:
        grad_scanned = self.grad_scanned[:, t, :, None]  # (B, D, 1)
        self.grad_C[:, t] = torch.bmm(after, grad_scanned).squeeze(2)
        self.grad_state.addcmul_(self.C[:, t, :, None], self.grad_scanned[:, t, None, :])
        self.grad_B[:, t] = torch.bmm(self.grad_state, self.inputs[:, t, :, None]).squeeze(2)
        grad_inputs = torch.bmm(self.B[:, t, None, :], self.grad_state).squeeze(1)
        self.grad_state.mul_(decay)
        exponent = self.grad_state * before  # (B, N, D): gradient of delta * A
        self.grad_rows.add_((exponent * self.delta[:, t, None, :]).sum(0))
        through_decay = (exponent * self.rows).sum(1)
        self.grad_delta[:, t] = torch.addcmul(through_decay, grad_inputs, self.x[:, t])
        self.grad_x[:, t] = grad_inputs * self.delta[:, t]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _with_window(x: Tensor, width: int, window: Tensor | None) -> Tensor:
    if window is None:
        return F.pad(x, (0, 0, width, 0))
    return torch.cat([window.transpose(1, 2).to(x.dtype), x], dim=1)  # (B, W + T, D)
