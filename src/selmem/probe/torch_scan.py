# SPDX-License-Identifier: Apache-2.0
"""The operations of selective_scan.py in plain PyTorch, written for the caches of a CPU.

The state is kept as (B, N, D), states before channels, so that every operation of the loop over
tokens runs along contiguous channels; nothing of size (B, T, D, N) ever exists.

Dims: B batch, T tokens, D inner channels, N state size, W convolution width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# tokens between two saved states, from which the backward pass recomputes those in between; and
# what is done to whole segments stays in the cache
SEGMENT = 8
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
    return _scan(*operands)


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
    decay = (delta[:, None, :] * (A.mT * LOG2_E)).exp2_()
    rows.mul_(decay).addcmul_(B.to(wide)[:, :, None], (delta * x)[:, None, :])
    y = torch.empty_like(delta[:, None, :])
    # with a place for the result, autocast lets the product be
    torch.bmm(C.to(wide)[:, None, :], rows, out=y)
    return (torch.addcmul(y[:, 0], x, D).mul_(F.silu(z.to(wide)))).to(x.dtype)


def conv_update(window: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Shift one input into `window` in place; see `selective_scan.conv_update`."""
    *older, newest = window.mT.unbind(1)  # contiguous, if the caller laid the window out for it
    *taps, last_tap = weight.mT.to(_wide(window)).unbind(0)
    y = x * last_tap
    for row, later, tap in zip(older, [*older[1:], newest], taps, strict=True):
        row.copy_(later)
        y.addcmul_(row.to(y.dtype), tap)
    newest.copy_(x)
    if bias is not None:
        y.add_(bias)
    return F.silu(y).to(x.dtype)


class _Kept(NamedTuple):
    """What the backward pass needs of the forward pass, one entry per segment of tokens."""

    states: list[Tensor]  # before the segment, (B, N, D)
    scanned: list[Tensor]  # outputs before skip and gate, (B, SEGMENT, D)


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
    kept: _Kept | None = None,
) -> tuple[Tensor, Tensor]:
    wide = _wide(x)
    exponents = (A.to(wide).t() * LOG2_E).contiguous()
    state = x.new_zeros(x.shape[0], *exponents.shape, dtype=wide)
    if initial_state is not None:
        state.copy_(initial_state.transpose(1, 2))
    y, decay = torch.empty_like(x), torch.empty_like(state)
    for start in range(0, x.shape[1], SEGMENT):
        part = slice(start, start + SEGMENT)
        if kept is not None:
            kept.states.append(state.clone())
        xs, zs = x[:, part].to(wide), z[:, part].to(wide)
        delta = F.softplus(dt[:, part].to(wide) + dt_bias)
        maps = B[:, part].to(wide), C[:, part].to(wide)
        scanned = _advance(state, decay, exponents, delta, delta * xs, *maps)
        if kept is not None:
            kept.scanned.append(scanned)
        y[:, part] = torch.addcmul(scanned, xs, D.to(wide)).mul_(F.silu(zs))
    return y, state.transpose(1, 2)


def _advance(
    state: Tensor,
    decay: Tensor,
    exponents: Tensor,
    delta: Tensor,
    inputs: Tensor,
    B: Tensor,
    C: Tensor,
) -> Tensor:
    """Take `state` (B, N, D) through a few tokens in place; return C times it after each.

    `decay` is memory of the same shape to work in; exponents (N, D) are A for a power of 2.
    """
    scanned = torch.empty_like(inputs)
    output = torch.empty_like(inputs[:, :1])
    for t in range(inputs.shape[1]):
        torch.mul(delta[:, t, None, :], exponents, out=decay)
        state.mul_(decay.exp2_()).addcmul_(B[:, t, :, None], inputs[:, t, None, :])
        torch.bmm(C[:, t, None, :], state, out=output)
        scanned[:, t] = output[:, 0]
    return scanned


class _Scan(torch.autograd.Function):
    """`_scan` with a backward pass that recomputes the states between the saved ones."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> tuple[Tensor, Tensor]:
        kept = _Kept([], [])
        y, final_state = _scan(*operands, kept=kept)
        ctx.save_for_backward(*operands[:-1], torch.cat(kept.scanned, dim=1), *kept.states)
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
        sweep.segment(segment * SEGMENT, saved[segment])
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
        self.decays = [torch.empty_like(self.grad_state) for _ in range(SEGMENT)]
        self.states = [torch.empty_like(self.grad_state) for _ in range(SEGMENT)]
        self.product = torch.empty_like(self.grad_state)

    def segment(self, start: int, state: Tensor) -> None:
        """Recompute the states after `start` from the one before it, then go back over them."""
        stop = min(start + SEGMENT, self.x.shape[1])
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
