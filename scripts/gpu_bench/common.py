"""What all parts of bench_gpu.py share: timing, printing, the table of results, the models."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

SIZES = {"130m": (768, 24), "370m": (1024, 48), "790m": (1536, 48), "1.4b": (2048, 48)}
VOCABULARY = 50280
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# copied and multiplied a second on an H200, until `ceilings` has measured this GPU
USUAL_TB_S, USUAL_TFLOP_S = 4.27, 790.0

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


def tokens(batch: int, n_tokens: int) -> torch.Tensor:
    """Return random texts, int64, (batch, n_tokens)."""
    return torch.randint(1, VOCABULARY, (batch, n_tokens), device=DEVICE)


def milliseconds_of_bytes(count: float) -> float:
    """Return how long reading and writing so many bytes in all takes at least."""
    return count / results.get("copy_tb_s", USUAL_TB_S) / 1e9


def milliseconds_of_products(operations: float) -> float:
    """Return how long so many operations of bf16 matrix products take at least."""
    return operations / results.get("bf16_tflop_s", USUAL_TFLOP_S) / 1e9


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
