# SPDX-License-Identifier: Apache-2.0
"""The selective scan of Mamba-1 in Triton: initial state in, final state out, all gradients.

One program is one warp. It owns a block of channels of one text (or of several texts in turn) and
walks through time with the state in registers.

A tile is (32, DR, NC, 4): 32 lanes in groups of NL, in which each lane holds an NL-th of the
states, 4 NC, of the same DR channels in a row. So both sums, over states (for y, dx and ddt) and
over channels (for dB and dC), are mostly within a lane. What depends on channel and time only
(softplus, SiLU) is computed once for NL steps at a time, one step per lane of a group, and fetched
with `gather`.

Forward: the state before every HISTORY-th step is saved, in bfloat16 where the inputs are in half
precision: the backward pass starts from each saved state anew, so nothing adds up.

Backward: from a saved state the next HISTORY states are recomputed and kept in registers, with
their decays, then the steps are walked in reverse. Sums over channels go to one buffer per block of
channels, added up afterwards: no atomics, so results are deterministic.

Dims: B batch, T tokens, D inner channels, N state size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .scan_backward_kernels import scan_backward_kernel
from .scan_kernels import pack_kernel, scan_forward_kernel
from .triton_conv import causal_conv
from .triton_runtime import available, cdiv, on_its_device, rows
from .triton_step import conv_update, selective_state_update

__all__ = [
    "available",
    "causal_conv",
    "conv_update",
    "selective_scan",
    "selective_state_update",
]

# programs that fill the largest GPU several times over; beyond that, one program takes more texts
MANY_PROGRAMS = 4096


class ForwardTile(NamedTuple):
    """How the forward pass is cut."""

    state_lanes: int  # NL, also the steps whose scalars are computed at a time
    channels: int  # DR, per lane: each value of B and C that is read serves so many channels
    unrolled: int  # steps whose inputs are read at a time; a multiple of the backward's history
    registers: int  # per thread; with more, too few warps hide the latency


class BackwardTile(NamedTuple):
    """How the backward pass is cut."""

    state_lanes: int  # NL, also the steps whose scalars are computed at a time
    channels: int  # DR, per lane
    history: int  # steps between saved states, kept in registers; a multiple of state_lanes


# by number of states
FORWARD_TILES = {
    8: ForwardTile(2, 4, 8, 168),
    16: ForwardTile(2, 4, 8, 168),
    32: ForwardTile(4, 4, 8, 168),
}
TILES = {
    8: BackwardTile(2, 4, 4),
    16: BackwardTile(4, 4, 4),
    32: BackwardTile(4, 2, 4),
}


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
    """Run the gated recurrence; see `selective_scan.selective_scan`.

    x, dt, z, B and C may be views with strides between rows. Differentiable for every argument;
    a gradient of the final state is honoured.
    """
    n_states = A.shape[1]
    if n_states not in TILES:
        padding = (0, _padded(n_states) - n_states)
        A, B, C = (F.pad(part, padding) for part in (A, B, C))
        initial_state = None if initial_state is None else F.pad(initial_state, padding)
    x, dt, B, C, z = (rows(part) for part in (x, dt, B, C, z))
    operands = (x, dt, A, B, C, D, z, dt_bias, initial_state)
    if torch.is_grad_enabled() and any(o is not None and o.requires_grad for o in operands):
        y, final_state = _apply_scan(*operands)
    else:
        y, final_state, *_ = _scan(*operands, save=False)
    return y, final_state[..., :n_states]


def _padded(n_states: int) -> int:
    sizes = [size for size in TILES if size >= n_states]
    if not sizes:
        raise ValueError(f"the Triton scan holds at most {max(TILES)} states, not {n_states}")
    return min(sizes)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
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
        y, final_state, *kept = _scan(x, dt, A, B, C, D, z, dt_bias, initial_state, save=True)
        ctx.save_for_backward(*kept)
        ctx.dtypes = B.dtype, C.dtype
        ctx.set_materialize_grads(False)
        return y, final_state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
        x, dt, A, bc, D, z, dt_bias, saved = ctx.saved_tensors
        dx, ddt, dA, dbc, dD, dz, dbias, dinitial = scan_backward(
            x, dt, A, bc, D, z, dt_bias, saved,
            dy=torch.zeros_like(x) if dy is None else rows(dy),
            dfinal=None if dfinal is None else dfinal.float().contiguous(),
            initial_gradient=ctx.needs_input_grad[8],
        )  # fmt: skip
        dB, dC = (part.to(dtype) for part, dtype in zip(dbc, ctx.dtypes, strict=True))
        return dx, ddt, dA, dB, dC, dD, dz, dbias, dinitial


_apply_scan: Callable[..., tuple[Tensor, Tensor]] = _SelectiveScan.apply


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
    save: bool,
) -> tuple[Any, ...]:
    """Return y, the final state, and the first eight arguments of `scan_backward`."""
    A, D, dt_bias = (part.float().contiguous() for part in (A, D, dt_bias))
    if initial_state is not None:
        initial_state = initial_state.float().contiguous()
    n_states = A.shape[1]
    bc = pack(B, C, pad=max(TILES[n_states].history, FORWARD_TILES[n_states].unrolled))
    operands = (x, dt, A, bc, D, z, dt_bias)
    y, final_state, saved = scan_forward(*operands, initial_state, save=save)
    return (y, final_state, *operands, saved)


@on_its_device
def pack(B: Tensor, C: Tensor, pad: int) -> Tensor:
    """Return B and C side by side in float32, (B * T + pad, 2N), the last `pad` rows zero."""
    batch, n_tokens, n_states = B.shape
    bc = torch.empty(batch * n_tokens + pad, 2 * n_states, device=B.device, dtype=torch.float32)
    rows_at_once = 64
    grid = (cdiv(bc.shape[0], rows_at_once),)
    pack_kernel[grid](
        B, C, bc, batch * n_tokens, bc.shape[0], n_tokens,
        B.stride(0), C.stride(0), B.stride(1), C.stride(1),
        N=n_states, ROWS=rows_at_once, num_warps=4,
    )  # fmt: skip
    return bc


@on_its_device
def scan_forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    bc: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state, and the states before steps 0, H, 2H, ..., (B, S, D, N).

    H is the history of the backward tile; S is 0 unless `save`. The saved states are in bfloat16
    where x is in half precision.
    """
    (batch, n_tokens, channels), n_states = x.shape, A.shape[1]
    tile, every = FORWARD_TILES[n_states], TILES[n_states].history
    n_saved = cdiv(n_tokens, every) if save else 0
    y = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    final_state = torch.empty(batch, channels, n_states, device=x.device, dtype=torch.float32)
    kept = torch.bfloat16 if x.dtype.itemsize == 2 else torch.float32
    saved = torch.empty(batch, n_saved, channels, n_states, device=x.device, dtype=kept)
    blocks = cdiv(channels, 32 // tile.state_lanes * tile.channels)
    scan_forward_kernel[(blocks * batch,)](
        x, dt, A, bc, D, z, dt_bias, initial_state, y, final_state, saved,
        n_tokens, n_saved, x.stride(0), dt.stride(0), z.stride(0),
        X_ROW=x.stride(1), DT_ROW=dt.stride(1), Z_ROW=z.stride(1),
        CHANNELS=channels, N=n_states, NL=tile.state_lanes, DR=tile.channels,
        SAVE=every, UNROLLED=tile.unrolled, INITIAL=initial_state is not None, KEEP=save,
        num_warps=1, maxnreg=tile.registers,
    )  # fmt: skip
    return y, final_state, saved


@on_its_device
def scan_backward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    bc: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    saved: Tensor,
    dy: Tensor,
    dfinal: Tensor | None,
    initial_gradient: bool = False,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor, Tensor, Tensor, Tensor | None]:
    """Return the gradients of x, dt, A, (B, C), D, z, dt_bias and the initial state (or None)."""
    (batch, n_tokens, channels), n_states = x.shape, A.shape[1]
    tile = TILES[n_states]
    blocks = cdiv(channels, 32 // tile.state_lanes * tile.channels)
    texts = max(1, batch * blocks // MANY_PROGRAMS)
    groups = cdiv(batch, texts)
    n_saved = saved.shape[1]

    def buffer(*shape: int) -> Tensor:
        return torch.empty(shape, device=x.device, dtype=torch.float32)

    dx, ddt, dz = (torch.empty(x.shape, device=x.device, dtype=p.dtype) for p in (x, dt, z))
    dbc = buffer(batch, blocks, n_saved * tile.history, 2 * n_states)
    dA, dD, dbias = buffer(groups, channels, n_states), *buffer(2, groups, channels)
    dinitial = buffer(batch, channels, n_states) if initial_gradient else None
    scan_backward_kernel[(blocks, groups)](
        x, dt, A, bc, D, z, dt_bias, saved, dy, dfinal,
        dx, ddt, dz, dbc, dA, dD, dbias, dinitial,
        batch, texts, n_tokens, n_saved, 1.0,
        x.stride(0), dt.stride(0), z.stride(0), dy.stride(0),
        X_ROW=x.stride(1), DT_ROW=dt.stride(1), Z_ROW=z.stride(1), DY_ROW=dy.stride(1),
        CHANNELS=channels, N=n_states, NL=tile.state_lanes,
        DR=tile.channels, HISTORY=tile.history, FINAL=dfinal is not None,
        INITIAL_GRADIENT=initial_gradient, num_warps=1,
    )  # fmt: skip
    dB_dC = _sum_blocks(dbc, n_tokens)
    return dx, ddt, dA.sum(0), dB_dC, dD.sum(0), dz, dbias.sum(0), dinitial


def _sum_blocks(dbc: Tensor, n_tokens: int) -> tuple[Tensor, Tensor]:
    total = dbc.sum(1)[:, :n_tokens]
    n_states = dbc.shape[-1] // 2
    return total[..., :n_states], total[..., n_states:]
