# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""The kernel of `gpu_product.py`; EARLY and INTERPRETED are as in `gpu_step_kernels.py`."""

from .triton_math import multiply, take_turn
from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit(do_not_specialize=["rows"])
def product_kernel(
    values, weight, out, rows,
    INNER: constexpr, OUTER: constexpr, BM: constexpr, BN: constexpr, BK: constexpr,
    SPLIT: constexpr, EARLY: constexpr, INTERPRETED: constexpr,
):  # fmt: skip
    """Write the product of `values` (B, INNER) and `weight` (OUTER, INNER), in SPLIT parts of it.

    Both factors are descriptors, of blocks (BM, BK) and (BN, BK): what lies outside of them is 0.
    `out` is (B, SPLIT, OUTER), contiguous; a part sums its share of the factors.
    """
    LENGTH: tl.constexpr = (INNER + SPLIT * BK - 1) // (SPLIT * BK) * BK
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    begin = tl.program_id(2) * LENGTH
    kept = (row < rows)[:, None] & (column < OUTER)[None, :]
    row = tl.minimum(row, rows - 1)
    take_turn(EARLY)
    total = tl.zeros([BM, BN], tl.float32)
    for start in range(begin, begin + LENGTH, BK):
        left = values.load([tl.program_id(1) * BM, start])
        right = weight.load([tl.program_id(0) * BN, start])
        total += multiply(left, tl.trans(right), INTERPRETED)
    place = out + row[:, None] * (SPLIT * OUTER) + tl.program_id(2) * OUTER + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=kept)
