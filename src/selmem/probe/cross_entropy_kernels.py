# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""The kernel of the softmax cross-entropy; triton_cross_entropy.py says how it works."""

from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit
def cross_entropy_kernel(
    logits, labels, losses, IGNORED: constexpr, VOCABULARY: constexpr, BLOCK: constexpr
):
    """Write the loss of one row, and the gradient of its logits over them."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * VOCABULARY
    label = tl.load(labels + row)
    counted = label != IGNORED
    v = tl.arange(0, BLOCK)
    # finite, so that masked values of a row shorter than a block give 0 and not NaN
    top = tl.full([BLOCK], -1e30, tl.float32)
    mass = tl.zeros([BLOCK], tl.float32)
    for start in range(0, VOCABULARY, BLOCK):
        inside = start + v < VOCABULARY
        x = tl.load(logits + start + v, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, x)
        mass *= tl.exp2((top - higher) * 1.4426950408889634)
        mass += tl.exp2((x - higher) * 1.4426950408889634)
        top = higher
    highest = tl.max(top, 0)
    total = tl.sum(mass * tl.exp2((top - highest) * 1.4426950408889634), 0)
    own = tl.load(logits + tl.where(counted, label, 0)).to(tl.float32)
    tl.store(losses + row, tl.where(counted, tl.log(total) - (own - highest), 0.0))
    scale = 1.0 / total
    # every thread must have read the label's logit before any writes its gradient
    tl.debug_barrier()
    for start in range(0, VOCABULARY, BLOCK):
        inside = start + v < VOCABULARY
        x = tl.load(logits + start + v, mask=inside, other=float("-inf")).to(tl.float32)
        slope = tl.exp2((x - highest) * 1.4426950408889634) * scale
        slope = tl.where(start + v == label, slope - 1.0, slope)
        slope = tl.where(counted, slope, 0.0)
        tl.store(logits + start + v, slope.to(logits.dtype.element_ty), mask=inside)
