# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
# ruff: noqa: SIM108
# Triton's compiler reads these functions: tuples grow by +, and a condition known at compile time
# stands in an `if` of its own.
"""Kernels of a single token, which advance state and window in place."""

from .triton_math import sigmoid, softplus
from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit
def state_kernel(
    state, x, dt, a_matrix, b_map, c_map, skip_weight, z, dt_bias, y,
    x_text, dt_text, b_text, c_text, z_text,
    CHANNELS: constexpr, N: constexpr, NP: constexpr, BD: constexpr,
):  # fmt: skip
    """Advance the state of BD channels by one token."""
    BLOCKS: tl.constexpr = (CHANNELS + BD - 1) // BD
    text = (tl.program_id(0) // BLOCKS).to(tl.int64)
    d = tl.program_id(0) % BLOCKS * BD + tl.arange(0, BD)
    n = tl.arange(0, NP)[None, :]
    inside = d < CHANNELS
    tile = inside[:, None] & (n < N)
    dn = d[:, None] * N + n
    place = state + text * (CHANNELS * N) + dn
    h = tl.load(place, mask=tile, other=0.0)
    a = tl.load(a_matrix + dn, mask=tile, other=0.0) * 1.4426950408889634
    x_value = tl.load(x + text * x_text + d, mask=inside, other=0.0).to(tl.float32)
    dt_value = tl.load(dt + text * dt_text + d, mask=inside, other=0.0).to(tl.float32)
    z_value = tl.load(z + text * z_text + d, mask=inside, other=0.0).to(tl.float32)
    skip = tl.load(skip_weight + d, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(dt_bias + d, mask=inside, other=0.0).to(tl.float32)
    b_value = tl.load(b_map + text * b_text + n, mask=n < N, other=0.0).to(tl.float32)
    c_value = tl.load(c_map + text * c_text + n, mask=n < N, other=0.0).to(tl.float32)
    delta = softplus(dt_value + bias)
    h = tl.exp2(delta[:, None] * a) * h + (delta * x_value)[:, None] * b_value
    tl.store(place, h, mask=tile)
    out = (tl.sum(h * c_value, 1) + skip * x_value) * z_value * sigmoid(z_value)
    tl.store(y + text * CHANNELS + d, out.to(y.dtype.element_ty), mask=inside)


@jit
def window_kernel(
    window, x, weight, bias, y, x_text,
    CHANNELS: constexpr, WIDTH: constexpr, BD: constexpr, BIAS: constexpr,
):  # fmt: skip
    """Shift one token into the windows of BD channels and convolve."""
    BLOCKS: tl.constexpr = (CHANNELS + BD - 1) // BD
    text = (tl.program_id(0) // BLOCKS).to(tl.int64)
    d = tl.program_id(0) % BLOCKS * BD + tl.arange(0, BD)
    inside = d < CHANNELS
    place = window + text * (CHANNELS * WIDTH) + d * WIDTH
    newest = tl.load(x + text * x_text + d, mask=inside, other=0.0).to(window.dtype.element_ty)
    out = tl.zeros([BD], tl.float32)
    if BIAS:
        out += tl.load(bias + d, mask=inside, other=0.0).to(tl.float32)
    for w in tl.static_range(WIDTH):
        # a thread holds all taps of its channels, so no other thread reads what it overwrites
        if w < WIDTH - 1:
            value = tl.load(place + w + 1, mask=inside, other=0.0)
        else:
            value = newest
        tap = tl.load(weight + d * WIDTH + w, mask=inside, other=0.0).to(tl.float32)
        out += tap * value.to(tl.float32)
        tl.store(place + w, value, mask=inside)
    out *= sigmoid(out)
    tl.store(y + text * CHANNELS + d, out.to(y.dtype.element_ty), mask=inside)


@jit
def keep(first, row, token, ended, recent, slot, recent_row, EOS: constexpr):
    """Write the token `first` of a row, or EOS after EOS."""
    chosen = tl.where(tl.load(ended + row) != 0, EOS, first).to(tl.int64)
    tl.store(token + row, chosen)
    tl.store(ended + row, (chosen == EOS).to(tl.uint8))
    tl.store(recent + slot * recent_row + row, chosen)


@jit
def choose_kernel(
    logits, token, ended, recent, slot, recent_row,
    EOS: constexpr, VOCABULARY: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """Write the place of the largest logit of a row, the first of equals, or EOS after EOS."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * VOCABULARY
    v = tl.arange(0, BLOCK)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    place = tl.zeros([BLOCK], tl.int32)
    for start in range(0, VOCABULARY, BLOCK):
        inside = start + v < VOCABULARY
        x = tl.load(logits + start + v, mask=inside, other=float("-inf")).to(tl.float32)
        higher = x > best
        place = tl.where(higher, start + v, place)
        best = tl.where(higher, x, best)
    top = tl.max(best, 0)
    first = tl.min(tl.where(best == top, place, VOCABULARY), 0)
    keep(first, row, token, ended, recent, tl.load(slot), recent_row, EOS)
