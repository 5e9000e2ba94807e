"""The training step: whole, as a CUDA graph, part by part beside its floors, and larger models."""

import argparse
import random
import re
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpu_bench.common import (
    DEVICE,
    SIZES,
    VOCABULARY,
    milliseconds,
    milliseconds_of_bytes,
    milliseconds_of_products,
    models,
    results,
    say,
    tokens,
)

TOKENS_PER_BATCH = 32768
# lengths of a mixed schedule and how often each comes
MIXED = {4: 1.0, 8: 1.0, 16: 1.5, 32: 2.0, 64: 3.0, 128: 4.0, 256: 5.0}
MIXED_STEPS = 40
# name, kernels by regular expression; the first that fits counts
PARTS = (
    ("scan forward", r"scan_forward_kernel|pack_kernel"),
    ("scan backward", r"scan_backward_kernel"),
    ("convolution", r"conv_(forward|backward)_kernel"),
    ("norms", r"add_norm|rms|layer_norm|RMSNorm|LayerNorm"),
    ("cross-entropy", r"cross_entropy"),
    ("matrix products", r"gemm|nvjet|cutlass|splitK|xmma"),
    ("optimizer", r"multi_tensor|FusedAdam"),
    ("reductions", r"reduce_kernel"),
    ("copies and casts", r"copy|CatArray|Memcpy"),
)


def training_step(encoder: Any, probe: Any, *, graph: bool = False) -> Callable[[Tensor], Tensor]:
    """Return one whole step: frozen encoder, probe forward and backward, clip, AdamW."""
    from selmem.runs.cuda_graphs import GraphedBackward
    from selmem.runs.objectives import Autocast, Reconstruction

    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-4, fused=True)
    objective = Reconstruction(encoder, Autocast(torch.device(DEVICE), bf16=True))
    graphed = None
    if graph:
        graphed = GraphedBackward(lambda text: objective.loss(probe, text), probe)

    def step(text: Tensor) -> Tensor:
        if graphed is None:
            loss = objective.loss(probe, text)
            loss.backward()
        else:
            loss = graphed(text, 1.0)
        torch.nn.utils.clip_grad_norm_(probe.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def train(args: argparse.Namespace) -> None:
    """Time the training step at the 130M shape, then show where its time goes."""
    encoder, probe = models("130m")
    step = training_step(encoder, probe)
    shapes = [(128, 256), (16, 256)]
    if not args.quick:
        shapes += [(32, 256), (64, 256), (512, 64), (2048, 16)]
    table = results["train_130m"] = {}
    for batch, n_tokens in shapes:
        clock_step(f"B={batch} T={n_tokens}", step, batch, n_tokens, table)
    profile(step, 128, 256)


def graphs(args: argparse.Namespace) -> None:
    """Time the step as a CUDA graph per length, and a schedule that mixes lengths."""
    encoder, probe = models("130m")
    step = training_step(encoder, probe, graph=True)
    table = results["train_130m_graph"] = {}
    for batch in (16, 32):
        clock_step(f"B={batch} T=256", step, batch, 256, table, graph=True)
    lengths = (16, 256) if args.quick else tuple(MIXED)
    for n_tokens in lengths:
        batch = TOKENS_PER_BATCH // n_tokens
        clock_step(f"B={batch} T={n_tokens}", step, batch, n_tokens, table, graph=True)
    weights = [MIXED[n_tokens] for n_tokens in lengths]
    drawn = random.Random(0).choices(lengths, weights, k=MIXED_STEPS)
    texts = {n: tokens(TOKENS_PER_BATCH // n, n) for n in lengths}
    torch.cuda.synchronize()
    start = time.perf_counter()
    for n_tokens in drawn:
        step(texts[n_tokens])
    torch.cuda.synchronize()
    rate = MIXED_STEPS * TOKENS_PER_BATCH / (time.perf_counter() - start)
    table["mixed"] = {"tokens_s": rate, "lengths": list(lengths), "weights": weights}
    say(f"  mixed lengths    {rate:.0f} tokens/s")


def clock_step(
    name: str,
    step: Callable[[Tensor], Any],
    batch: int,
    n_tokens: int,
    table: dict[str, Any],
    *,
    graph: bool = False,
) -> None:
    """Record tokens a second and peak memory of a step; of graphs, all that they keep."""
    text = tokens(batch, n_tokens)
    step(text)
    torch.cuda.reset_peak_memory_stats()
    spent = milliseconds(lambda: step(text), budget=2.0)
    peak = torch.cuda.max_memory_reserved() if graph else torch.cuda.max_memory_allocated()
    table[name] = {
        "ms": spent,
        "tokens_s": batch * n_tokens / spent * 1e3,
        "peak_gb": peak / 1e9,
        "peak_mb_token": peak / 1e6 / (batch * n_tokens),
    }
    say(
        f"  {name:<16} {spent:8.1f} ms {table[name]['tokens_s']:10.0f} tokens/s  peak "
        f"{peak / 1e9:.1f} GB, {table[name]['peak_mb_token']:.2f} MB a token"
    )


def profile(step: Callable[[Tensor], Any], batch: int, n_tokens: int) -> None:
    """Print each part of the step beside its floor, and the kernels that take most."""
    spent = kernel_times(step, tokens(batch, n_tokens))
    total = sum(ms for ms, _ in spent.values())
    shares: dict[str, float] = {}
    for key, (ms, _) in spent.items():
        part = next((name for name, pattern in PARTS if re.search(pattern, key)), "other")
        shares[part] = shares.get(part, 0.0) + ms
    floors = step_floors("130m", batch, n_tokens)
    results["train_parts_ms"] = {
        part: {"ms": ms, "floor_ms": floors.get(part)} for part, ms in shares.items()
    }
    say(f"  kernels of one step: {total:.1f} ms; floors {sum(floors.values()):.1f} ms")
    for part, ms in sorted(shares.items(), key=lambda item: -item[1]):
        floor = f"floor {floors[part]:6.2f} ms" if part in floors else ""
        say(f"    {part:<20} {ms:7.2f} ms {100 * ms / total:5.1f} %  {floor}")
    for key, (ms, count) in sorted(spent.items(), key=lambda item: -item[1][0])[:28]:
        say(f"    {ms:7.2f} ms {count:5d} x {key[:120]}")


def kernel_times(step: Callable[[Tensor], Any], text: Tensor) -> dict[str, tuple[float, int]]:
    """Return milliseconds and launches of each kernel in one step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    repeats = 3
    step(text)
    torch.cuda.synchronize()
    with torch_profile(activities=[ProfilerActivity.CUDA]) as record:
        for _ in range(repeats):
            step(text)
        torch.cuda.synchronize()
    return {
        row.key: (row.self_device_time_total / 1e3 / repeats, row.count // repeats)
        for row in record.key_averages()
        if row.self_device_time_total > 0
    }


def step_floors(size: str, batch: int, n_tokens: int) -> dict[str, float]:
    """Return the least milliseconds of each part, by the bytes it must move or its operations.

    Activations are in bfloat16, the residual stream in float32, and every 4th state is kept in
    bfloat16. The scan takes an exponential for each state and step, in each pass, and those of
    softplus and SiLU, at 16 a clock of 1.98 GHz and multiprocessor.
    """
    hidden, layers = SIZES[size]
    channels, states, rank = 2 * hidden, 16, hidden // 16
    read, written = batch * n_tokens * layers, batch * (n_tokens + 1) * layers
    products = 2 * (3 * hidden * channels + channels * (rank + 2 * states) + rank * channels)
    head = 2 * VOCABULARY * hidden * (written // layers)
    parameters = VOCABULARY * hidden + layers * products // 2
    exponentials = 132 * 16 * 1.98e6  # a millisecond
    saved = channels * states * 2 / 4
    return {
        "matrix products": milliseconds_of_products((read + 3 * written) * products + 3 * head),
        "scan forward": max(
            milliseconds_of_bytes((read + written) * 8 * channels + written * saved),
            (read + written) * channels * (states + 3) / exponentials,
        ),
        "scan backward": max(
            milliseconds_of_bytes(written * (14 * channels + saved)),
            written * channels * (states + 5) / exponentials,
        ),
        "convolution": milliseconds_of_bytes((read + 2.5 * written) * 4 * channels),
        "norms": milliseconds_of_bytes((12 * read + 28 * written) * hidden),
        "cross-entropy": milliseconds_of_bytes(written / layers * 4 * VOCABULARY),
        "optimizer": milliseconds_of_bytes(28 * parameters),
        "copies and casts": milliseconds_of_bytes(12 * parameters),
    }


def sizes(args: argparse.Namespace) -> None:
    """Time the training step of the larger shapes, at the largest batch that fits."""
    table = results["train_sizes"] = {}
    for size in list(SIZES)[1:2] if args.quick else list(SIZES)[1:]:
        encoder, probe = models(size)
        for batch in (64, 32, 16, 8):
            step = training_step(encoder, probe)
            try:
                clock_step(f"{size} B={batch}", step, batch, 256, table)
                break
            except torch.OutOfMemoryError:
                say(f"  {size} B={batch}: out of memory")
                probe.zero_grad(set_to_none=True)
            step = None
            torch.cuda.empty_cache()
        encoder = probe = step = None
        torch.cuda.empty_cache()
