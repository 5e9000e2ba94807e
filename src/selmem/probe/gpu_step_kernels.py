# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
# ruff: noqa: RUF005
# Triton's compiler reads these functions: tuples grow by +.
"""Kernels of `gpu_step.py`: what a layer's step does between in_proj and out_proj.

EARLY starts a kernel while the one before ends (programmatic dependent launch). The interpreter
multiplies no half-precision values, so INTERPRETED widens the factors; results stay the same. What
other kernels write is loaded past the L1 cache.

Dims: B rows, H hidden size, D inner channels, N state size, W convolution width, R rank of dt,
P = R + 2N; a program takes BM rows and BN channels.
"""

from .triton_math import multiply, prefetch, sigmoid, softplus, take_turn
from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit
def norm_kernel(
    token, source, stream, norm_weight, normed, eps,
    HIDDEN: constexpr, BLOCK: constexpr, SPLIT: constexpr, LATE: constexpr, EARLY: constexpr,
):  # fmt: skip
    """Add a row of `source` to the stream, or begin it with the token's embedding; norm it.

    With SPLIT, a row of `source` is what so many parts add to a product, float32. With LATE, what
    wrote the stream may not have ended before the kernel before this one has.
    """
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK)
    inside = h < HIDDEN
    place = row * HIDDEN + h
    w = tl.load(norm_weight + h, mask=inside, other=0.0).to(tl.float32)
    if token is None:
        if LATE:
            take_turn(EARLY)
        # else a product lies between the kernel that wrote this and the one before this one
        total = tl.load(stream + place, mask=inside, other=0.0, cache_modifier=".cg")
        total = total.to(tl.float32)
        if not LATE:
            take_turn(EARLY)
        if SPLIT > 0:
            parts = source + row * (SPLIT * HIDDEN) + h
            added = tl.load(parts, mask=inside, other=0.0, cache_modifier=".cg")
            for s in tl.static_range(1, SPLIT):
                part = parts + s * HIDDEN
                added += tl.load(part, mask=inside, other=0.0, cache_modifier=".cg")
            added = added.to(normed.dtype.element_ty)
        else:
            added = tl.load(source + place, mask=inside, other=0.0, cache_modifier=".cg")
        total += added.to(tl.float32)
    else:
        value = tl.load(source + tl.load(token + row) * HIDDEN + h, mask=inside, other=0.0)
        total = value.to(tl.float32)
    rounded = total.to(stream.dtype.element_ty)
    tl.store(stream + place, rounded, mask=inside)
    value = rounded.to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 0) / HIDDEN + eps)
    tl.store(normed + place, (value * w).to(normed.dtype.element_ty), mask=inside)


@jit(do_not_specialize=["rows"])
def convolve_kernel(
    entered, window, turn, filters, bias, selection, x, partial, states, rows,
    CHANNELS: constexpr, WIDTH: constexpr, SELECTED: constexpr, BP: constexpr,
    BM: constexpr, BN: constexpr, BIAS: constexpr, PREFETCH: constexpr,
    EARLY: constexpr, AHEAD: constexpr, INTERPRETED: constexpr,
):  # fmt: skip
    """Convolution and SiLU of the first half of `entered`; the part of x_proj from BN channels.

    Windows are (B, W, D). A program is alone with its part of them. Without `turn` it shifts them,
    and loads its part whole before it stores: a barrier lies between. Else they are rings, of which
    the oldest tap is number `turn`, modulo WIDTH; the newest one takes its place.

    PREFETCH bytes a row of `states` are brought to the L2 cache, where EARLY.
    """
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.program_id(1) * BN + tl.arange(0, BN)
    p = tl.arange(0, BP)
    ours = d < CHANNELS
    real = row < rows
    inside = real[:, None] & ours[None, :]
    row = tl.minimum(row, rows - 1)
    place = row[:, None] * CHANNELS + d[None, :]
    taps = window + row[:, None] * (WIDTH * CHANNELS) + d[None, :]
    # windows were written a token ago, weights never
    oldest = 0
    if turn is not None:
        oldest = (tl.load(turn) % WIDTH).to(tl.int32)
    kept = ()
    for w in tl.static_range(1, WIDTH):
        place_w = taps + (oldest + w) % WIDTH * CHANNELS
        kept = kept + (tl.load(place_w, mask=inside, other=0.0, cache_modifier=".cg"),)
    maps = tl.load(
        selection + p[:, None] * CHANNELS + d[None, :],
        mask=(p < SELECTED)[:, None] & ours[None, :],
        other=0.0,
    )
    factors = ()
    for w in tl.static_range(WIDTH):
        factor = tl.load(filters + d * WIDTH + w, mask=ours, other=0.0).to(tl.float32)
        factors = factors + (factor,)
    if BIAS:
        shift = tl.load(bias + d, mask=ours, other=0.0).to(tl.float32)
    out = tl.zeros([BM, BN], tl.float32)
    if BIAS:
        out += shift[None, :]
    for w in tl.static_range(WIDTH - 1):
        out += factors[w][None, :] * kept[w].to(tl.float32)
    if EARLY and PREFETCH > 0:
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        programs = tl.num_programs(0) * tl.num_programs(1)
        prefetch(states, rows * PREFETCH, program, programs)
    take_turn(EARLY, AHEAD)
    newest = entered + row[:, None] * (2 * CHANNELS) + d[None, :]
    kept = kept + (tl.load(newest, mask=inside, other=0.0, cache_modifier=".cg"),)
    if turn is None:
        tl.debug_barrier()
        for w in tl.static_range(WIDTH - 1):
            tl.store(taps + w * CHANNELS, kept[w], mask=inside)
        oldest = WIDTH - 1
    tl.store(taps + oldest * CHANNELS, kept[WIDTH - 1], mask=inside)
    out += factors[WIDTH - 1][None, :] * kept[WIDTH - 1].to(tl.float32)
    out *= sigmoid(out)
    rounded = out.to(x.dtype.element_ty)
    tl.store(x + place, rounded, mask=inside)
    # both factors go through shared memory, so the compiler convolves in the windows' layout
    selected = multiply(maps, tl.trans(rounded), INTERPRETED)
    BLOCKS: tl.constexpr = (CHANNELS + BN - 1) // BN
    target = partial + (row[None, :] * BLOCKS + tl.program_id(1)) * SELECTED + p[:, None]
    tl.store(target, selected, mask=real[None, :] & (p < SELECTED)[:, None])


@jit
def summed(partial, row, column, first, COUNT: constexpr, BLOCKS: constexpr, SELECTED: constexpr):
    """Return COUNT columns of x_proj's output from `first` on: its parts, added in order."""
    place = partial + row[:, None] * (BLOCKS * SELECTED) + first + column[None, :]
    there = (column < COUNT)[None, :]
    total = tl.load(place, mask=there, other=0.0, cache_modifier=".cg")
    for s in tl.static_range(1, BLOCKS):
        total += tl.load(place + s * SELECTED, mask=there, other=0.0, cache_modifier=".cg")
    return total


@jit(do_not_specialize=["rows"])
def select_kernel(
    partial, dt_proj, dt, maps, rows,
    CHANNELS: constexpr, RANK: constexpr, BK: constexpr, MAPS: constexpr, BC: constexpr,
    BLOCKS: constexpr, BM: constexpr, BN: constexpr,
    EARLY: constexpr, AHEAD: constexpr, INTERPRETED: constexpr,
):  # fmt: skip
    """Sum the parts of x_proj; dt of BN channels, and in the last column of programs B and C."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    real = row < rows
    row = tl.minimum(row, rows - 1)
    if tl.program_id(1) == (CHANNELS + BN - 1) // BN:
        take_turn(EARLY, AHEAD)
        c = tl.arange(0, BC)
        total = summed(partial, row, c, RANK, MAPS, BLOCKS, RANK + MAPS)
        place = maps + row[:, None] * MAPS + c[None, :]
        kept = real[:, None] & (c < MAPS)[None, :]
        tl.store(place, total.to(maps.dtype.element_ty), mask=kept)
    else:
        d = tl.program_id(1) * BN + tl.arange(0, BN)
        k = tl.arange(0, BK)
        ours = d < CHANNELS
        weight = tl.load(
            dt_proj + d[:, None] * RANK + k[None, :],
            mask=ours[:, None] & (k < RANK)[None, :],
            other=0.0,
        )
        take_turn(EARLY, AHEAD)
        low_rank = summed(partial, row, k, 0, RANK, BLOCKS, RANK + MAPS)
        value = multiply(weight, tl.trans(low_rank.to(dt.dtype.element_ty)), INTERPRETED)
        target = dt + row[None, :] * CHANNELS + d[:, None]
        there = real[None, :] & ours[:, None]
        tl.store(target, value.to(dt.dtype.element_ty), mask=there)


@jit(do_not_specialize=["rows"])
def recur_kernel(
    state, entered, x, dt, maps, a_matrix, skip_weight, dt_bias, y, rows,
    CHANNELS: constexpr, N: constexpr, NP: constexpr, ROWS: constexpr, BD: constexpr,
    EARLY: constexpr, AHEAD: constexpr,
):  # fmt: skip
    """Advance the state of ROWS rows and BD channels; the gate is the second half of `entered`."""
    first = tl.program_id(1) * ROWS
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    n = tl.arange(0, NP)[None, :]
    ours = d < CHANNELS
    tile = ours[:, None] & (n < N)
    dn = d[:, None] * N + n
    # states were written a token ago
    held = ()
    for r in tl.static_range(ROWS):
        place = state + tl.minimum(first + r, rows - 1).to(tl.int64) * (CHANNELS * N) + dn
        held = held + (tl.load(place, mask=tile, other=0.0, cache_modifier=".cg"),)
    a = tl.load(a_matrix + dn, mask=tile, other=0.0) * 1.4426950408889634
    skip = tl.load(skip_weight + d, mask=ours, other=0.0)
    bias = tl.load(dt_bias + d, mask=ours, other=0.0)
    take_turn(EARLY, AHEAD)
    inputs = ()
    for r in tl.static_range(ROWS):
        row = tl.minimum(first + r, rows - 1)
        dt_value = tl.load(dt + row * CHANNELS + d, mask=ours, other=0.0, cache_modifier=".cg")
        x_value = tl.load(x + row * CHANNELS + d, mask=ours, other=0.0, cache_modifier=".cg")
        gate = entered + row * (2 * CHANNELS) + CHANNELS + d
        z_value = tl.load(gate, mask=ours, other=0.0, cache_modifier=".cg")
        b_map = maps + row * (2 * N) + n
        b_value = tl.load(b_map, mask=n < N, other=0.0, cache_modifier=".cg")
        c_value = tl.load(b_map + N, mask=n < N, other=0.0, cache_modifier=".cg")
        inputs = inputs + ((dt_value, x_value, z_value, b_value, c_value),)
    for r in tl.static_range(ROWS):
        there = first + r < rows
        row = tl.minimum(first + r, rows - 1)
        delta = softplus(inputs[r][0].to(tl.float32) + bias)
        x_value = inputs[r][1].to(tl.float32)
        z_value = inputs[r][2].to(tl.float32)
        scaled = (delta * x_value)[:, None] * inputs[r][3].to(tl.float32)
        h = tl.exp2(delta[:, None] * a) * held[r] + scaled
        place = state + row.to(tl.int64) * (CHANNELS * N) + dn
        # nothing reads them before the next token
        tl.store(place, h, mask=tile & there, eviction_policy="evict_first")
        out = tl.sum(h * inputs[r][4].to(tl.float32), 1) + skip * x_value
        out *= z_value * sigmoid(z_value)
        tl.store(y + row * CHANNELS + d, out.to(y.dtype.element_ty), mask=ours & there)
