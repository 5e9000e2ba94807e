# SPDX-License-Identifier: Apache-2.0
"""The operations of selective_scan.py in plain PyTorch, written for the caches of a CPU.

The state is kept as (B, N, D), states before channels, so that every operation of the loop over
tokens runs along contiguous channels; nothing of size (B, T, D, N) ever exists.

Dims: B batch, T tokens, D inner channels, N state size, W convolution width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# steps between two saved states: the backward pass recomputes the states in between
SAVE_EVERY = 8
# the loop raises 2 to a power: exp2 takes half the time of exp, and does not slow down where the
# result is denormal
LOG2_E = math.log2(math.e)


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
) -> tuple[Tensor, Tensor]:
    """Run the gated recurrence; see `selective_scan.selective_scan`."""
    operands = (x, dt, A, B, C, D, z, dt_bias, initial_state)
    if torch.is_grad_enabled() and any(o is not None and o.requires_grad for o in operands):
        return _apply_scan(*operands)
    y, final_state, _ = _scan(*operands)
    return y, final_state


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_window: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convolve over time and apply SiLU; see `selective_scan.causal_conv`."""
    width, n_tokens, wide = weight.shape[1], x.shape[1], _wide(x)
    if initial_window is None:
        padded = F.pad(x, (0, 0, width, 0))
    else:
        padded = torch.cat([initial_window.transpose(1, 2).to(x.dtype), x], dim=1)
    taps = weight.to(wide).t().contiguous()
    y = padded[:, 1 : 1 + n_tokens] * taps[0]
    for tap in range(1, width):
        y.addcmul_(padded[:, tap + 1 : tap + 1 + n_tokens].to(wide), taps[tap])
    if bias is not None:
        y.add_(bias)
    return F.silu(y).to(x.dtype), padded[:, -width:].transpose(1, 2)


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
    """Advance `state` by one token in place; see `selective_scan.selective_state_update`."""
    wide = state.dtype
    delta = F.softplus(dt.to(wide) + dt_bias)
    rows = state.mT  # contiguous, if the caller laid the state out for it
    with torch.autocast(x.device.type, enabled=False):
        decay = (delta[:, None, :] * (A.mT * LOG2_E)).exp2_()
        rows.mul_(decay).addcmul_(B.to(wide)[:, :, None], (delta * x)[:, None, :])
        y = torch.bmm(C.to(wide)[:, None, :], rows).squeeze(1)
    return ((y + D * x) * F.silu(z.to(wide))).to(x.dtype)


def conv_update(window: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Shift one input into `window` in place; see `selective_scan.conv_update`."""
    rows, taps, last = window.mT, weight.mT.to(_wide(window)), window.shape[2] - 1
    y = x * taps[last]
    for tap in range(last):
        rows[:, tap] = rows[:, tap + 1]
        y.addcmul_(rows[:, tap].to(y.dtype), taps[tap])
    rows[:, last] = x
    return F.silu(y if bias is None else y + bias).to(x.dtype)


def _scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None,
    *,
    saved_states: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state and the scan's output before skip and gate (B, T, D).

    `saved_states` receives a copy of the state before every SAVE_EVERY-th token.
    """
    wide = _wide(x)
    delta = F.softplus(dt.to(wide) + dt_bias)
    inputs = delta * x
    B, C = B.to(wide), C.to(wide)
    exponents = (A.to(wide).t() * LOG2_E).contiguous()
    state = x.new_zeros(x.shape[0], *exponents.shape, dtype=wide)
    if initial_state is not None:
        state.copy_(initial_state.transpose(1, 2))
    decay = torch.empty_like(state)
    scanned = torch.empty_like(delta)
    output = torch.empty_like(delta[:, :1])
    with torch.autocast(x.device.type, enabled=False):
        for t in range(x.shape[1]):
            if saved_states is not None and t % SAVE_EVERY == 0:
                saved_states.append(state.clone())
            torch.mul(delta[:, t, None, :], exponents, out=decay)
            state.mul_(decay.exp2_()).addcmul_(B[:, t, :, None], inputs[:, t, None, :])
            torch.bmm(C[:, t, None, :], state, out=output)
            scanned[:, t] = output[:, 0]
    y = torch.addcmul(scanned, x.to(wide), D.to(wide)).mul_(F.silu(z.to(wide)))
    return y.to(x.dtype), state.transpose(1, 2), scanned


class _Scan(torch.autograd.Function):
    """`_scan` with a backward pass that recomputes the states between the saved ones."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> tuple[Tensor, Tensor]:
        saved: list[Tensor] = []
        y, final_state, scanned = _scan(*operands, saved_states=saved)
        ctx.save_for_backward(*operands[:-1], scanned, *saved)
        ctx.has_initial_state = operands[-1] is not None
        return y, final_state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # read once: gradient checkpointing unpacks it only once
        operands, scanned, saved = tensors[:8], tensors[8], tensors[9:]
        with torch.autocast(scanned.device.type, enabled=False):
            grads = _scan_backward(operands, scanned, saved, grad_y, grad_final)
        return (*grads[:-1], grads[-1] if ctx.has_initial_state else None)


_apply_scan: Callable[..., tuple[Tensor, Tensor]] = _Scan.apply


def _scan_backward(
    operands: tuple[Tensor, ...],
    scanned: Tensor,
    saved: Sequence[Tensor],
    grad_y: Tensor,
    grad_final: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of all nine operands of the scan, each in the dtype of its operand."""
    dtypes = (*(part.dtype for part in operands), scanned.dtype)
    x, dt, A, B, C, D, z, dt_bias = (part.to(scanned.dtype) for part in operands)
    raw = dt + dt_bias
    gate = torch.sigmoid(z)
    grad_out = grad_y.to(scanned.dtype)
    grad_z = grad_out * torch.addcmul(scanned, x, D) * gate * (1 + z * (1 - gate))
    grad_scanned = grad_out * z * gate
    sweep = _Sweep(x, F.softplus(raw), A, B, C, grad_scanned, grad_final)
    for segment in reversed(range(len(saved))):
        sweep.segment(segment * SAVE_EVERY, saved[segment])
    grad_dt = sweep.grad_delta * torch.sigmoid(raw)
    grads = (
        torch.addcmul(sweep.grad_x, grad_scanned, D),
        grad_dt,
        sweep.grad_A.sum(0).t(),
        sweep.grad_B,
        sweep.grad_C,
        (grad_scanned * x).sum((0, 1)),
        grad_z,
        grad_dt.sum((0, 1)),
        sweep.grad_state.transpose(1, 2),
    )
    return tuple(grad.to(dtype) for grad, dtype in zip(grads, dtypes, strict=True))


class _Sweep:
    """The backward sweep over tokens, segment by segment from the last to the first."""

    def __init__(
        self,
        x: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        grad_scanned: Tensor,
        grad_final: Tensor,
    ) -> None:
        self.x, self.delta, self.inputs = x, delta, delta * x
        self.A, self.B, self.C = A.t().contiguous(), B, C
        self.exponents = self.A * LOG2_E
        self.grad_scanned = grad_scanned
        self.grad_state = grad_final.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        self.grad_A = torch.zeros_like(self.grad_state)  # per row of the batch, (B, N, D)
        self.grad_delta, self.grad_x = torch.empty_like(x), torch.empty_like(x)
        self.grad_B, self.grad_C = torch.empty_like(B), torch.empty_like(C)
        # memory for one segment, used again and again: a fresh block of this size costs the
        # system more time than the arithmetic on it
        self.decays = [torch.empty_like(self.grad_state) for _ in range(SAVE_EVERY)]
        self.states = [torch.empty_like(self.grad_state) for _ in range(SAVE_EVERY)]
        self.product = torch.empty_like(self.grad_state)

    def segment(self, start: int, state: Tensor) -> None:
        """Recompute the states after `start` from the one before it, then go back over them."""
        stop = min(start + SAVE_EVERY, self.x.shape[1])
        before = [state, *self.states]
        for t, decay, after in zip(range(start, stop), self.decays, self.states, strict=False):
            torch.mul(self.delta[:, t, None, :], self.exponents, out=decay).exp2_()
            torch.mul(decay, before[t - start], out=after)
            after.addcmul_(self.B[:, t, :, None], self.inputs[:, t, None, :])
        for t in reversed(range(start, stop)):
            self._token(t, self.decays[t - start], before[t - start], self.states[t - start])

    def _token(self, t: int, decay: Tensor, before: Tensor, after: Tensor) -> None:
        # row times transpose: the other order is ten times slower here
        grad_scanned = self.grad_scanned[:, t, None, :]
        self.grad_C[:, t] = torch.bmm(grad_scanned, after.transpose(1, 2)).squeeze(1)
        self.grad_state.addcmul_(self.C[:, t, :, None], grad_scanned)
        grad_state_t = self.grad_state.transpose(1, 2)
        self.grad_B[:, t] = torch.bmm(self.inputs[:, t, None, :], grad_state_t).squeeze(1)
        grad_inputs = torch.bmm(self.B[:, t, None, :], self.grad_state).squeeze(1)
        self.grad_state.mul_(decay)
        grad_exponent = torch.mul(self.grad_state, before, out=self.product)  # of delta * A
        self.grad_A.addcmul_(grad_exponent, self.delta[:, t, None, :])
        through_decay = grad_exponent.mul_(self.A).sum(1)
        self.grad_delta[:, t] = torch.addcmul(through_decay, grad_inputs, self.x[:, t])
        self.grad_x[:, t] = grad_inputs * self.delta[:, t]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
