# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
# ruff: noqa: RUF005, SIM102
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
def _step(h, x, dt, b_map, c_map, a, skip, bias):
    """Advance the state (N, BD) by one token; return it and the output (1, BD) without its gate."""
    x = x.to(tl.float32)
    delta = softplus(dt.to(tl.float32) + bias)
    h = tl.exp2(delta * a) * h + (delta * x) * b_map
    return h, tl.sum(h * c_map, 0, keep_dims=True) + skip * x


@jit(do_not_specialize=["n_tokens", "n_saved"])
def scan_forward_kernel(
    x, dt, a_matrix, bc, skip_weight, z, dt_bias, initial, y, final, saved, scanned,
    n_tokens, n_saved, x_text, dt_text, z_text,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr,
    CHANNELS: constexpr, N: constexpr, BD: constexpr, DR: constexpr,
    SAVE: constexpr, UNROLLED: constexpr,
    INITIAL: constexpr, KEEP: constexpr, KEEP_SCANNED: constexpr,
):  # fmt: skip
    """Walk a text with the states of DR blocks of BD channels in registers."""
    BLOCKS: tl.constexpr = (CHANNELS + BD * DR - 1) // (BD * DR)
    text = (tl.program_id(0) // BLOCKS).to(tl.int64)
    n = tl.arange(0, N)[:, None]
    ds = ()
    masks = ()
    rates = ()
    skips = ()
    biases = ()
    hs = ()
    for r in tl.static_range(DR):
        d = tl.program_id(0) % BLOCKS * (BD * DR) + r * BD + tl.arange(0, BD)[None, :]
        inside = (d < CHANNELS) | (CHANNELS % (BD * DR) == 0)
        a = tl.load(a_matrix + d * N + n, mask=inside, other=0.0) * 1.4426950408889634
        ds = ds + (d,)
        masks = masks + (inside,)
        rates = rates + (a,)
        skips = skips + (tl.load(skip_weight + d, mask=inside, other=0.0),)
        biases = biases + (tl.load(dt_bias + d, mask=inside, other=0.0),)
        if INITIAL:
            start = initial + text * (CHANNELS * N)
            hs = hs + (tl.load(start + d * N + n, mask=inside, other=0.0),)
        else:
            hs = hs + (tl.zeros([N, BD], tl.float32),)
    x += text * x_text
    dt += text * dt_text
    z += text * z_text
    y += text * n_tokens * CHANNELS
    scanned += text * n_tokens * CHANNELS
    bc += text * n_tokens * (2 * N)
    saved += text * n_saved * (CHANNELS * N)

    full = n_tokens // UNROLLED
    for chunk in range(full):
        t = chunk * UNROLLED
        xs = ()
        dts = ()
        zs = ()
        # all loads of a chunk come before its first store, which they could not pass
        for k in tl.static_range(UNROLLED):
            for r in tl.static_range(DR):
                x_t = x + (t * X_ROW + k * X_ROW) + ds[r]
                dt_t = dt + (t * DT_ROW + k * DT_ROW) + ds[r]
                z_t = z + (t * Z_ROW + k * Z_ROW) + ds[r]
                xs = xs + (tl.load(x_t, mask=masks[r], other=0.0),)
                dts = dts + (tl.load(dt_t, mask=masks[r], other=0.0),)
                zs = zs + (tl.load(z_t, mask=masks[r], other=0.0),)
        for k in tl.static_range(UNROLLED):
            if KEEP:
                if k % SAVE == 0:
                    state = saved + (chunk * (UNROLLED // SAVE) + k // SAVE) * (CHANNELS * N)
                    for r in tl.static_range(DR):
                        h = hs[r].to(saved.dtype.element_ty)
                        tl.store(state + ds[r] * N + n, h, mask=masks[r])
            bc_row = bc + (t * (2 * N) + k * (2 * N)) + n
            b_map, c_map = tl.load(bc_row), tl.load(bc_row + N)
            new = ()
            for r in tl.static_range(DR):
                h, out = _step(
                    hs[r], xs[k * DR + r], dts[k * DR + r], b_map, c_map,
                    rates[r], skips[r], biases[r],
                )  # fmt: skip
                new = new + (h,)
                row = (t * CHANNELS + k * CHANNELS) + ds[r]
                gate = zs[k * DR + r].to(tl.float32)
                gated = out * gate * sigmoid(gate)
                tl.store(y + row, gated.to(y.dtype.element_ty), mask=masks[r])
                if KEEP_SCANNED:
                    tl.store(scanned + row, out.to(scanned.dtype.element_ty), mask=masks[r])
            hs = new
    for t in range(full * UNROLLED, n_tokens):
        if KEEP:
            if t % SAVE == 0:
                for r in tl.static_range(DR):
                    tl.store(
                        saved + (t // SAVE) * (CHANNELS * N) + ds[r] * N + n,
                        hs[r].to(saved.dtype.element_ty), mask=masks[r],
                    )  # fmt: skip
        bc_row = bc + t * (2 * N) + n
        b_map, c_map = tl.load(bc_row), tl.load(bc_row + N)
        new = ()
        for r in tl.static_range(DR):
            x_t = tl.load(x + t * X_ROW + ds[r], mask=masks[r], other=0.0)
            dt_t = tl.load(dt + t * DT_ROW + ds[r], mask=masks[r], other=0.0)
            gate = tl.load(z + t * Z_ROW + ds[r], mask=masks[r], other=0.0).to(tl.float32)
            h, out = _step(hs[r], x_t, dt_t, b_map, c_map, rates[r], skips[r], biases[r])
            new = new + (h,)
            row = t * CHANNELS + ds[r]
            gated = out * gate * sigmoid(gate)
            tl.store(y + row, gated.to(y.dtype.element_ty), mask=masks[r])
            if KEEP_SCANNED:
                tl.store(scanned + row, out.to(scanned.dtype.element_ty), mask=masks[r])
        hs = new
    for r in tl.static_range(DR):
        tl.store(final + text * (CHANNELS * N) + ds[r] * N + n, hs[r], mask=masks[r])


@jit
def _at(values, k: constexpr, NL: constexpr, DL: constexpr, DR: constexpr):
    """Give all lanes what the k-th group of lanes holds for its step, (NL, DL, DR, 1)."""
    return tl.gather(values, tl.full([NL, DL, DR, 1], k, tl.int32), 0)


@jit
def _fold(low, high, lane, BIT: constexpr, AXIS: constexpr):
    """Add over pairs of lanes that differ in `BIT`: one keeps the sum of `low`, one of `high`."""
    upper = (lane & BIT) != 0
    sent = tl.where(upper, low, high)
    partner = tl.broadcast_to(lane ^ BIT, sent.shape)
    return tl.where(upper, high, low) + tl.gather(sent, partner, AXIS)


@jit
def _fold_step(
    part,
    waiting1,
    waiting2,
    waiting4,
    lane,
    k: constexpr,
    FORWARD: constexpr,
    STEPS: constexpr,
    AXIS: constexpr,
):
    """Merge step k's terms into the sums over lanes of STEPS steps, which come in order.

    After the last step, lane l holds the sum of step l modulo STEPS. A step with an even number
    waits for its odd neighbour (FORWARD), pairs wait for pairs, and so on: with one exchange and
    one addition for two values, where plain sums over lanes need several for each.
    """
    if (k % 2 == 1) == FORWARD:
        if FORWARD:
            part = _fold(waiting1, part, lane, 1, AXIS)
        else:
            part = _fold(part, waiting1, lane, 1, AXIS)
        if STEPS > 2:
            if (k // 2 % 2 == 1) == FORWARD:
                if FORWARD:
                    part = _fold(waiting2, part, lane, 2, AXIS)
                else:
                    part = _fold(part, waiting2, lane, 2, AXIS)
                if STEPS > 4:
                    if (k // 4 % 2 == 1) == FORWARD:
                        if FORWARD:
                            part = _fold(waiting4, part, lane, 4, AXIS)
                        else:
                            part = _fold(part, waiting4, lane, 4, AXIS)
                    else:
                        waiting4 = part
            else:
                waiting2 = part
    else:
        waiting1 = part
    return part, waiting1, waiting2, waiting4


@jit
def _spread(part, lane, DL: constexpr, STEPS: constexpr):
    """Finish the sum over DL lanes where fewer STEPS were folded."""
    if STEPS <= 4 and DL > 4:
        part += tl.gather(part, tl.broadcast_to(lane ^ 4, part.shape), 1)
    if STEPS <= 8 and DL > 8:
        part += tl.gather(part, tl.broadcast_to(lane ^ 8, part.shape), 1)
    return part


@jit
def _rows(
    x, dt, z, dy, scanned, t, ok, d, lane,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr, DY_ROW: constexpr, CHANNELS: constexpr,
    SCANNED: constexpr,
):  # fmt: skip
    """Load what depends on channel and time for the steps from t on, one in each group of lanes."""
    x_m = tl.load(x + t * X_ROW + (d + lane * X_ROW), mask=ok, other=0.0)
    z_m = tl.load(z + t * Z_ROW + (d + lane * Z_ROW), mask=ok, other=0.0)
    dy_m = tl.load(dy + t * DY_ROW + (d + lane * DY_ROW), mask=ok, other=0.0)
    dt_m = tl.load(dt + t * DT_ROW + (d + lane * DT_ROW), mask=ok, other=0.0)
    if SCANNED:
        y_m = tl.load(scanned + t * CHANNELS + (d + lane * CHANNELS), mask=ok, other=0.0)
    else:
        y_m = x_m
    return x_m, z_m, dy_m, dt_m, y_m


@jit(do_not_specialize=["batch", "texts", "n_tokens", "n_saved"])
def scan_backward_kernel(
    x, dt, a_matrix, bc, skip_weight, z, dt_bias, saved, scanned, dy, dfinal,
    dx, ddt, dz, dbc, da_matrix, dskip, dbias, dinitial,
    batch, texts, n_tokens, n_saved, one, x_text, dt_text, z_text, dy_text,
    X_ROW: constexpr, DT_ROW: constexpr, Z_ROW: constexpr, DY_ROW: constexpr,
    CHANNELS: constexpr, N: constexpr, NL: constexpr, DL: constexpr,
    DR: constexpr, HISTORY: constexpr, HOLD: constexpr, AHEAD: constexpr,
    SCANNED: constexpr, FINAL: constexpr, INITIAL_GRADIENT: constexpr,
):  # fmt: skip
    """Walk a text backward, HISTORY steps at a time, each time from a state that was saved."""
    NR: tl.constexpr = N // NL
    BD: tl.constexpr = DL * DR
    GROUPS: tl.constexpr = HISTORY // NL
    lane = tl.arange(0, NL)[:, None, None, None]
    channel_lane = tl.arange(0, DL)[None, :, None, None]
    d = tl.program_id(0) * BD + channel_lane * DR
    d += tl.arange(0, DR)[None, None, :, None]
    n = lane * NR + tl.arange(0, NR)[None, None, None, :]
    # sums over channels of HISTORY steps end in the first lanes, one step in each
    first = channel_lane < HISTORY
    of_step = (channel_lane % HISTORY) * (2 * N) + n
    # spelled out over all lanes, or the compiler would spread these over lanes in its own way
    d_all = d + tl.zeros([NL, 1, 1, 1], tl.int32)
    n_all = n + tl.zeros([1, DL, 1, 1], tl.int32)
    inside = (d < CHANNELS) | (CHANNELS % BD == 0)
    inside_all = (d_all < CHANNELS) | (CHANNELS % BD == 0)
    dn = d * N + n
    a = tl.load(a_matrix + dn, mask=inside, other=0.0) * 1.4426950408889634
    skip = tl.load(skip_weight + d_all, mask=inside_all, other=0.0)
    bias = tl.load(dt_bias + d_all, mask=inside_all, other=0.0)
    da = tl.zeros([NL, DL, DR, NR], tl.float32)
    dskip_sum = tl.zeros([NL, DL, DR, 1], tl.float32)
    dbias_sum = tl.zeros([NL, DL, DR, 1], tl.float32)
    first_text = tl.program_id(1) * texts
    for index in range(tl.minimum(texts, batch - first_text)):
        text = first_text.to(tl.int64) + index
        if FINAL:
            carry = tl.load(dfinal + text * (CHANNELS * N) + dn, mask=inside, other=0.0)
        else:
            carry = tl.zeros([NL, DL, DR, NR], tl.float32)
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
                    inside_all & (t_m + lane < n_tokens), d, lane,
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
                        inside_all & (t + m * NL + lane < n_tokens), d, lane,
                        X_ROW, DT_ROW, Z_ROW, DY_ROW, CHANNELS, SCANNED,
                    )  # fmt: skip
            h = state.to(tl.float32)
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
                ok = inside_all & (t + m * NL + lane < n_tokens)
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
                        inside_all & (t_m + lane < n_tokens), d, lane,
                        X_ROW, DT_ROW, Z_ROW, DY_ROW, CHANNELS, SCANNED,
                    )  # fmt: skip
            before = ()
            decays = ()
            dy_scan = ()
            for m in tl.static_range(GROUPS):
                gate = sigmoid(zs[m])
                dy_m = dys[m] * zs[m] * gate
                u = deltas[m] * xs[m]
                out_row = out_rows + t * CHANNELS + (d + lane * CHANNELS) + m * NL * CHANNELS
                for k in tl.static_range(NL):
                    bc_row = bc_rows + (m * NL + k) * (2 * N) + n_all
                    before = before + (h,)
                    decay = tl.exp2(_at(deltas[m], k, NL, DL, DR) * a)
                    if HOLD:
                        decays = decays + (decay,)
                    h = decay * h + _at(u, k, NL, DL, DR) * tl.load(bc_row)
                    if not SCANNED:
                        y_k = tl.sum(h * tl.load(bc_row + N), 3, keep_dims=True)
                        if k == 0:
                            y1, y2, y4 = y_k, y_k, y_k
                        y_m, y1, y2, y4 = _fold_step(y_k, y1, y2, y4, lane, k, True, NL, 0)
                    dc_k = tl.sum(h * _at(dy_m, k, NL, DL, DR), 2, keep_dims=True)
                    if m * NL + k == 0:
                        s1, s2, s4 = dc_k, dc_k, dc_k
                    dc, s1, s2, s4 = _fold_step(
                        dc_k, s1, s2, s4, channel_lane, m * NL + k, True, HISTORY, 1
                    )
                if SCANNED:
                    y_m = scans[m]
                else:
                    y_m += skip * xs[m]
                dz_m = dys[m] * y_m * gate * (1.0 + zs[m] * (1.0 - gate))
                tl.store(dz + out_row, dz_m.to(dz.dtype.element_ty), mask=there[m])
                dskip_sum += dy_m * xs[m]
                dy_scan = dy_scan + (dy_m,)
            tl.store(dbc_rows + N + of_step, _spread(dc, channel_lane, DL, HISTORY), mask=first)
            for m in tl.static_range(GROUPS - 1, -1, -1):
                # `one` keeps the compiler from holding what the first sweep gathered in registers
                delta = deltas[m] * one
                dy_m = dy_scan[m] * one
                u = delta * xs[m]
                out_row = out_rows + t * CHANNELS + (d + lane * CHANNELS) + m * NL * CHANNELS
                for k in tl.static_range(NL - 1, -1, -1):
                    bc_row = bc_rows + (m * NL + k) * (2 * N) + n_all
                    delta_k = _at(delta, k, NL, DL, DR)
                    dh = _at(dy_m, k, NL, DL, DR) * tl.load(bc_row + N) + carry
                    db_k = tl.sum(dh * _at(u, k, NL, DL, DR), 2, keep_dims=True)
                    if m * NL + k == HISTORY - 1:
                        s1, s2, s4 = db_k, db_k, db_k
                    db, s1, s2, s4 = _fold_step(
                        db_k, s1, s2, s4, channel_lane, m * NL + k, False, HISTORY, 1
                    )
                    if HOLD:
                        carry = dh * decays[m * NL + k]
                    else:
                        carry = dh * tl.exp2(delta_k * a)
                    through = carry * before[m * NL + k]
                    da += delta_k * through
                    du_k = tl.sum(dh * tl.load(bc_row), 3, keep_dims=True)
                    ddelta_k = tl.sum(through * a, 3, keep_dims=True)
                    if k == NL - 1:
                        u1, u2, u4 = du_k, du_k, du_k
                        v1, v2, v4 = ddelta_k, ddelta_k, ddelta_k
                    du_m, u1, u2, u4 = _fold_step(du_k, u1, u2, u4, lane, k, False, NL, 0)
                    ddelta_m, v1, v2, v4 = _fold_step(ddelta_k, v1, v2, v4, lane, k, False, NL, 0)
                dx_m = du_m * delta + skip * dy_m
                # a is in units of log2; the slope is that of softplus
                ddt_m = (du_m * xs[m] + ddelta_m * 0.6931471805599453) * slopes[m]
                ddt_m = tl.where(there[m], ddt_m, 0.0)
                dbias_sum += ddt_m
                tl.store(dx + out_row, dx_m.to(dx.dtype.element_ty), mask=there[m])
                tl.store(ddt + out_row, ddt_m.to(ddt.dtype.element_ty), mask=there[m])
            tl.store(dbc_rows + of_step, _spread(db, channel_lane, DL, HISTORY), mask=first)
        if INITIAL_GRADIENT:
            tl.store(dinitial + text * (CHANNELS * N) + dn, carry, mask=inside)
    part_rows = tl.program_id(1).to(tl.int64) * CHANNELS
    tl.store(da_matrix + part_rows * N + dn, da, mask=inside)
    tl.store(dskip + part_rows + d, tl.sum(dskip_sum, 0, keep_dims=True), mask=inside)
    tl.store(dbias + part_rows + d, tl.sum(dbias_sum, 0, keep_dims=True), mask=inside)
