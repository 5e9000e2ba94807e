"""How long training takes on one H200, estimated from the committed benchmark.

    python scripts/speed.py SIZE [--tokens N]      SIZE of state-spaces: 130m 370m 790m 1.4b

The parts of a step at the 130M shape (scripts/results/bench_gpu.json) are scaled to another shape:
matrix products by their operations, the cross-entropy by the vocabulary, all else by layers times
width. It is an estimate: no small model is taken to be faster than the bundled one was, with
--cuda-graphs, and runs that share a card get less each.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent / "results" / "bench_gpu.json"
FASTEST = 2.5e6  # tokens a second, from src/selmem/bundled/mamba-tiny/training.json
MEASURED_AT, STEP_TOKENS = "B=128 T=256", 128 * 256
# of each part, how much is the frozen encoder's forward pass; the rest of the parts a quarter
ENCODER_SHARES = {"scan forward": 0.5, "scan backward": 0.0, "cross-entropy": 0.0, "optimizer": 0}


@dataclass(frozen=True)
class Shape:
    """What decides the time of a step."""

    hidden: int
    layers: int
    vocabulary: int

    def products(self) -> float:
        """Return multiplications per token, up to a factor."""
        return 6.25 * self.layers * self.hidden**2 + self.vocabulary * self.hidden

    def scale(self, part: str, measured: "Shape") -> float:
        """Return how much longer a part takes than at the measured shape."""
        if part in {"matrix products", "optimizer"}:
            return self.products() / measured.products()
        if part == "cross-entropy":
            return self.vocabulary / measured.vocabulary
        return self.layers * self.hidden / (measured.layers * measured.hidden)


REFERENCE = Shape(768, 24, 50280)
STATE_SPACES = {
    "130m": REFERENCE,
    "370m": Shape(1024, 48, 50280),
    "790m": Shape(1536, 48, 50280),
    "1.4b": Shape(2048, 48, 50280),
}


def read_bench(path: Path = BENCH) -> dict[str, Any]:
    """Return the benchmark's results."""
    bench: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return bench


def tokens_per_second(shape: Shape, bench: dict[str, Any], *, reads_state: bool = True) -> float:
    """Return tokens a second of training alone on the card.

    Args:
        shape: of the model.
        bench: of `read_bench`.
        reads_state: whether an encoder of the same shape runs forward first; neither for a
            language model nor for a null probe.
    """
    parts = {name: float(row["ms"]) for name, row in bench["train_parts_ms"].items()}
    whole = bench["train_130m"][MEASURED_AT]["ms"]
    spent = 0.0
    for part, milliseconds in parts.items():
        share = 1.0 if reads_state else 1 - ENCODER_SHARES.get(part, 0.25)
        spent += milliseconds * share * shape.scale(part, REFERENCE)
    return min(FASTEST, STEP_TOKENS / (spent * whole / sum(parts.values())) * 1e3)


def measured_tokens_per_second(size: str, bench: dict[str, Any]) -> float | None:
    """Return what was measured for a probe of a checkpoint of state-spaces, None if nothing was."""
    if size == "130m":
        return float(bench["train_130m"][MEASURED_AT]["tokens_s"])
    rows = bench.get("train_sizes", {})
    rates = [row["tokens_s"] for name, row in rows.items() if name.split()[0] == size]
    return float(max(rates)) if rates else None


def cost(size: str, n_tokens: float, bench: dict[str, Any]) -> str:
    """Return what a probe and a null probe of a checkpoint cost, and what that rests on."""
    measured = measured_tokens_per_second(size, bench)
    probe = measured or tokens_per_second(STATE_SPACES[size], bench)
    null = tokens_per_second(STATE_SPACES[size], bench, reads_state=False)
    hours = [n_tokens / rate / 3600 for rate in (probe, null)]
    source = "measured" if measured else "estimated from the 130M shape"
    return (
        f"{size}: {n_tokens / 1e9:.2f}G tokens each for probe and null probe: {sum(hours):.1f} GPU "
        f"hours on one {bench['machine']['gpu']}, of which the probe {hours[0]:.1f} at "
        f"{probe:,.0f} tokens/s ({source}) and the null probe {hours[1]:.1f} at {null:,.0f} "
        "(estimated)"
    )


def main() -> None:
    """Print the cost of one size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=STATE_SPACES)
    parser.add_argument("--tokens", type=float, default=1e9)
    args = parser.parse_args()
    print(cost(args.size, args.tokens, read_bench()))


if __name__ == "__main__":
    main()
