# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""Kernels of the residual connection and the norm after it; triton_norm.py says how they work."""

from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit
def add_norm_forward_kernel(
    mixed, residual, weight, total, normed, scale, eps, HIDDEN: constexpr, BLOCK: constexpr
):
    """Add and norm one row."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK)
    inside = h < HIDDEN
    place = row * HIDDEN + h
    added = tl.load(mixed + place, mask=inside, other=0.0).to(tl.float32)
    added += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    rounded = added.to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    x = rounded.to(tl.float32)
    r = tl.rsqrt(tl.sum(x * x, 0) / HIDDEN + eps)
    tl.store(scale + row, r)
    w = tl.load(weight + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + place, (x * r * w).to(normed.dtype.element_ty), mask=inside)


@jit(do_not_specialize=["n_rows", "rows_each"])
def add_norm_backward_kernel(
    dnormed, dtotal, total, weight, scale, dmixed, dresidual, dweight, n_rows, rows_each,
    HIDDEN: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """Go through rows_each rows; gradients of the weight add up in registers."""
    h = tl.arange(0, BLOCK)
    inside = h < HIDDEN
    w = tl.load(weight + h, mask=inside, other=0.0).to(tl.float32)
    dw = tl.zeros([BLOCK], tl.float32)
    first = tl.program_id(0) * rows_each
    for index in range(tl.minimum(rows_each, n_rows - first)):
        row = first.to(tl.int64) + index
        place = row * HIDDEN + h
        r = tl.load(scale + row)
        unit = tl.load(total + place, mask=inside, other=0.0).to(tl.float32) * r
        dn = tl.load(dnormed + place, mask=inside, other=0.0).to(tl.float32)
        dw += dn * unit
        dn *= w
        dx = r * (dn - unit * (tl.sum(dn * unit, 0) / HIDDEN))
        if dtotal is not None:
            dx += tl.load(dtotal + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(dmixed + place, dx.to(dmixed.dtype.element_ty), mask=inside)
        if dresidual is not None:
            tl.store(dresidual + place, dx.to(dresidual.dtype.element_ty), mask=inside)
    tl.store(dweight + tl.program_id(0) * HIDDEN + h, dw, mask=inside)
