# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
# ruff: noqa: RUF005, SIM102, SIM108
# Triton's compiler reads these functions: tuples grow by +, and a condition known at compile time
# stands in an `if` of its own.
"""Kernels of the selective scan; triton_scan.py says how they work."""

from .triton_math import sigmoid, softplus
from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


# a length that divides by 16 must not compile anew
@jit(do_not_specialize=["n_rows", "n_all", "n_tokens"])
def pack_kernel(
    b_map, c_map, bc, n_rows, n_all, n_tokens, b_text, c_text, b_row, c_row,
    N: constexpr, ROWS: constexpr,
):  # fmt: skip
    """Copy B and C side by side in float32, and zeros after them."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    n = tl.arange(0, N)[None, :]
    text, t = row // n_tokens, row % n_tokens
    there = row < n_rows
    b_value = tl.load(b_map + text * b_text + t * b_row + n, mask=there, other=0.0)
    c_value = tl.load(c_map + text * c_text + t * c_row + n, mask=there, other=0.0)
    out = bc + row * (2 * N) + n
    tl.store(out, b_value.to(tl.float32), mask=row < n_all)
    tl.store(out + N, c_value.to(tl.float32), mask=row < n_all)


@jit
def places(block, N: constexpr, NL: constexpr, DR: constexpr):
    """Return the lane, its step and the channels and states of a tile (32, DR, N // NL // 4, 4).

    A lane's states come in fours, one load each, lest the compiler spread them over lanes.
    """
    lane = tl.arange(0, 32)[:, None, None, None]
    step = lane % NL
    d = block * (32 // NL * DR) + lane // NL * DR
    d += tl.arange(0, DR)[None, :, None, None]
    n = step * (N // NL) + tl.arange(0, N // NL // 4)[None, None, :, None] * 4
    n += tl.arange(0, 4)[None, None, None, :]
    return lane, step, d, n


@jit
def sum_states(values):
    """Add over a lane's states."""
    return tl.sum(tl.sum(values, 3, keep_dims=True), 2, keep_dims=True)


@jit
def at_step(values, lane, k: constexpr, NL: constexpr):
    """Give all lanes what the k-th of their NL neighbours holds, for its step."""
    if NL > 1:
        source = tl.broadcast_to(lane - lane % NL + k, values.shape)
        values = tl.gather(values, source, 0)
    return values


@jit
def swap(values, lane, BIT: constexpr):
    """Return what the lane holds whose number differs in `BIT`."""
    return tl.gather(values, tl.broadcast_to(lane ^ BIT, values.shape), 0)


@jit
def _fold(low, high, lane, BIT: constexpr):
    """Add over pairs of lanes that differ in `BIT`: one keeps the sum of `low`, one of `high`."""
    upper = (lane & BIT) != 0
    return tl.where(upper, high, low) + swap(tl.where(upper, low, high), lane, BIT)


@jit
def fold_step(
    part, waiting1, waiting2, waiting4, lane,
    k: constexpr, FORWARD: constexpr, STEPS: constexpr, UNIT: constexpr,
):  # fmt: skip
    """Merge step k's terms into the sums over lanes of STEPS steps, which come in order.

    After the last step, lane l holds the sum of step l // UNIT modulo STEPS. A step with an even
    number waits for its odd neighbour (FORWARD), pairs wait for pairs, and so on: with one exchange
    and one addition for two values, where plain sums over lanes need several for each.
    """
    if (k % 2 == 1) == FORWARD:
        if FORWARD:
            part = _fold(waiting1, part, lane, UNIT)
        else:
            part = _fold(part, waiting1, lane, UNIT)
        if STEPS > 2:
            if (k // 2 % 2 == 1) == FORWARD:
                if FORWARD:
                    part = _fold(waiting2, part, lane, 2 * UNIT)
                else:
                    part = _fold(part, waiting2, lane, 2 * UNIT)
                if STEPS > 4:
                    if (k // 4 % 2 == 1) == FORWARD:
                        if FORWARD:
                            part = _fold(waiting4, part, lane, 4 * UNIT)
                        else:
                            part = _fold(part, waiting4, lane, 4 * UNIT)
                    else:
                        waiting4 = part
            else:
                waiting2 = part
    else:
        waiting1 = part
    return part, waiting1, waiting2, waiting4


@jit(do_not_specialize=["n_tokens", "n_saved"])
def scan_forward_kernel(
    x, dt, a_matrix, bc, skip_weight, z, dt_bias, initial, y, final, saved,
    n_tokens, n_saved, x_text, dt_text, z_text,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr,
    CHANNELS: constexpr, N: constexpr, NL: constexpr, DR: constexpr,
    SAVE: constexpr, UNROLLED: constexpr, INITIAL: constexpr, KEEP: constexpr,
):  # fmt: skip
    """Walk a text, UNROLLED steps at a time, with the states of its channels in registers."""
    DL: tl.constexpr = 32 // NL
    NC: tl.constexpr = N // NL // 4
    GROUPS: tl.constexpr = UNROLLED // NL
    BLOCKS: tl.constexpr = (CHANNELS + DL * DR - 1) // (DL * DR)
    text = (tl.program_id(0) // BLOCKS).to(tl.int64)
    lane, step, d, n = places(tl.program_id(0) % BLOCKS, N, NL, DR)
    inside = (d < CHANNELS) | (CHANNELS % (DL * DR) == 0)
    dn = d * N + n
    a = tl.load(a_matrix + dn, mask=inside, other=0.0) * 1.4426950408889634
    skip = tl.load(skip_weight + d, mask=inside, other=0.0)
    bias = tl.load(dt_bias + d, mask=inside, other=0.0)
    if INITIAL:
        h = tl.load(initial + text * (CHANNELS * N) + dn, mask=inside, other=0.0)
    else:
        h = tl.zeros([32, DR, NC, 4], tl.float32)
    x += text * x_text
    dt += text * dt_text
    z += text * z_text
    y += text * n_tokens * CHANNELS
    bc += text * n_tokens * (2 * N)
    saved += text * n_saved * (CHANNELS * N)
    for chunk in range((n_tokens + UNROLLED - 1) // UNROLLED):
        t = chunk * UNROLLED
        # all loads of a chunk come before its first store, which they could not pass
        xs = ()
        dts = ()
        zs = ()
        for m in tl.static_range(GROUPS):
            ok = inside & (t + m * NL + step < n_tokens)
            x_m = x + (t * X_ROW + m * NL * X_ROW) + (d + step * X_ROW)
            dt_m = dt + (t * DT_ROW + m * NL * DT_ROW) + (d + step * DT_ROW)
            z_m = z + (t * Z_ROW + m * NL * Z_ROW) + (d + step * Z_ROW)
            xs = xs + (tl.load(x_m, mask=ok, other=0.0),)
            dts = dts + (tl.load(dt_m, mask=ok, other=0.0),)
            zs = zs + (tl.load(z_m, mask=ok, other=0.0),)
        for m in tl.static_range(GROUPS):
            ok = inside & (t + m * NL + step < n_tokens)
            x_m = xs[m].to(tl.float32)
            # past the end a step of size 0 leaves the state as it is
            delta = tl.where(ok, softplus(dts[m].to(tl.float32) + bias), 0.0)
            u = delta * x_m
            for k in tl.static_range(NL):
                if KEEP:
                    if (m * NL + k) % SAVE == 0:
                        number = chunk * (UNROLLED // SAVE) + (m * NL + k) // SAVE
                        tl.store(
                            saved + number * (CHANNELS * N) + dn, h.to(saved.dtype.element_ty),
                            mask=inside & (number < n_saved),
                        )  # fmt: skip
                bc_row = bc + (t * (2 * N) + (m * NL + k) * (2 * N)) + n
                b_map, c_map = tl.load(bc_row), tl.load(bc_row + N)
                h = tl.exp2(at_step(delta, lane, k, NL) * a) * h + at_step(u, lane, k, NL) * b_map
                y_k = sum_states(h * c_map)
                if NL == 1:
                    y_m = y_k
                else:
                    if k == 0:
                        y1, y2, y4 = y_k, y_k, y_k
                    y_m, y1, y2, y4 = fold_step(y_k, y1, y2, y4, lane, k, True, NL, 1)
            out = y_m + skip * x_m
            gate = zs[m].to(tl.float32)
            gated = out * gate * sigmoid(gate)
            row = (t * CHANNELS + m * NL * CHANNELS) + (d + step * CHANNELS)
            tl.store(y + row, gated.to(y.dtype.element_ty), mask=ok)
    tl.store(final + text * (CHANNELS * N) + dn, h, mask=inside)
