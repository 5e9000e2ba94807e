"""Check the Triton kernels against a float64 loop on this GPU, then time them and what uses them.

    python scripts/bench_gpu.py                                # everything
    python scripts/bench_gpu.py --sections correctness,scan    # a part

Expected time: a few minutes for correctness, ceilings, scan and conv, most of it compiling.
Writes scripts/results/bench_gpu.json and prints a table. Times are medians of CUDA events.
"""

import argparse
import contextlib
import json
import platform
import re
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selmem.probe import selective_scan as reference
from selmem.probe import triton_conv, triton_scan, triton_step

RESULTS = Path(__file__).parent / "results" / "bench_gpu.json"
FLOAT32_LIMIT, BFLOAT16_LIMIT = 1e-5, 1e-2
LENGTHS = (1, 3, 64, 255, 256, 1000)
SCAN_NAMES = ("y", "final", "dx", "ddt", "dA", "dB", "dC", "dD", "dz", "dbias", "dinitial")
CONV_NAMES = ("y", "final", "dx", "dweight", "dbias", "dwindow")
Tile = triton_scan.BackwardTile
ConvTile = triton_conv.ConvTile
# the first is the tile in use
SCAN_TILES = (
    Tile(4, 8, 4, 4, 8, None),
    Tile(4, 8, 4, 8, 8, None),
    Tile(4, 8, 4, 4, 8, 168),
    Tile(4, 8, 4, 8, 8, 168),
    Tile(4, 8, 2, 8, 8, 168),
    Tile(4, 8, 2, 8, 8, 128),
    Tile(4, 8, 4, 4, 4, None),
    Tile(4, 8, 4, 4, 4, 168),
)
FORWARD_REGISTERS = (None, 96, 80)
CONV_FORWARD = (ConvTile(256, 64, 8), ConvTile(256, 32, 8), ConvTile(128, 64, 8))
CONV_BACKWARD = (ConvTile(128, 64, 8), ConvTile(128, 64, 4), ConvTile(256, 64, 8))
SIZES = {"130m": (768, 24), "370m": (1024, 48), "790m": (1536, 48), "1.4b": (2048, 48)}
VOCABULARY = 50280
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

results: dict[str, Any] = {}


def say(*words: Any) -> None:
    """Print at once: a run that is cut short still shows what it measured."""
    print(*words, flush=True)


def milliseconds(work: Callable[[], Any], budget: float = 0.3, warmups: int = 2) -> float:
    """Return the median time of `work` over about `budget` seconds of runs, at least five."""
    for _ in range(warmups):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    runs = max(5, min(50, int(budget / (time.perf_counter() - start))))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
    for before, after in events:
        before.record()
        work()
        after.record()
    torch.cuda.synchronize()
    return statistics.median(before.elapsed_time(after) for before, after in events)


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
    fast: Callable[..., Any], slow: Callable[..., Any], inputs: tuple[Tensor, ...]
) -> list[float]:
    """Return the error of outputs and gradients, relative to the norm of a float64 loop's."""
    dy, dfinal = torch.randn_like(inputs[0]), torch.randn_like(inputs[-1])
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
    step_correctness()


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


def scan(args: argparse.Namespace) -> None:
    """Time the scan's kernels: every tile at one shape, the one in use at other shapes."""
    batch, n_tokens, channels = 128, 256, 1536
    x, dt, a, b_map, c_map, skip, z, bias, state = scan_inputs(
        batch, n_tokens, channels, torch.bfloat16
    )
    dy = torch.randn_like(x)
    table = results["scan_ns"] = {}

    def clock(name: str, work: Callable[[], Any]) -> None:
        table[name] = nanoseconds(work, batch, n_tokens)
        say(f"  {name:<60} {table[name]:7.2f} ns a token and layer")

    clock("pack", lambda: triton_scan.pack(b_map, c_map, 8))
    bc = triton_scan.pack(b_map, c_map, 8)
    operands = (x, dt, a, bc, skip, z, bias, state)
    for registers in FORWARD_REGISTERS:
        triton_scan.FORWARD_REGISTERS = registers
        clock(
            f"forward, nothing saved, registers {registers}",
            lambda: triton_scan.scan_forward(*operands, False),
        )
        for every in (4, 8):
            clock(
                f"forward, saved every {every}, registers {registers}",
                lambda every=every: triton_scan.scan_forward(*operands, True, every),
            )
    triton_scan.FORWARD_REGISTERS = None
    saved = {every: triton_scan.scan_forward(*operands, True, every)[2] for every in (4, 8)}
    expected = None
    for tile in SCAN_TILES[: 2 if args.quick else None]:
        start = time.perf_counter()

        def backward(tile: Any = tile) -> Any:
            return triton_scan.scan_backward(*operands, saved[tile.save], dy, None, tile=tile)

        found = backward()
        torch.cuda.synchronize()
        compile_seconds = time.perf_counter() - start
        flat = [found[0], found[1], found[2], *found[3], *found[4:7]]
        expected = expected or [value.double() for value in flat]
        off = max(
            float((a.double() - b).norm() / b.norm()) for a, b in zip(flat, expected, strict=True)
        )
        if not off < BFLOAT16_LIMIT:
            raise SystemExit(f"WRONG: tile {tile} is off by {off} from the first")
        clock(f"backward {tuple(tile)}", backward)
        say(f"      off by {off:.1e} from the first tile; compiled in {compile_seconds:.0f} s")
    partial = torch.randn(batch, 48, n_tokens, 32, device=DEVICE)
    clock("of which the sum of dB, dC over blocks", lambda: partial.sum(1))
    for batch, n_tokens in ((16, 256), (512, 64), (2048, 16), (1, 256)):
        inputs = scan_inputs(batch, n_tokens, channels, torch.bfloat16)
        x, dt, a, b_map, c_map, skip, z, bias, state = inputs
        operands = (x, dt, a, triton_scan.pack(b_map, c_map, 8), skip, z, bias, state)
        kept = triton_scan.scan_forward(*operands, True)[2]
        dy = torch.randn_like(x)
        shape = f"B={batch} T={n_tokens}"
        clock(
            f"forward, {shape}", lambda operands=operands: triton_scan.scan_forward(*operands, True)
        )
        clock(
            f"backward, {shape}",
            lambda operands=operands, kept=kept, dy=dy: triton_scan.scan_backward(
                *operands, kept, dy, None
            ),
        )


def conv(_args: argparse.Namespace) -> None:
    """Time the convolution's kernels at every tile."""
    batch, n_tokens, channels = 128, 256, 1536
    x, weight, bias, window = conv_inputs(batch, n_tokens, channels, torch.bfloat16)
    dy = torch.randn(batch, n_tokens, channels, device=DEVICE, dtype=torch.bfloat16)
    table = results["conv_ns"] = {}

    def clock(name: str, work: Callable[[], Any], floor_bytes: int) -> None:
        table[name] = nanoseconds(work, batch, n_tokens)
        floor = floor_bytes / results.get("copy_tb_s", 4.27) / 1e3
        say(f"  {name:<40} {table[name]:7.2f} ns a token and layer; bytes alone {floor:.2f}")

    for tile in CONV_FORWARD:
        clock(
            f"forward {tuple(tile)}",
            lambda tile=tile: triton_conv.conv_forward(x, weight, bias, window, tile),
            4 * channels,
        )
    for tile in CONV_BACKWARD:
        clock(
            f"backward {tuple(tile)}",
            lambda tile=tile: triton_conv.conv_backward(x, weight, bias, window, dy, tile=tile),
            6 * channels,
        )


def models(size: str) -> tuple[Any, Any]:
    """Return a frozen bf16 encoder of random weights and a float32 probe of the same shape."""
    from transformers import MambaConfig

    from selmem.encoder import FULL_PRECISION, MambaEncoder
    from selmem.probe import MambaProbe

    hidden, layers = SIZES[size]
    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, state_size=16
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        encoder = MambaEncoder(config)
        probe = MambaProbe.from_encoder(encoder)
    for name, value in encoder.named_parameters():
        if not name.endswith(FULL_PRECISION):
            value.data = value.data.bfloat16()
    encoder.eval().requires_grad_(False)
    return encoder, probe.to(DEVICE).train()


def training_step(encoder: Any, probe: Any) -> Callable[[Tensor], Tensor]:
    """Return one whole step: frozen encoder, probe forward and backward, clip, AdamW."""
    from selmem.encoder import read_state

    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-4, fused=True)

    def step(text: Tensor) -> Tensor:
        with torch.no_grad():
            state = read_state(encoder, text)
        input_ids, labels = probe.teacher_forcing(text)
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = probe(input_ids, state=state, labels=labels).loss
        loss.backward()
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
    text = torch.randint(1, VOCABULARY, (128, 256), device=DEVICE)
    profile(step, text)


def clock_step(
    name: str, step: Callable[[Tensor], Any], batch: int, n_tokens: int, table: dict[str, Any]
) -> None:
    """Record tokens a second and peak memory of a step."""
    text = torch.randint(1, VOCABULARY, (batch, n_tokens), device=DEVICE)
    step(text)
    torch.cuda.reset_peak_memory_stats()
    spent = milliseconds(lambda: step(text), budget=2.0)
    peak = torch.cuda.max_memory_allocated()
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


PARTS = (
    ("scan forward", r"scan_forward_kernel|pack_kernel"),
    ("scan backward", r"scan_backward_kernel"),
    ("convolution", r"conv_(forward|backward)_kernel"),
    ("matrix products", r"gemm|nvjet|cutlass|splitK|xmma"),
    ("optimizer", r"multi_tensor|FusedAdam"),
    ("norms", r"rms|layer_norm|RMSNorm|LayerNorm"),
    ("reductions", r"reduce_kernel"),
    ("copies and casts", r"copy|CatArray|Memcpy"),
    ("softmax and exp", r"exp|softmax|logsumexp|scatter|gather"),
)


def profile(step: Callable[[Tensor], Any], text: Tensor) -> None:
    """Print the share of each part of the step, and the kernels that take most."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    repeats = 3
    step(text)
    torch.cuda.synchronize()
    with torch_profile(activities=[ProfilerActivity.CUDA]) as record:
        for _ in range(repeats):
            step(text)
        torch.cuda.synchronize()
    spent = {
        row.key: (row.self_device_time_total / 1e3 / repeats, row.count // repeats)
        for row in record.key_averages()
        if row.self_device_time_total > 0
    }
    total = sum(ms for ms, _ in spent.values())
    shares: dict[str, float] = {}
    for key, (ms, _) in spent.items():
        part = next((name for name, pattern in PARTS if re.search(pattern, key)), "other")
        shares[part] = shares.get(part, 0.0) + ms
    results["train_parts_ms"] = shares
    say(f"  kernels of one step: {total:.1f} ms")
    for part, ms in sorted(shares.items(), key=lambda item: -item[1]):
        say(f"    {part:<20} {ms:7.2f} ms {100 * ms / total:5.1f} %")
    for key, (ms, count) in sorted(spent.items(), key=lambda item: -item[1][0])[:28]:
        say(f"    {ms:7.2f} ms {count:5d} x {key[:120]}")


def sizes(_args: argparse.Namespace) -> None:
    """Time the training step of the larger shapes."""
    for size, batch in (("370m", 64), ("790m", 32), ("1.4b", 16)):
        encoder, probe = models(size)
        clock_step(
            f"{size} B={batch}",
            training_step(encoder, probe),
            batch,
            256,
            results.setdefault("train_sizes", {}),
        )
        del encoder, probe
        torch.cuda.empty_cache()


def encode(_args: argparse.Namespace) -> None:
    """Time the encoder alone."""
    from selmem.encoder import read_state

    encoder, _ = models("130m")
    table = results["encode"] = {}
    for batch, n_tokens in ((2048, 16), (512, 64), (128, 256), (32, 256)):
        text = torch.randint(1, VOCABULARY, (batch, n_tokens), device=DEVICE)
        spent = milliseconds(lambda text=text: read_state(encoder, text), budget=1.0)
        table[f"B={batch} T={n_tokens}"] = batch * n_tokens / spent * 1e3
        say(f"  B={batch} T={n_tokens}: {batch * n_tokens / spent * 1e3:.0f} tokens/s")


def reconstruct(args: argparse.Namespace) -> None:
    """Time greedy reconstruction; no row ends early, since random weights rarely write EOS."""
    from selmem.encoder import read_state

    encoder, probe = models("130m")
    probe = probe.bfloat16().eval()
    table = results["reconstruct"] = {}
    for batch, n_tokens in ((256, 256), (1, 256)):
        text = torch.randint(1, VOCABULARY, (batch, 16), device=DEVICE)
        state = read_state(encoder, text)
        length = 32 if args.quick else n_tokens
        spent = milliseconds(lambda s=state, n=length: probe.reconstruct(s, n), 1.0, warmups=1)
        table[f"B={batch}"] = {"ms_step": spent / length, "tokens_s": batch * length / spent * 1e3}
        say(
            f"  B={batch}: {spent / length:.3f} ms a step, {batch * length / spent * 1e3:.0f} tok/s"
        )


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "correctness": correctness,
    "ceilings": ceilings,
    "scan": scan,
    "conv": conv,
    "train": train,
    "sizes": sizes,
    "encode": encode,
    "reconstruct": reconstruct,
}


def main() -> None:
    """Run the sections asked for; a section that fails is reported and the next one runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated")
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    import transformers
    import triton

    results["machine"] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    say(results["machine"])
    for name in args.sections.split(","):
        say(f"== {name}")
        start = time.perf_counter()
        try:
            SECTIONS[name](args)
        except Exception:
            traceback.print_exc()
            results.setdefault("failed", {})[name] = traceback.format_exc()
        torch.cuda.empty_cache()
        say(f"   ({time.perf_counter() - start:.0f} s)")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
