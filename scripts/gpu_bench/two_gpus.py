"""Training on two GPUs beside one: how much faster, and whether it is the same training.

The same batches are computed by one GPU at once, by one GPU in two parts, and by two GPUs, each one
of those two parts. What the first two differ by is the noise of sums in another order; two GPUs
should be no further from one. Settings of the library that sums the gradients are timed besides.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from gpu_bench.common import SIZES, VOCABULARY, results, say
from gpu_bench.peers import python

BATCH = 65_536  # tokens
SETTINGS: dict[str, dict[str, Any]] = {
    "gradients in the buckets": {"gradient_as_bucket_view": True},
    "buckets of 100 MB": {"gradient_as_bucket_view": True, "bucket_cap_mb": 100},
    "sums in bfloat16": {"gradient_as_bucket_view": True, "comm_hook": "bf16"},
}


def two_gpus(args: argparse.Namespace) -> None:
    """Train with `accelerate launch` on one and on two GPUs, the same batches."""
    if torch.cuda.device_count() < 2:
        say("  skipped: there are not two GPUs")
        return
    steps, short = (40, 20) if args.quick else (60, 24)
    whole = {"name": "batch", "steps": steps, "tokens_per_batch": BATCH}
    double = {"name": "double batch", "steps": short, "tokens_per_batch": 2 * BATCH}
    pair = [whole, double] + [
        {"name": name, "steps": short, "tokens_per_batch": BATCH, "ddp": ddp}
        for name, ddp in SETTINGS.items()
    ]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        prepare(Path(folder))
        # the two GPUs are as busy as they are together
        jobs = [[whole, {**double, "parts": 2}], [{**whole, "parts": 2}]]
        alone = list(pool.map(lambda gpu: launch([gpu], Path(folder), jobs[gpu]), range(2)))
        both = launch([0, 1], Path(folder), pair)
    results["two_gpus"] = compare(alone, both)


def compare(alone: list[dict[str, Any]], both: dict[str, Any]) -> dict[str, Any]:
    """Print and return rates, ratios, losses and their largest distances.

    Args:
        alone: what each GPU found by itself: a batch at once, and in two parts.
        both: what they found together.
    """
    one, halves, two = alone[0]["batch"], alone[1]["batch"], both["batch"]
    gaps = {
        "1 at once, 1 in parts": gap(one, halves),
        "1 at once, 2": gap(one, two),
        "1 in parts, 2": gap(halves, two),
    }
    double = {"1": alone[0]["double batch"], "2": both["double batch"]}
    ratio = {
        "batch": two["tokens_s"] / one["tokens_s"],
        "double batch": double["2"]["tokens_s"] / double["1"]["tokens_s"],
    }
    settings = {name: both[name]["tokens_s"] / one["tokens_s"] for name in SETTINGS}
    for name, run in (("1", one), ("1, two parts", halves), ("2", two)):
        losses = " ".join(f"{loss:.4f}" for loss in run["losses"])
        say(f"  {name:<12} {run['tokens_s']:9.0f} tokens/s; losses {losses}")
    say(f"  2 GPUs, times one: {ratio}; with other settings: {settings}")
    say(f"  largest distances of the losses: {gaps}")
    say(f"  summing the gradient of the embeddings: {both.get('reduction_ms')} ms")
    return {
        "1": one,
        "1 in two parts": halves,
        "2": two,
        "double batch": double,
        "times_one": ratio,
        "times_one_with": settings,
        "largest_gaps_of_losses": gaps,
        "reduction_ms": both.get("reduction_ms"),
    }


def gap(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Return the largest distance of two runs' losses."""
    return max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True))


def prepare(folder: Path) -> None:
    """Write an encoder of random weights and a store of texts of random words."""
    from transformers import MambaConfig

    from selmem import bundled_path
    from selmem.corpus_building import build_store
    from selmem.encoder import MambaEncoder
    from selmem.tokenization import load_tokenizer

    hidden, layers = SIZES["130m"]
    tokenizer = load_tokenizer(bundled_path("mamba-tiny"))
    shape = {"vocab_size": VOCABULARY, "hidden_size": hidden, "num_hidden_layers": layers}
    torch.manual_seed(0)
    encoder = MambaEncoder(MambaConfig(**shape, eos_token_id=tokenizer.eos_token_id))
    encoder.save_pretrained(folder / "encoder")
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 7))) for _ in range(5000)]
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(2000):
            file.write(json.dumps({"text": " ".join(draw.choices(words, k=700))}) + "\n")
    build_store([str(folder / "text.jsonl")], tokenizer, folder / "store")


def launch(gpus: list[int], folder: Path, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what `scaling.py` finds on these GPUs."""
    command = ["-m", "accelerate.commands.launch", "--num_processes", len(gpus)]
    command += ["--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"]
    if len(gpus) > 1:
        command.append("--multi_gpu")
    out = folder / f"out{''.join(map(str, gpus))}"
    command += ["--module", "gpu_bench.scaling", folder, out, json.dumps(jobs)]
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(names[gpu] for gpu in gpus)}
    try:
        return python(command, [], visible)
    finally:
        shutil.rmtree(out, ignore_errors=True)
