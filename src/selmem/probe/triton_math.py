# SPDX-License-Identifier: Apache-2.0
# mypy: ignore-errors
"""Functions that the Triton kernels share; values are float32."""

from .triton_runtime import jit

try:
    import triton.language as tl
    from triton.language import constexpr
except ImportError:
    constexpr = None


@jit
def softplus(v):
    """Return log(1 + exp(v)) to 2e-7 of itself, by a minimax polynomial of log(1 + e) / e."""
    e = tl.exp2(tl.abs(v) * -1.4426950408889634)
    p = e * 0.00595651613548398 - 0.03264576196670532
    p = p * e + 0.0837620198726654
    p = p * e - 0.14171044528484344
    p = p * e + 0.19363385438919067
    p = p * e - 0.24913287162780762
    p = p * e + 0.3332829475402832
    p = p * e - 0.499999076128006
    p = p * e + 1.0
    return tl.maximum(v, 0.0) + p * e


@jit
def sigmoid(v):
    """Return 1 / (1 + exp(-v)) as a squared reciprocal root, cheaper than a division."""
    r = tl.rsqrt(1.0 + tl.exp2(v * -1.4426950408889634))
    return r * r


@jit
def multiply(a, b, INTERPRETED: constexpr):
    """Return a @ b in float32."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b)


@jit
def prefetch(start, length, program, programs):
    """Bring this program's share of `length` bytes to the L2 cache, on Hopper and later.

    Address and length are multiples of 16 bytes.
    """
    THREADS: tl.constexpr = tl.extra.cuda.num_threads()
    parts = programs * THREADS
    part = (length + parts * 16 - 1) // (parts * 16) * 16
    offset = (program * THREADS + tl.arange(0, THREADS)) * part
    address = start.to(tl.int64) + tl.minimum(offset, length - part)
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [address, tl.zeros([THREADS], tl.int32) + part],
        tl.int32,
        False,
        1,
    )


@jit
def take_turn(EARLY: constexpr, AHEAD: constexpr = False):
    """Wait for the kernel before, then let the next one start; with AHEAD, let it start first.

    What the next one loads before it waits may then not be written by the kernel before either.
    Without EARLY, no kernel starts before the one before has ended.
    """
    if EARLY:
        if AHEAD:
            tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
        if not AHEAD:
            tl.extra.cuda.gdc_launch_dependents()
