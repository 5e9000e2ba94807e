"""Errors of the kernels against a float64 loop, and their times."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_bench.common import DEVICE, USUAL_TB_S, milliseconds, results, say
from selmem.probe import (
    residual_norm,
    triton_conv,
    triton_cross_entropy,
    triton_norm,
    triton_scan,
    triton_step,
)
from selmem.probe import selective_scan as reference

FLOAT32_LIMIT, BFLOAT16_LIMIT = 1e-5, 1e-2
LENGTHS = (1, 3, 64, 255, 256, 1000)
SCAN_NAMES = ("y", "final", "dx", "ddt", "dA", "dB", "dC", "dD", "dz", "dbias", "dinitial")
CONV_NAMES = ("y", "final", "dx", "dweight", "dbias", "dwindow")
NORM_NAMES = ("normed", "sum", "dmixed", "dresidual", "dweight")


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill what torch.empty returns with NaN, so that an unwritten output cannot pass."""
    empty = torch.empty

    def poison(*shape: Any, **options: Any) -> Tensor:
        values = empty(*shape, **options)
        return values.fill_(float("nan")) if values.is_floating_point() else values

    torch.empty = poison
    try:
        yield
    finally:
        torch.empty = empty


def scan_inputs(
    batch: int, n_tokens: int, channels: int, dtype: torch.dtype, n_states: int = 16, rank: int = 48
) -> tuple[Tensor, ...]:
    """Return fresh inputs, laid out as the layers lay them out: x is contiguous, z, B, C views."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=DEVICE)

    x = normal(batch, n_tokens, channels).to(dtype)
    z = normal(batch, n_tokens, 2 * channels).to(dtype)[..., channels:]
    selection = normal(batch, n_tokens, rank + 2 * n_states).to(dtype)
    _, b_map, c_map = selection.split([rank, n_states, n_states], -1)
    dt = normal(batch, n_tokens, channels).to(dtype)
    a = -torch.exp(
        normal(channels, n_states) * 0.5 + torch.arange(1, n_states + 1).to(DEVICE).log()
    )
    bias = normal(channels) - 4
    return (
        x, dt, a, b_map, c_map, normal(channels), z, bias, normal(batch, channels, n_states),
    )  # fmt: skip


def conv_inputs(
    batch: int, n_tokens: int, channels: int, dtype: torch.dtype, width: int = 4
) -> tuple[Tensor, ...]:
    """Return fresh inputs: x is one half of a wider matrix."""
    x = torch.randn(batch, n_tokens, 2 * channels, device=DEVICE).to(dtype)[..., :channels]
    window = torch.randn(batch, channels, width, device=DEVICE).to(dtype)
    weight, bias = torch.randn(channels, width, device=DEVICE), torch.randn(channels, device=DEVICE)
    return x, weight, bias, window


def outputs_and_gradients(
    operation: Callable[..., tuple[Tensor, Tensor]],
    inputs: tuple[Tensor, ...],
    dy: Tensor,
    dfinal: Tensor,
) -> list[Tensor]:
    """Return both outputs and the gradient of every input."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    y, final = operation(*leaves)
    gradients = torch.autograd.grad([y, final], leaves, [dy.to(y.dtype), dfinal.to(final.dtype)])
    return [y.detach(), final.detach(), *gradients]


def errors(
    fast: Callable[..., Any],
    slow: Callable[..., Any],
    inputs: tuple[Tensor, ...],
    like: Tensor | None = None,
) -> list[float]:
    """Return the error of outputs and gradients, relative to the norm of a float64 loop's.

    `like` has the shape of the second output, which the last input has otherwise.
    """
    dy = torch.randn_like(inputs[0])
    dfinal = torch.randn_like(inputs[-1] if like is None else like)
    wide = tuple(value.double() for value in inputs)
    with poisoned():
        found = outputs_and_gradients(fast, inputs, dy, dfinal)
        again = outputs_and_gradients(fast, inputs, dy, dfinal)
    if not all(torch.equal(a, b) for a, b in zip(found, again, strict=True)):
        raise AssertionError("two runs on the same inputs differ")
    expected = outputs_and_gradients(slow, wide, dy.double(), dfinal.double())
    return [
        float((a.double() - b).norm() / b.norm().clamp(min=1e-30))
        for a, b in zip(found, expected, strict=True)
    ]


def report_errors(
    name: str, names: tuple[str, ...], found: list[float], dtype: torch.dtype
) -> None:
    """Print the worst error and record all; stop the run where one is over its limit."""
    limit = FLOAT32_LIMIT if dtype == torch.float32 else BFLOAT16_LIMIT
    worst = max(zip(found, names, strict=True), key=lambda pair: (pair[0] != pair[0], pair[0]))
    say(f"  {name:<44} worst {worst[0]:.1e} ({worst[1]})")
    results.setdefault("errors", {})[name] = dict(zip(names, found, strict=True))
    if not all(value < limit for value in found):
        raise SystemExit(f"WRONG: {name}: {dict(zip(names, found, strict=True))}")


def correctness(args: argparse.Namespace) -> None:
    """Compare values and all gradients with a float64 loop; every length, odd sizes, every tile."""
    for dtype in (torch.float32, torch.bfloat16):
        short = str(dtype).removeprefix("torch.")
        for n_tokens in (3, 255) if args.quick else LENGTHS:
            inputs = scan_inputs(3, n_tokens, 97, dtype)
            found = errors(triton_scan.selective_scan, reference.selective_scan_ref, inputs)
            report_errors(f"scan {short} B=3 T={n_tokens} D=97", SCAN_NAMES, found, dtype)
            conv = conv_inputs(3, n_tokens, 97, dtype)
            found = errors(triton_scan.causal_conv, reference.causal_conv_ref, conv)
            report_errors(f"conv {short} B=3 T={n_tokens} D=97", CONV_NAMES, found, dtype)
    for n_states in (8, 32, 12):
        inputs = scan_inputs(2, 19, 65, torch.float32, n_states)
        found = errors(triton_scan.selective_scan, reference.selective_scan_ref, inputs)
        report_errors(f"scan float32 T=19 D=65 N={n_states}", SCAN_NAMES, found, torch.float32)
    inputs = scan_inputs(200, 40, 1536, torch.bfloat16)
    found = errors(triton_scan.selective_scan, reference.selective_scan_ref, inputs)
    report_errors("scan bfloat16 B=200 T=40 D=1536", SCAN_NAMES, found, torch.bfloat16)
    norm_correctness(args)
    cross_entropy_correctness()
    step_correctness()


def norm_correctness(args: argparse.Namespace) -> None:
    """Compare the residual connection and its norm, and all gradients, with float64."""
    for dtype in (torch.float32, torch.bfloat16):
        for hidden in (97,) if args.quick else (97, 768, 2560):
            rows = torch.randn(3, 700, hidden, device=DEVICE)
            inputs = (rows.to(dtype), torch.randn_like(rows), torch.randn(hidden, device=DEVICE))
            found = errors(
                lambda *parts, dtype=dtype: triton_norm.add_norm(*parts, 1e-5, dtype),
                lambda *parts: residual_norm.add_norm_ref(*parts, 1e-5, torch.float64),
                inputs,
                rows,
            )
            short = str(dtype).removeprefix("torch.")
            report_errors(f"norm {short} H={hidden}", NORM_NAMES, found, dtype)


def cross_entropy_correctness() -> None:
    """Compare loss and gradient, which overwrites the logits, with float64."""
    for dtype in (torch.float32, torch.bfloat16):
        for vocabulary in (61, 4096, 50280):
            logits = 3 * torch.randn(300, vocabulary, device=DEVICE).to(dtype)
            labels = torch.randint(0, vocabulary, (300,), device=DEVICE)
            labels[::7] = -100
            wide = logits.double().requires_grad_()
            losses = F.cross_entropy(wide, labels, reduction="none")
            (slope,) = torch.autograd.grad(losses.sum(), wide)
            with poisoned():
                found = triton_cross_entropy.cross_entropy_(logits, labels, -100)
            pairs = ((found, losses.detach()), (logits, slope))
            off = [float((a.double() - b).norm() / b.norm()) for a, b in pairs]
            short = str(dtype).removeprefix("torch.")
            name = f"cross-entropy {short} V={vocabulary}"
            report_errors(name, ("loss", "dlogits"), off, dtype)


def step_correctness() -> None:
    """Compare the kernels of one token, which work in place, with a float64 step."""
    x, dt, a, b_map, c_map, skip, z, bias, state = scan_inputs(5, 1, 97, torch.float32)
    parts = (x[:, 0], dt[:, 0], a, b_map[:, 0], c_map[:, 0], skip, z[:, 0], bias)
    wide = state.double()
    y = triton_step.selective_state_update(state, *parts)
    expected = reference.selective_state_update_ref(wide, *(part.double() for part in parts))
    found = [float((y - expected).norm() / expected.norm())]
    found.append(float((state - wide).norm() / wide.norm()))
    report_errors("one token of the scan", ("y", "state"), found, torch.float32)
    x, weight, conv_bias, window = conv_inputs(5, 1, 97, torch.float32)
    wide = window.double()
    y = triton_step.conv_update(window, x[:, 0], weight, conv_bias)
    expected = reference.conv_update_ref(
        wide, x[:, 0].double(), weight.double(), conv_bias.double()
    )
    found = [float((y - expected).norm() / expected.norm())]
    found.append(float((window - wide).norm() / wide.norm()))
    report_errors("one token of the convolution", ("y", "window"), found, torch.float32)


def ceilings(_args: argparse.Namespace) -> None:
    """Measure what the device can do: bytes copied a second, bf16 operations a second."""
    source = torch.randn(2**30, device=DEVICE)
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source))
    results["copy_tb_s"] = 2 * source.numel() * 4 / copy / 1e9
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product = milliseconds(lambda: a @ b)
    results["bf16_tflop_s"] = 2 * 8192**3 / product / 1e9
    say(f"  copy {results['copy_tb_s']:.2f} TB/s, bf16 {results['bf16_tflop_s']:.0f} TFLOP/s")


def nanoseconds(work: Callable[[], Any], batch: int, n_tokens: int) -> float:
    """Return the median time of `work` per token."""
    return milliseconds(work) * 1e6 / (batch * n_tokens)


def scan(_args: argparse.Namespace) -> None:
    """Time the scan's kernels at several shapes of 32,768 tokens, and at one text."""
    table = results["scan_ns"] = {}
    for batch, n_tokens in ((128, 256), (16, 256), (512, 64), (2048, 16), (1, 256)):
        inputs = scan_inputs(batch, n_tokens, 1536, torch.bfloat16)
        x, dt, a, b_map, c_map, skip, z, bias, state = inputs
        bc = triton_scan.pack(b_map, c_map, 8)
        operands = (x, dt, a, bc, skip, z, bias, state)
        saved = triton_scan.scan_forward(*operands, True)[2]
        dy = torch.randn_like(x)
        parts = {
            "pack": lambda b=b_map, c=c_map: triton_scan.pack(b, c, 8),
            "forward": lambda o=operands: triton_scan.scan_forward(*o, False),
            "forward, saving states": lambda o=operands: triton_scan.scan_forward(*o, True),
            "backward": lambda o=operands[:-1], s=saved, d=dy: triton_scan.scan_backward(
                *o, s, d, None
            ),
        }
        for part, work in parts.items():
            name = f"{part}, B={batch} T={n_tokens}"
            table[name] = nanoseconds(work, batch, n_tokens)
            say(f"  {name:<44} {table[name]:7.2f} ns a token and layer")


def conv(_args: argparse.Namespace) -> None:
    """Time the convolution, the norm and the cross-entropy beside the bytes they must move."""
    batch, n_tokens, channels, hidden, vocabulary = 128, 256, 1536, 768, 50280
    rows = batch * n_tokens
    x, weight, bias, window = conv_inputs(batch, n_tokens, channels, torch.bfloat16)
    dy = torch.randn(batch, n_tokens, channels, device=DEVICE, dtype=torch.bfloat16)
    mixed = torch.randn(rows, hidden, device=DEVICE).bfloat16().requires_grad_()
    stream = torch.randn(rows, hidden, device=DEVICE, requires_grad=True)
    scale = torch.ones(hidden, device=DEVICE, requires_grad=True)
    outputs = triton_norm.add_norm(mixed, stream, scale, 1e-5, torch.bfloat16)
    slopes = [torch.randn_like(part) for part in outputs]
    logits = torch.randn(rows // 8, vocabulary, device=DEVICE).bfloat16()
    labels = torch.randint(0, vocabulary, (rows // 8,), device=DEVICE)
    works: dict[str, tuple[Callable[[], Any], float, int]] = {
        "convolution forward": (
            lambda: triton_conv.conv_forward(x, weight, bias, window), 4 * channels, rows,
        ),
        "convolution backward": (
            lambda: triton_conv.conv_backward(x, weight, bias, window, dy), 6 * channels, rows,
        ),
        "norm forward": (
            lambda: triton_norm.add_norm(mixed, stream, scale, 1e-5, torch.bfloat16),
            12 * hidden, rows,
        ),
        "norm backward": (
            lambda: torch.autograd.grad(
                outputs, (mixed, stream, scale), slopes, retain_graph=True
            ),
            16 * hidden, rows,
        ),
        "cross-entropy": (
            lambda: triton_cross_entropy.cross_entropy_(logits, labels, -100),
            4 * vocabulary, rows // 8,
        ),
    }  # fmt: skip
    table = results["elementwise_ns"] = {}
    for name, (work, floor_bytes, count) in works.items():
        table[name] = nanoseconds(work, count, 1)
        floor = floor_bytes / results.get("copy_tb_s", USUAL_TB_S) / 1e3
        say(f"  {name:<24} {table[name]:7.2f} ns a token; bytes alone {floor:.2f}")
