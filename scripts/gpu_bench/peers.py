"""Other code on the same GPU in the same call: the paper's, transformers with mamba-ssm, two GPUs.

Each runs in a process of its own, with its own packages, and prints one line of JSON at its end.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from gpu_bench.common import SIZES, VOCABULARY, results, say

SCRIPTS = Path(__file__).parents[1]


def paper(args: argparse.Namespace) -> None:
    """Time the paper's own code from a checkout of it."""
    if args.paper_code is None:
        say("  skipped: no --paper-code")
        return
    paths = [args.paper_code / "src", *([args.paper_packages] if args.paper_packages else [])]
    found = results["paper"] = python(["-m", "gpu_bench.paper_code"], paths)
    ours, graph = results.get("train_130m", {}), results.get("train_130m_graph", {})
    same = graph.get("B=16 T=256") or ours.get("B=16 T=256")
    if same:
        ratio = found["train_ms"] / same["ms"]
        say(f"  training B=16 T=256: {ratio:.0f} times the paper's rate at the same batch")
    largest = ours.get("B=128 T=256")
    if largest:
        say(
            f"  training, ours at B=128: {largest['tokens_s'] / found['train_tokens_s']:.0f} times "
            f"its rate, {largest['peak_mb_token'] / found['train_peak_mb_token']:.2f} of its memory"
        )
    for batch, entry in results.get("reconstruct", {}).items():
        if f"reconstruct_tokens_s_{batch}" in found:
            ratio = entry["tokens_s"] / found[f"reconstruct_tokens_s_{batch}"]
            say(f"  reconstruction {batch}: {ratio:.0f} times its rate")


def stock(args: argparse.Namespace) -> None:
    """Time transformers' encoder: alone, and with mamba-ssm and causal-conv1d from a folder."""
    table = results["encode_stock"] = {}
    for name, path in (("transformers", None), ("transformers + mamba-ssm", args.mamba_ssm)):
        if name != "transformers" and path is None:
            say("  mamba-ssm skipped: no --mamba-ssm")
            continue
        table[name] = python(["-m", "gpu_bench.stock_encoder"], [path] if path else [])
        for shape, rate in table[name]["tokens_s"].items():
            ours = results.get("encode", {}).get(shape)
            against = f", ours {ours / rate:.2f} times" if ours else ""
            say(f"  {name:<26} {shape:<14} {rate:10.0f} tokens/s{against}")


def two_gpus(args: argparse.Namespace) -> None:
    """Train with `accelerate launch` on one and on two GPUs, the same batches."""
    if torch.cuda.device_count() < 2:
        say("  skipped: there are not two GPUs")
        return
    steps = 30 if args.quick else 60
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        found = {count: launch(count, Path(folder), steps) for count in (1, 2)}
    gap = max(abs(a - b) for a, b in zip(found[1]["losses"], found[2]["losses"], strict=True))
    results["two_gpus"] = {"1": found[1], "2": found[2], "largest_gap_of_losses": gap}
    ratio = found[2]["tokens_s"] / found[1]["tokens_s"]
    say(f"  2 GPUs: {ratio:.2f} times one; losses differ by at most {gap:.4f}")


def prepare(folder: Path) -> None:
    """Write an encoder of random weights and texts of random words."""
    from transformers import MambaConfig

    from selmem import bundled_path
    from selmem.encoder import MambaEncoder
    from selmem.tokenization import load_tokenizer

    hidden, layers = SIZES["130m"]
    eos = load_tokenizer(bundled_path("mamba-tiny")).eos_token_id
    shape = {"vocab_size": VOCABULARY, "hidden_size": hidden, "num_hidden_layers": layers}
    torch.manual_seed(0)
    MambaEncoder(MambaConfig(**shape, eos_token_id=eos)).save_pretrained(folder / "encoder")
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 7))) for _ in range(5000)]
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(2000):
            file.write(json.dumps({"text": " ".join(draw.choices(words, k=700))}) + "\n")


def launch(count: int, folder: Path, steps: int) -> dict[str, Any]:
    """Return tokens a second and losses of a training on `count` GPUs."""
    command = ["-m", "accelerate.commands.launch", "--num_processes", count, "--num_machines", 1]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    if count > 1:
        command.append("--multi_gpu")
    command += ["--module", "gpu_bench.scaling"]
    return python([*command, folder, folder / f"out{count}", steps], [])


def python(command: list[Any], paths: list[Path]) -> dict[str, Any]:
    """Run Python with `paths` before other packages; return the last line it prints, as JSON."""
    before = [str(path.resolve()) for path in (*paths, SCRIPTS)]
    environment = {**os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([*before, os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    say(f"  {json.dumps(found)[:600]}")
    return found
