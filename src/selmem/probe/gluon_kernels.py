# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""The kernel of `gpu_product.py` in Gluon, Triton's language of layouts and copies, for Hopper.

The interpreter does not run Gluon; `product_kernel` says the same in Triton.
"""

from .triton_runtime import jit_gluon

try:
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language import constexpr
    from triton.experimental.gluon.language.nvidia.hopper import (
        mbarrier,
        tma,
        warpgroup_mma,
        warpgroup_mma_init,
        warpgroup_mma_wait,
    )
    from triton.language.extra import cuda
except ImportError:
    constexpr = None


@jit_gluon(do_not_specialize=["rows"])
def gluon_product_kernel(
    values, weight, out, squares, eps, stream, norm_weight, sums, rows,
    INNER: constexpr, OUTER: constexpr, BM: constexpr, BN: constexpr, BK: constexpr,
    STAGES: constexpr, SCALES: constexpr, SP: constexpr, EARLY: constexpr, AHEAD: constexpr,
    num_warps: constexpr,
):  # fmt: skip
    """Do what `product_kernel` does, in one part.

    Blocks of both factors go round STAGES places; those of the weights are on the way before the
    values are waited for. The stream is loaded and stored in the layout of the products.
    """
    STEPS: constexpr = (INNER + BK - 1) // BK
    DEPTH: constexpr = STAGES if STAGES < STEPS else STEPS
    BYTES: constexpr = (BM + BN) * BK * 2
    SUMS: constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, BN, 16])
    STORED: constexpr = gl.BlockedLayout([1, 8], [256 // BN, BN // 8], [num_warps, 1], [1, 0])
    LOADED: constexpr = gl.BlockedLayout([1, 4], [128 // SP, SP // 4], [num_warps, 1], [1, 0])
    first_row = gl.program_id(1) * BM
    first_column = gl.program_id(0) * BN
    left = gl.allocate_shared_memory(values.dtype, [DEPTH, BM, BK], values.layout)
    right = gl.allocate_shared_memory(weight.dtype, [DEPTH, BN, BK], weight.layout)
    arrived = gl.allocate_shared_memory(gl.int64, [DEPTH, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(DEPTH):
        mbarrier.init(arrived.index(i), count=1)
    if EARLY and AHEAD:
        cuda.gdc_launch_dependents()
    for i in gl.static_range(DEPTH):
        mbarrier.expect(arrived.index(i), BYTES)
        block = [first_column, i * BK]
        tma.async_copy_global_to_shared(weight, block, arrived.index(i), right.index(i))
    if EARLY:
        cuda.gdc_wait()
        if not AHEAD:
            cuda.gdc_launch_dependents()
    for i in gl.static_range(DEPTH):
        block = [first_row, i * BK]
        tma.async_copy_global_to_shared(values, block, arrived.index(i), left.index(i))
    row = first_row + gl.arange(0, BM, gl.SliceLayout(1, SUMS))
    column = first_column + gl.arange(0, BN, gl.SliceLayout(0, SUMS))
    real = row < rows
    kept = real[:, None] & (column < OUTER)[None, :]
    row = gl.minimum(row, rows - 1)
    whole = row[:, None] * OUTER + column[None, :]
    if SCALES > 0:
        part = gl.arange(0, SP, gl.SliceLayout(0, LOADED))
        line = gl.minimum(first_row + gl.arange(0, BM, gl.SliceLayout(1, LOADED)), rows - 1)
        place = squares + line[:, None] * SCALES + part[None, :]
        inside = (part < SCALES)[None, :]
        found = gl.load(place, mask=inside, other=0.0, cache_modifier=".cg")
    if stream is not None:
        before = gl.load(stream + whole, mask=kept, other=0.0, cache_modifier=".cg")
        factor = gl.load(norm_weight + column, mask=column < OUTER, other=0.0).to(gl.float32)
    total = warpgroup_mma_init(gl.zeros([BM, BN], gl.float32, SUMS))
    for i in gl.static_range(STEPS):
        mbarrier.wait(arrived.index(i % DEPTH), (i // DEPTH) & 1)
        turned = right.index(i % DEPTH).permute((1, 0))
        total = warpgroup_mma(left.index(i % DEPTH), turned, total, is_async=True)
        if i > 0 and i - 1 + DEPTH < STEPS:
            # the product before this one has read its blocks
            total = warpgroup_mma_wait(num_outstanding=1, deps=[total])
            free = arrived.index((i - 1) % DEPTH)
            k = (i - 1 + DEPTH) * BK
            mbarrier.expect(free, BYTES)
            block = right.index((i - 1) % DEPTH)
            tma.async_copy_global_to_shared(weight, [first_column, k], free, block)
            block = left.index((i - 1) % DEPTH)
            tma.async_copy_global_to_shared(values, [first_row, k], free, block)
    total = warpgroup_mma_wait(num_outstanding=0, deps=[total])
    for i in gl.static_range(DEPTH):
        mbarrier.invalidate(arrived.index(i))
    if SCALES > 0:
        scale = gl.rsqrt(gl.sum(found, 1) / INNER + eps)
        total *= gl.convert_layout(scale, gl.SliceLayout(1, SUMS))[:, None]
    if stream is not None:
        total = before.to(gl.float32) + total.to(out.dtype.element_ty).to(gl.float32)
        rounded = total.to(stream.dtype.element_ty)
        gl.store(stream + whole, rounded, mask=kept)
        total = gl.where(kept, rounded.to(gl.float32), 0.0)
        place = sums + row * gl.num_programs(0) + gl.program_id(0)
        gl.store(place, gl.sum(total * total, 1), mask=real)
        total *= factor[None, :]
    result = gl.convert_layout(total.to(out.dtype.element_ty), STORED)
    row = first_row + gl.arange(0, BM, gl.SliceLayout(1, STORED))
    column = first_column + gl.arange(0, BN, gl.SliceLayout(0, STORED))
    kept = (row < rows)[:, None] & (column < OUTER)[None, :]
    gl.store(out + row[:, None] * OUTER + column[None, :], result, mask=kept)
