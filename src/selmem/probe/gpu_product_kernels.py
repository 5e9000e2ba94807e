# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""The kernels of `gpu_product.py`; EARLY and INTERPRETED are as in `gpu_step_kernels.py`."""

from .step_kernels import keep
from .triton_math import multiply, take_turn
from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit(do_not_specialize=["rows"])
def product_kernel(
    values, weight, out, squares, eps, stream, norm_weight, sums, rows,
    INNER: constexpr, OUTER: constexpr, BM: constexpr, BN: constexpr, BK: constexpr,
    SPLIT: constexpr, SCALES: constexpr, SP: constexpr,
    EARLY: constexpr, AHEAD: constexpr, INTERPRETED: constexpr,
):  # fmt: skip
    """Write the product of `values` (B, INNER) and `weight` (OUTER, INNER), in SPLIT parts of it.

    Both factors are descriptors, of blocks (BM, BK) and (BN, BK): what lies outside of them is 0.
    `out` is (B, SPLIT, OUTER), contiguous; a part sums its share of the factors.

    With SCALES, a row is divided by the root of the mean of its squares, of which `squares`
    (B, SCALES) has sums. With a stream (B, OUTER), the product is added to it, `out` gets it times
    `norm_weight`, and `sums` what the squares of each program's columns add up to.
    """
    LENGTH: tl.constexpr = (INNER + SPLIT * BK - 1) // (SPLIT * BK) * BK
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    begin = tl.program_id(2) * LENGTH
    real = row < rows
    kept = real[:, None] & (column < OUTER)[None, :]
    row = tl.minimum(row, rows - 1)
    take_turn(EARLY, AHEAD)
    if SCALES > 0:
        block = tl.arange(0, SP)[None, :]
        place = squares + row[:, None] * SCALES + block
        found = tl.load(place, mask=block < SCALES, other=0.0, cache_modifier=".cg")
    total = tl.zeros([BM, BN], tl.float32)
    for start in range(begin, begin + LENGTH, BK):
        left = values.load([tl.program_id(1) * BM, start])
        right = weight.load([tl.program_id(0) * BN, start])
        total += multiply(left, tl.trans(right), INTERPRETED)
    if SCALES > 0:
        # not before the loop, whose first loads would wait for these
        total *= tl.rsqrt(tl.sum(found, 1) / INNER + eps)[:, None]
    if stream is not None:
        whole = row[:, None] * OUTER + column[None, :]
        before = tl.load(stream + whole, mask=kept, other=0.0, cache_modifier=".cg")
        total = before.to(tl.float32) + total.to(out.dtype.element_ty).to(tl.float32)
        rounded = total.to(stream.dtype.element_ty)
        tl.store(stream + whole, rounded, mask=kept)
        total = tl.where(kept, rounded.to(tl.float32), 0.0)
        place = sums + row * tl.num_programs(0) + tl.program_id(0)
        tl.store(place, tl.sum(total * total, 1), mask=real)
        factor = tl.load(norm_weight + column, mask=column < OUTER, other=0.0).to(tl.float32)
        total *= factor[None, :]
    place = out + row[:, None] * (SPLIT * OUTER) + tl.program_id(2) * OUTER + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=kept)


@jit(do_not_specialize=["rows"])
def likeliest_kernel(
    values, weight, best, place, slot, rows,
    INNER: constexpr, OUTER: constexpr, BM: constexpr, BN: constexpr, BK: constexpr,
    BLOCKS: constexpr, INTERPRETED: constexpr,
):  # fmt: skip
    """Of a product, rounded as the factors are, the largest of BN columns and the first such place.

    Both are (B, BLOCKS); the descriptors are those of `product_kernel`. Programs of the same
    columns are neighbours, so that weights are read once. The first program moves `slot` on.
    """
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        tl.store(slot, tl.load(slot) + 1)
    total = tl.zeros([BM, BN], tl.float32)
    for start in range(0, INNER, BK):
        left = values.load([tl.program_id(0) * BM, start])
        right = weight.load([tl.program_id(1) * BN, start])
        total += multiply(left, tl.trans(right), INTERPRETED)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = (tl.program_id(1) * BN + tl.arange(0, BN))[None, :]
    total = total.to(weight.dtype).to(tl.float32)
    total = tl.where(column < OUTER, total, float("-inf"))
    top = tl.max(total, 1)
    first = tl.min(tl.where(total == top[:, None], column, OUTER), 1)
    target = tl.minimum(row, rows - 1) * BLOCKS + tl.program_id(1)
    tl.store(best + target, top, mask=row < rows)
    tl.store(place + target, first, mask=row < rows)


@jit
def settle_kernel(
    best, place, token, ended, recent, slot, recent_row,
    EOS: constexpr, OUTER: constexpr, BLOCKS: constexpr, BP: constexpr, EARLY: constexpr,
):  # fmt: skip
    """From what `likeliest_kernel` finds, do what `choose_kernel` does; `slot` has moved on."""
    row = tl.program_id(0).to(tl.int64)
    b = tl.arange(0, BP)
    take_turn(EARLY)
    found = tl.load(best + row * BLOCKS + b, mask=b < BLOCKS, other=float("-inf"))
    where = tl.load(place + row * BLOCKS + b, mask=b < BLOCKS, other=OUTER)
    first = tl.min(tl.where(found == tl.max(found, 0), where, OUTER), 0)
    # of what are no numbers, the first, as `choose_kernel`
    first = tl.where(first == OUTER, 0, first)
    keep(first, row, token, ended, recent, tl.load(slot) - 1, recent_row, EOS)
