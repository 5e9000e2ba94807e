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
def _places(block, N: constexpr, NL: constexpr, DR: constexpr):
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
def _sum_states(values):
    return tl.sum(tl.sum(values, 3, keep_dims=True), 2, keep_dims=True)


@jit
def _at(values, lane, k: constexpr, NL: constexpr):
    """Give all lanes what the k-th of their NL neighbours holds, for its step."""
    if NL > 1:
        source = tl.broadcast_to(lane - lane % NL + k, values.shape)
        values = tl.gather(values, source, 0)
    return values


@jit
def _swap(values, lane, BIT: constexpr):
    return tl.gather(values, tl.broadcast_to(lane ^ BIT, values.shape), 0)


@jit
def _fold(low, high, lane, BIT: constexpr):
    """Add over pairs of lanes that differ in `BIT`: one keeps the sum of `low`, one of `high`."""
    upper = (lane & BIT) != 0
    return tl.where(upper, high, low) + _swap(tl.where(upper, low, high), lane, BIT)


@jit
def _fold_step(
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


@jit
def _spread(part, lane, STEPS: constexpr, NL: constexpr):
    """Finish the sum over the channels of 32 // NL lanes where fewer STEPS were folded."""
    if STEPS * NL < 32:
        part += _swap(part, lane, STEPS * NL)
    if 2 * STEPS * NL < 32:
        part += _swap(part, lane, 2 * STEPS * NL)
    return part


@jit
def _sum_neighbours(values, lane, NL: constexpr):
    if NL > 1:
        values += _swap(values, lane, 1)
    if NL > 2:
        values += _swap(values, lane, 2)
    if NL > 4:
        values += _swap(values, lane, 4)
    return values


@jit
def _inputs(
    x, dt, z, t, n_tokens, inside, d, step,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr, NL: constexpr, GROUPS: constexpr,
):  # fmt: skip
    """Load the inputs of the steps from t on, each step in one of NL neighbouring lanes."""
    found = ()
    for m in tl.static_range(GROUPS):
        ok = inside & (t + m * NL + step < n_tokens)
        x_m = x + (t * X_ROW + m * NL * X_ROW) + (d + step * X_ROW)
        dt_m = dt + (t * DT_ROW + m * NL * DT_ROW) + (d + step * DT_ROW)
        z_m = z + (t * Z_ROW + m * NL * Z_ROW) + (d + step * Z_ROW)
        found = found + (tl.load(x_m, mask=ok, other=0.0),)
        found = found + (tl.load(dt_m, mask=ok, other=0.0),)
        found = found + (tl.load(z_m, mask=ok, other=0.0),)
    return found


@jit(do_not_specialize=["n_tokens", "n_saved"])
def scan_forward_kernel(
    x, dt, a_matrix, bc, skip_weight, z, dt_bias, initial, y, final, saved, scanned,
    n_tokens, n_saved, x_text, dt_text, z_text,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr,
    CHANNELS: constexpr, N: constexpr, NL: constexpr, DR: constexpr,
    SAVE: constexpr, UNROLLED: constexpr, AHEAD: constexpr,
    INITIAL: constexpr, KEEP: constexpr, KEEP_SCANNED: constexpr,
):  # fmt: skip
    """Walk a text, UNROLLED steps at a time, with the states of its channels in registers."""
    DL: tl.constexpr = 32 // NL
    NC: tl.constexpr = N // NL // 4
    GROUPS: tl.constexpr = UNROLLED // NL
    BLOCKS: tl.constexpr = (CHANNELS + DL * DR - 1) // (DL * DR)
    text = (tl.program_id(0) // BLOCKS).to(tl.int64)
    lane, step, d, n = _places(tl.program_id(0) % BLOCKS, N, NL, DR)
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
    scanned += text * n_tokens * CHANNELS
    bc += text * n_tokens * (2 * N)
    saved += text * n_saved * (CHANNELS * N)
    if AHEAD:
        inputs = _inputs(x, dt, z, 0, n_tokens, inside, d, step, X_ROW, DT_ROW, Z_ROW, NL, GROUPS)
    for chunk in range((n_tokens + UNROLLED - 1) // UNROLLED):
        t = chunk * UNROLLED
        if AHEAD:
            now = inputs
            inputs = _inputs(
                x, dt, z, t + UNROLLED, n_tokens, inside, d, step,
                X_ROW, DT_ROW, Z_ROW, NL, GROUPS,
            )  # fmt: skip
        else:
            # all loads of a chunk come before its first store, which they could not pass
            now = _inputs(x, dt, z, t, n_tokens, inside, d, step, X_ROW, DT_ROW, Z_ROW, NL, GROUPS)
        for m in tl.static_range(GROUPS):
            ok = inside & (t + m * NL + step < n_tokens)
            x_m = now[3 * m].to(tl.float32)
            # past the end a step of size 0 leaves the state as it is
            delta = tl.where(ok, softplus(now[3 * m + 1].to(tl.float32) + bias), 0.0)
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
                h = tl.exp2(_at(delta, lane, k, NL) * a) * h + _at(u, lane, k, NL) * b_map
                y_k = _sum_states(h * c_map)
                if NL == 1:
                    y_m = y_k
                else:
                    if k == 0:
                        y1, y2, y4 = y_k, y_k, y_k
                    y_m, y1, y2, y4 = _fold_step(y_k, y1, y2, y4, lane, k, True, NL, 1)
            out = y_m + skip * x_m
            gate = now[3 * m + 2].to(tl.float32)
            gated = out * gate * sigmoid(gate)
            row = (t * CHANNELS + m * NL * CHANNELS) + (d + step * CHANNELS)
            tl.store(y + row, gated.to(y.dtype.element_ty), mask=ok)
            if KEEP_SCANNED:
                tl.store(scanned + row, out.to(scanned.dtype.element_ty), mask=ok)
    tl.store(final + text * (CHANNELS * N) + dn, h, mask=inside)


@jit
def _rows(
    x, dt, z, dy, scanned, t, ok, d, step,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr, DY_ROW: constexpr, CHANNELS: constexpr,
    SCANNED: constexpr,
):  # fmt: skip
    """Load what depends on channel and time for the steps from t on, one in each group of lanes."""
    x_m = tl.load(x + t * X_ROW + (d + step * X_ROW), mask=ok, other=0.0)
    z_m = tl.load(z + t * Z_ROW + (d + step * Z_ROW), mask=ok, other=0.0)
    dy_m = tl.load(dy + t * DY_ROW + (d + step * DY_ROW), mask=ok, other=0.0)
    dt_m = tl.load(dt + t * DT_ROW + (d + step * DT_ROW), mask=ok, other=0.0)
    if SCANNED:
        y_m = tl.load(scanned + t * CHANNELS + (d + step * CHANNELS), mask=ok, other=0.0)
    else:
        y_m = x_m
    return x_m, z_m, dy_m, dt_m, y_m


@jit(do_not_specialize=["batch", "texts", "n_tokens", "n_saved"])
def scan_backward_kernel(
    x, dt, a_matrix, bc, skip_weight, z, dt_bias, saved, scanned, dy, dfinal,
    dx, ddt, dz, dbc, da_matrix, dskip, dbias, dinitial,
    batch, texts, n_tokens, n_saved, one, x_text, dt_text, z_text, dy_text,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr, DY_ROW: constexpr,
    CHANNELS: constexpr, N: constexpr, NL: constexpr,
    DR: constexpr, HISTORY: constexpr, HOLD: constexpr, AHEAD: constexpr,
    SCANNED: constexpr, FINAL: constexpr, INITIAL_GRADIENT: constexpr,
):  # fmt: skip
    """Walk a text backward, HISTORY steps at a time, each time from a state that was saved."""
    DL: tl.constexpr = 32 // NL
    NC: tl.constexpr = N // NL // 4
    GROUPS: tl.constexpr = HISTORY // NL
    lane, step, d, n = _places(tl.program_id(0), N, NL, DR)
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
        if AHEAD:
            state = tl.load(states + (n_saved - 1) * (CHANNELS * N), mask=inside, other=0.0)
            rows = ()
            for m in tl.static_range(GROUPS):
                t_m = (n_saved - 1) * HISTORY + m * NL
                rows = rows + _rows(
                    x_rows, dt_rows, z_rows, dy_rows, scanned + out_rows, t_m,
                    inside & (t_m + step < n_tokens), d, step,
                    X_ROW, DT_ROW, Z_ROW, DY_ROW, CHANNELS, SCANNED,
                )  # fmt: skip
        for back in range(n_saved):
            number = n_saved - 1 - back
            t = number * HISTORY
            if not AHEAD:
                state = tl.load(states + number * (CHANNELS * N), mask=inside, other=0.0)
                rows = ()
                for m in tl.static_range(GROUPS):
                    rows = rows + _rows(
                        x_rows, dt_rows, z_rows, dy_rows, scanned + out_rows, t + m * NL,
                        inside & (t + m * NL + step < n_tokens), d, step,
                        X_ROW, DT_ROW, Z_ROW, DY_ROW, CHANNELS, SCANNED,
                    )  # fmt: skip
            h = state.to(tl.float32)
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
            scans = ()
            for m in tl.static_range(GROUPS):
                ok = inside & (t + m * NL + step < n_tokens)
                there = there + (ok,)
                xs = xs + (rows[5 * m].to(tl.float32),)
                zs = zs + (rows[5 * m + 1].to(tl.float32),)
                dys = dys + (rows[5 * m + 2].to(tl.float32),)
                v = rows[5 * m + 3].to(tl.float32) + bias
                scans = scans + (rows[5 * m + 4].to(tl.float32),)
                # past the end a step of size 0 leaves the state and its gradient as they are
                deltas = deltas + (tl.where(ok, softplus(v), 0.0),)
                slopes = slopes + (sigmoid(v),)
            if AHEAD:
                # loads for the part that comes next; the last part loads its own once more
                before_number = tl.maximum(number - 1, 0)
                state = tl.load(states + before_number * (CHANNELS * N), mask=inside, other=0.0)
                rows = ()
                for m in tl.static_range(GROUPS):
                    t_m = before_number * HISTORY + m * NL
                    rows = rows + _rows(
                        x_rows, dt_rows, z_rows, dy_rows, scanned + out_rows, t_m,
                        inside & (t_m + step < n_tokens), d, step,
                        X_ROW, DT_ROW, Z_ROW, DY_ROW, CHANNELS, SCANNED,
                    )  # fmt: skip
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
                    decay = tl.exp2(_at(deltas[m], lane, k, NL) * a)
                    if HOLD:
                        decays = decays + (decay,)
                    h = decay * h + _at(u, lane, k, NL) * tl.load(bc_row)
                    if not SCANNED:
                        y_k = _sum_states(h * tl.load(bc_row + N))
                        if k == 0:
                            y1, y2, y4 = y_k, y_k, y_k
                        y_m, y1, y2, y4 = _fold_step(y_k, y1, y2, y4, lane, k, True, NL, 1)
                    dc_k = tl.sum(h * _at(dy_m, lane, k, NL), 1, keep_dims=True)
                    if m * NL + k == 0:
                        s1, s2, s4 = dc_k, dc_k, dc_k
                    dc, s1, s2, s4 = _fold_step(
                        dc_k, s1, s2, s4, lane, m * NL + k, True, HISTORY, NL
                    )
                if SCANNED:
                    y_m = scans[m]
                else:
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
                    delta_k = _at(delta, lane, k, NL)
                    dh = _at(dy_m, lane, k, NL) * tl.load(bc_row + N) + carry
                    db_k = tl.sum(dh * _at(u, lane, k, NL), 1, keep_dims=True)
                    if m * NL + k == HISTORY - 1:
                        s1, s2, s4 = db_k, db_k, db_k
                    db, s1, s2, s4 = _fold_step(
                        db_k, s1, s2, s4, lane, m * NL + k, False, HISTORY, NL
                    )
                    if HOLD:
                        carry = dh * decays[m * NL + k]
                    else:
                        carry = dh * tl.exp2(delta_k * a)
                    through = carry * before[m * NL + k]
                    da += delta_k * through
                    du_k = _sum_states(dh * tl.load(bc_row))
                    ddelta_k = _sum_states(through * a)
                    if k == NL - 1:
                        u1, u2, u4 = du_k, du_k, du_k
                        v1, v2, v4 = ddelta_k, ddelta_k, ddelta_k
                    du_m, u1, u2, u4 = _fold_step(du_k, u1, u2, u4, lane, k, False, NL, 1)
                    ddelta_m, v1, v2, v4 = _fold_step(ddelta_k, v1, v2, v4, lane, k, False, NL, 1)
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
