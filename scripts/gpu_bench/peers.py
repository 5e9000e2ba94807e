"""Other code on the same GPU in the same call: the paper's, transformers with mamba-ssm.

Each runs in a process of its own, with its own packages, and prints one line of JSON at its end.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_bench.common import results, say

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


def python(
    command: list[Any], paths: list[Path], variables: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run Python with `paths` before other packages; return the last line it prints, as JSON."""
    before = [str(path.resolve()) for path in (*paths, SCRIPTS)]
    environment = {**os.environ, **(variables or {})}
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
