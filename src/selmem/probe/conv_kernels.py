# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
# ruff: noqa: RUF005
# Triton's compiler reads these functions: tuples grow by +, and a condition known at compile time
# stands in an `if` of its own.
"""Kernels of the short convolution; triton_conv.py says how they work."""

from .triton_math import sigmoid
from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit
def _input(x, window, t, d, inside, X_ROW: constexpr, WIDTH: constexpr, WINDOW: constexpr):
    """Return the input at time t >= -WIDTH: before the text it is the window's, or zero."""
    value = tl.load(x + t * X_ROW + d, mask=inside & (t >= 0), other=0.0).to(tl.float32)
    if WINDOW:
        before = tl.load(window + d * WIDTH + (WIDTH + t), mask=inside & (t < 0), other=0.0)
        value += before.to(tl.float32)
    return value


@jit(do_not_specialize=["n_tokens"])
def conv_forward_kernel(
    x, weight, bias, window, y, n_tokens, x_text,
    X_ROW: constexpr, CHANNELS: constexpr, WIDTH: constexpr, BD: constexpr,
    STRETCH: constexpr, UNROLLED: constexpr, BIAS: constexpr, WINDOW: constexpr,
):  # fmt: skip
    """Convolve a stretch of time of BD channels."""
    BLOCKS: tl.constexpr = (CHANNELS + BD - 1) // BD
    text = (tl.program_id(0) // BLOCKS).to(tl.int64)
    d = tl.program_id(0) % BLOCKS * BD + tl.arange(0, BD)
    inside = (d < CHANNELS) | (CHANNELS % BD == 0)
    start = tl.program_id(1) * STRETCH
    x += text * x_text
    y += text * n_tokens * CHANNELS
    if WINDOW:
        window += text * (CHANNELS * WIDTH)
    taps = ()
    past = ()
    for w in tl.static_range(WIDTH):
        taps = taps + (tl.load(weight + d * WIDTH + w, mask=inside, other=0.0).to(tl.float32),)
    for w in tl.static_range(1, WIDTH):
        past = past + (_input(x, window, start - WIDTH + w, d, inside, X_ROW, WIDTH, WINDOW),)
    offset = tl.zeros([BD], tl.float32)
    if BIAS:
        offset += tl.load(bias + d, mask=inside, other=0.0).to(tl.float32)
    for t in range(start, tl.minimum(start + STRETCH, n_tokens), UNROLLED):
        new = ()
        for k in tl.static_range(UNROLLED):
            there = inside & (t + k < n_tokens)
            value = tl.load(x + t * X_ROW + k * X_ROW + d, mask=there, other=0.0)
            new = new + (value.to(tl.float32),)
        seen = past + new
        for k in tl.static_range(UNROLLED):
            out = offset
            for w in tl.static_range(WIDTH):
                out += taps[w] * seen[k + w]
            out *= sigmoid(out)
            there = inside & (t + k < n_tokens)
            tl.store(y + t * CHANNELS + k * CHANNELS + d, out.to(y.dtype.element_ty), mask=there)
        past = seen[UNROLLED:]


@jit(do_not_specialize=["batch", "texts", "n_tokens"])
def conv_backward_kernel(
    x, weight, bias, window, dy, dx, dweights, dwindow,
    batch, texts, n_tokens, x_text, dy_text,
    X_ROW: constexpr, DY_ROW: constexpr, CHANNELS: constexpr, WIDTH: constexpr, BD: constexpr,
    STRETCH: constexpr, UNROLLED: constexpr, BIAS: constexpr, WINDOW: constexpr,
    WINDOW_GRADIENT: constexpr,
):  # fmt: skip
    """Add up the gradients of a stretch of time, outputs in order."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = (d < CHANNELS) | (CHANNELS % BD == 0)
    start = tl.program_id(1) * STRETCH
    end = tl.minimum(start + STRETCH, n_tokens)
    taps = ()
    dtaps = ()
    for w in tl.static_range(WIDTH):
        taps = taps + (tl.load(weight + d * WIDTH + w, mask=inside, other=0.0).to(tl.float32),)
        dtaps = dtaps + (tl.zeros([BD], tl.float32),)
    offset = tl.zeros([BD], tl.float32)
    doffset = tl.zeros([BD], tl.float32)
    if BIAS:
        offset += tl.load(bias + d, mask=inside, other=0.0).to(tl.float32)
    first_text = tl.program_id(2) * texts
    for index in range(tl.minimum(texts, batch - first_text)):
        text = first_text.to(tl.int64) + index
        x_rows = x + text * x_text
        dy_rows = dy + text * dy_text
        dx_rows = dx + text * n_tokens * CHANNELS
        window_rows = window
        if WINDOW:
            window_rows += text * (CHANNELS * WIDTH)
        past = ()
        # sums for the inputs that later outputs still add to, oldest first
        partial = ()
        for w in tl.static_range(1, WIDTH):
            before = _input(x_rows, window_rows, start - WIDTH + w, d, inside, X_ROW, WIDTH, WINDOW)
            past = past + (before,)
            partial = partial + (tl.zeros([BD], tl.float32),)
        # the WIDTH - 1 outputs after the stretch also depend on its inputs
        for t in range(start, end + WIDTH - 1, UNROLLED):
            new = ()
            new_dy = ()
            for k in tl.static_range(UNROLLED):
                there = inside & (t + k < tl.minimum(end + WIDTH - 1, n_tokens))
                value = tl.load(x_rows + t * X_ROW + k * X_ROW + d, mask=there, other=0.0)
                grad = tl.load(dy_rows + t * DY_ROW + k * DY_ROW + d, mask=there, other=0.0)
                new = new + (value.to(tl.float32),)
                new_dy = new_dy + (grad.to(tl.float32),)
            seen = past + new
            for k in tl.static_range(UNROLLED):
                out = offset
                for w in tl.static_range(WIDTH):
                    out += taps[w] * seen[k + w]
                gate = sigmoid(out)
                dout = new_dy[k] * gate * (1.0 + out * (1.0 - gate))
                own = tl.where(t + k < end, dout, 0.0)
                doffset += own
                sums = ()
                kept = ()
                for w in tl.static_range(WIDTH):
                    kept = kept + (dtaps[w] + own * seen[k + w],)
                    if w < WIDTH - 1:
                        sums = sums + (partial[w] + taps[w] * dout,)
                    else:
                        sums = sums + (taps[w] * dout,)
                dtaps = kept
                source = t + k - (WIDTH - 1)
                there = inside & (source >= start) & (source < end)
                row = dx_rows + source * CHANNELS + d
                tl.store(row, sums[0].to(dx.dtype.element_ty), mask=there)
                if WINDOW_GRADIENT:
                    early = inside & (source < 0)
                    place = dwindow + text * (CHANNELS * WIDTH) + d * WIDTH + (WIDTH + source)
                    tl.store(place, sums[0].to(dwindow.dtype.element_ty), mask=early)
                partial = sums[1:]
            past = seen[UNROLLED:]
    part = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    out_rows = dweights + part.to(tl.int64) * ((WIDTH + 1) * CHANNELS) + d
    for w in tl.static_range(WIDTH):
        tl.store(out_rows + w * CHANNELS, dtaps[w], mask=inside)
    tl.store(out_rows + WIDTH * CHANNELS, doffset, mask=inside)
