# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
# ruff: noqa: RUF005
# Triton's compiler reads these functions: tuples grow by +.
"""The backward pass of the selective scan; triton_scan.py says how it works."""

from .scan_kernels import at_step, fold_step, places, sum_states, swap
from .triton_math import sigmoid, softplus
from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit
def _spread(part, lane, STEPS: constexpr, NL: constexpr):
    """Finish the sum over the channels of 32 // NL lanes where fewer STEPS were folded."""
    if STEPS * NL < 32:
        part += swap(part, lane, STEPS * NL)
    if 2 * STEPS * NL < 32:
        part += swap(part, lane, 2 * STEPS * NL)
    return part


@jit
def _sum_neighbours(values, lane, NL: constexpr):
    if NL > 1:
        values += swap(values, lane, 1)
    if NL > 2:
        values += swap(values, lane, 2)
    if NL > 4:
        values += swap(values, lane, 4)
    return values


@jit(do_not_specialize=["batch", "texts", "n_tokens", "n_saved"])
def scan_backward_kernel(
    x, dt, a_matrix, bc, skip_weight, z, dt_bias, saved, dy, dfinal,
    dx, ddt, dz, dbc, da_matrix, dskip, dbias, dinitial,
    batch, texts, n_tokens, n_saved, one, x_text, dt_text, z_text, dy_text,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr, DY_ROW: constexpr,
    CHANNELS: constexpr, N: constexpr, NL: constexpr,
    DR: constexpr, HISTORY: constexpr, FINAL: constexpr, INITIAL_GRADIENT: constexpr,
):  # fmt: skip
    """Walk a text backward, HISTORY steps at a time, each time from a state that was saved."""
    DL: tl.constexpr = 32 // NL
    NC: tl.constexpr = N // NL // 4
    GROUPS: tl.constexpr = HISTORY // NL
    lane, step, d, n = places(tl.program_id(0), N, NL, DR)
    channel_lane = lane // NL
    # sums over channels of HISTORY steps end in the first lanes, one step in each
    first = channel_lane < HISTORY
    of_step = (channel_lane % HISTORY) * (2 * N) + n
    inside = (d < CHANNELS) | (CHANNELS % (DL * DR) == 0)
    dn = d * N + n
    a = tl.load(a_matrix + dn, mask=inside, other=0.0) * 1.4426950408889634
    da = tl.zeros([32, DR, NC, 4], tl.float32)
    dskip_sum = tl.zeros([32, DR, 1, 1], tl.float32)
    dbias_sum = tl.zeros([32, DR, 1, 1], tl.float32)
    first_text = tl.program_id(1) * texts
    for index in range(tl.minimum(texts, batch - first_text)):
        text = first_text.to(tl.int64) + index
        if FINAL:
            carry = tl.load(dfinal + text * (CHANNELS * N) + dn, mask=inside, other=0.0)
        else:
            carry = tl.zeros([32, DR, NC, 4], tl.float32)
        x_rows = x + text * x_text
        dt_rows = dt + text * dt_text
        z_rows = z + text * z_text
        dy_rows = dy + text * dy_text
        out_rows = text * n_tokens * CHANNELS
        states = saved + text * n_saved * (CHANNELS * N) + dn
        for back in range(n_saved):
            number = n_saved - 1 - back
            t = number * HISTORY
            h = tl.load(states + number * (CHANNELS * N), mask=inside, other=0.0).to(tl.float32)
            # read anew each time, to hold fewer registers
            bias = tl.load(dt_bias + d, mask=inside, other=0.0)
            bc_rows = bc + text * n_tokens * (2 * N) + t * (2 * N)
            dbc_rows = (text * tl.num_programs(0) + tl.program_id(0)) * n_saved + number
            dbc_rows = dbc + dbc_rows * (HISTORY * 2 * N)
            there = ()
            xs = ()
            zs = ()
            dys = ()
            deltas = ()
            slopes = ()
            for m in tl.static_range(GROUPS):
                ok = inside & (t + m * NL + step < n_tokens)
                x_m = x_rows + (t + m * NL) * X_ROW + (d + step * X_ROW)
                z_m = z_rows + (t + m * NL) * Z_ROW + (d + step * Z_ROW)
                dy_m = dy_rows + (t + m * NL) * DY_ROW + (d + step * DY_ROW)
                dt_m = dt_rows + (t + m * NL) * DT_ROW + (d + step * DT_ROW)
                there = there + (ok,)
                xs = xs + (tl.load(x_m, mask=ok, other=0.0).to(tl.float32),)
                zs = zs + (tl.load(z_m, mask=ok, other=0.0).to(tl.float32),)
                dys = dys + (tl.load(dy_m, mask=ok, other=0.0).to(tl.float32),)
                v = tl.load(dt_m, mask=ok, other=0.0).to(tl.float32) + bias
                # past the end a step of size 0 leaves the state and its gradient as they are
                deltas = deltas + (tl.where(ok, softplus(v), 0.0),)
                slopes = slopes + (sigmoid(v),)
            before = ()
            decays = ()
            dy_scan = ()
            for m in tl.static_range(GROUPS):
                gate = sigmoid(zs[m])
                dy_m = dys[m] * zs[m] * gate
                u = deltas[m] * xs[m]
                out_row = out_rows + t * CHANNELS + (d + step * CHANNELS) + m * NL * CHANNELS
                for k in tl.static_range(NL):
                    bc_row = bc_rows + (m * NL + k) * (2 * N) + n
                    before = before + (h,)
                    decay = tl.exp2(at_step(deltas[m], lane, k, NL) * a)
                    decays = decays + (decay,)
                    h = decay * h + at_step(u, lane, k, NL) * tl.load(bc_row)
                    y_k = sum_states(h * tl.load(bc_row + N))
                    if k == 0:
                        y1, y2, y4 = y_k, y_k, y_k
                    y_m, y1, y2, y4 = fold_step(y_k, y1, y2, y4, lane, k, True, NL, 1)
                    dc_k = tl.sum(h * at_step(dy_m, lane, k, NL), 1, keep_dims=True)
                    if m * NL + k == 0:
                        s1, s2, s4 = dc_k, dc_k, dc_k
                    dc, s1, s2, s4 = fold_step(
                        dc_k, s1, s2, s4, lane, m * NL + k, True, HISTORY, NL
                    )
                y_m += tl.load(skip_weight + d, mask=inside, other=0.0) * xs[m]
                dz_m = dys[m] * y_m * gate * (1.0 + zs[m] * (1.0 - gate))
                tl.store(dz + out_row, dz_m.to(dz.dtype.element_ty), mask=there[m])
                dskip_sum += dy_m * xs[m]
                dy_scan = dy_scan + (dy_m,)
            tl.store(dbc_rows + N + of_step, _spread(dc, lane, HISTORY, NL), mask=first)
            skip = tl.load(skip_weight + d, mask=inside, other=0.0)
            for m in tl.static_range(GROUPS - 1, -1, -1):
                # `one` keeps the compiler from holding what the first sweep gathered in registers
                delta = deltas[m] * one
                dy_m = dy_scan[m] * one
                u = delta * xs[m]
                out_row = out_rows + t * CHANNELS + (d + step * CHANNELS) + m * NL * CHANNELS
                for k in tl.static_range(NL - 1, -1, -1):
                    bc_row = bc_rows + (m * NL + k) * (2 * N) + n
                    delta_k = at_step(delta, lane, k, NL)
                    dh = at_step(dy_m, lane, k, NL) * tl.load(bc_row + N) + carry
                    db_k = tl.sum(dh * at_step(u, lane, k, NL), 1, keep_dims=True)
                    if m * NL + k == HISTORY - 1:
                        s1, s2, s4 = db_k, db_k, db_k
                    db, s1, s2, s4 = fold_step(
                        db_k, s1, s2, s4, lane, m * NL + k, False, HISTORY, NL
                    )
                    carry = dh * decays[m * NL + k]
                    through = carry * before[m * NL + k]
                    da += delta_k * through
                    du_k = sum_states(dh * tl.load(bc_row))
                    ddelta_k = sum_states(through * a)
                    if k == NL - 1:
                        u1, u2, u4 = du_k, du_k, du_k
                        v1, v2, v4 = ddelta_k, ddelta_k, ddelta_k
                    du_m, u1, u2, u4 = fold_step(du_k, u1, u2, u4, lane, k, False, NL, 1)
                    ddelta_m, v1, v2, v4 = fold_step(ddelta_k, v1, v2, v4, lane, k, False, NL, 1)
                dx_m = du_m * delta + skip * dy_m
                # a is in units of log2; the slope is that of softplus
                ddt_m = (du_m * xs[m] + ddelta_m * 0.6931471805599453) * slopes[m]
                ddt_m = tl.where(there[m], ddt_m, 0.0)
                dbias_sum += ddt_m
                tl.store(dx + out_row, dx_m.to(dx.dtype.element_ty), mask=there[m])
                tl.store(ddt + out_row, ddt_m.to(ddt.dtype.element_ty), mask=there[m])
            tl.store(dbc_rows + of_step, _spread(db, lane, HISTORY, NL), mask=first)
        if INITIAL_GRADIENT:
            tl.store(dinitial + text * (CHANNELS * N) + dn, carry, mask=inside)
    part_rows = tl.program_id(1).to(tl.int64) * CHANNELS
    tl.store(da_matrix + part_rows * N + dn, da, mask=inside)
    tl.store(dskip + part_rows + d, _sum_neighbours(dskip_sum, lane, NL), mask=inside & (step == 0))
    tl.store(dbias + part_rows + d, _sum_neighbours(dbias_sum, lane, NL), mask=inside & (step == 0))
