"""Compare this package with stock transformers on a CPU, at the shape of mamba-130m.

    python scripts/bench_cpu.py            # two threads, about 4 minutes on two cores, 4 GB

Random weights: speed does not depend on them. Both sides run in turn, so that a busy machine
disturbs both alike, and the medians are compared. Beside them stands the time that the matrix
products alone take, which neither side can avoid. Writes scripts/results/bench_cpu.json.

Expected: encoding at least 2 times, greedy reconstruction at least 1.4 times the tokens per second
of stock transformers (8 texts, 256 tokens, float32).
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import MambaConfig, MambaForCausalLM

import selmem
from selmem.encoder import MambaEncoder, read_state
from selmem.probe import MambaProbe
from selmem.tables import write_text

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SHAPE = {"hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280}
RESULTS = Path(__file__).parent / "results" / "bench_cpu.json"


def main() -> None:
    """Time encoding and greedy reconstruction, print and write the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="texts")
    parser.add_argument("--tokens", type=int, default=256, help="tokens per encoded text")
    parser.add_argument("--steps", type=int, default=32, help="tokens per reconstructed text")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: seconds of computing, for a busy machine (with --threads 1)",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    stock, encoder, probe = build_models()
    ids = torch.randint(1, SHAPE["vocab_size"], (options.batch, options.tokens))
    with torch.no_grad():
        encoding = compare(
            {
                "stock": lambda: stock.backbone(ids, use_cache=True),
                "selmem": lambda: read_state(encoder, ids),
                "matrix products": matrix_products(stock, ids.numel(), output=False),
            },
            options.repeats,
            ids.numel(),
            CLOCKS[options.clock],
        )
        state = read_state(encoder, ids[:, :16])
        decoding = compare(
            {
                "stock": lambda: greedy_steps(stock, state, options.steps),
                "selmem": lambda: probe.reconstruct(state, options.steps),
                "matrix products": matrix_products(stock, options.batch, True, options.steps),
            },
            options.repeats,
            options.batch * options.steps,
            CLOCKS[options.clock],
        )
    result = {
        "task": vars(options) | {"out": options.out.name, "shape": SHAPE, "dtype": "float32"},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "selmem": selmem.__version__,
        },
        "encoding": encoding,
        "reconstruction": decoding,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps(result, indent=2) + "\n")
    report("encoding", encoding)
    report("greedy reconstruction", decoding)


def build_models() -> tuple[MambaForCausalLM, MambaEncoder, MambaProbe]:
    """Return a stock model, and our encoder and probe with the same weights."""
    stock = MambaForCausalLM(MambaConfig(**SHAPE)).eval()
    with torch.no_grad():
        # the token that ends a text gets a logit near 0, so that no row ends early
        stock.backbone.embeddings.weight[0] *= 1e-3
    encoder = MambaEncoder(stock.config).eval()
    encoder.load_state_dict(stock.state_dict())
    return stock, encoder, MambaProbe.from_encoder(encoder).eval()


def greedy_steps(stock: MambaForCausalLM, state: selmem.MambaState, steps: int) -> Tensor:
    """Write `steps` tokens with a stock model, one token at a time from its cache."""
    cache = state.to_cache(stock.config)
    token = torch.zeros(state.batch_size, 1, dtype=torch.long)
    for _ in range(steps):
        output = stock(token, cache_params=cache, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
    return token


def matrix_products(
    model: nn.Module, rows: int, output: bool, repeats: int = 1
) -> Callable[[], None]:
    """Return a function that does only the linear layers of `model` on `rows` vectors."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    layers = [m for m in layers if output or m is not model.lm_head]
    inputs = {m.in_features: torch.randn(rows, m.in_features) for m in layers}

    def run() -> None:
        for _ in range(repeats):
            for layer in layers:
                F.linear(inputs[layer.in_features], layer.weight)

    return run


def compare(
    tasks: dict[str, Callable[[], object]],
    repeats: int,
    n_tokens: int,
    clock: Callable[[], float],
) -> dict[str, dict[str, object]]:
    """Run all tasks in turn, `repeats` times after one warm-up; return seconds and tokens/s."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            start = clock()
            task()
            if repeat > 0:
                seconds[name].append(round(clock() - start, 3))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        name: {
            "seconds": seconds[name],
            "tokens_per_second": round(n_tokens / medians[name], 1),
            "times_stock": round(medians["stock"] / medians[name], 2),
        }
        for name in tasks
    }


def report(title: str, results: dict[str, dict[str, object]]) -> None:
    """Print one line per task."""
    print(title)
    for name, result in results.items():
        print(
            f"  {name:16} {result['tokens_per_second']:>8} tokens/s  "
            f"{result['times_stock']:>5} x stock"
        )


if __name__ == "__main__":
    main()
