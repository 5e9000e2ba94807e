"""Check the Triton kernels against a float64 loop on this GPU, then time them and what uses them.

    python scripts/bench_gpu.py                                # everything
    python scripts/bench_gpu.py --sections correctness,scan    # a part
    python scripts/bench_gpu.py --paper-code PATH [--paper-packages DIR] [--mamba-ssm DIR]

PATH is a checkout of the paper's code; DIR a folder of installed packages that goes before the
others (`pip install --target`): transformers 4.46 and mambapy for the paper's code, mamba-ssm and
causal-conv1d for transformers' encoder. Without them these parts are skipped.

Expected time on one H200: about 3 minutes, of which compiling takes one (1 more with mamba-ssm and
the paper's code, 2 more with two GPUs).
Writes scripts/results/bench_gpu.json and prints a table; what the file holds of other sections,
from the same kind of GPU and the same versions, stays. Times are medians of CUDA events.
"""

import argparse
import json
import platform
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_bench import inference, kernels, peers, training, two_gpus
from gpu_bench.common import results, say

RESULTS = Path(__file__).parent / "results" / "bench_gpu.json"
SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "correctness": kernels.correctness,
    "ceilings": kernels.ceilings,
    "scan": kernels.scan,
    "conv": kernels.conv,
    "train": training.train,
    "graphs": training.graphs,
    "sizes": training.sizes,
    "encode": inference.encode,
    "reconstruct": inference.reconstruct,
    "stock": peers.stock,
    "paper": peers.paper,
    "two_gpus": two_gpus.two_gpus,
}


def main() -> None:
    """Run the sections asked for; a section that fails is reported and the next one runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated")
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--paper-code", type=Path, help="checkout of the paper's code")
    parser.add_argument("--paper-packages", type=Path, help="packages that it needs")
    parser.add_argument("--mamba-ssm", type=Path, help="where mamba-ssm is installed")
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
    if args.out.exists():
        before = json.loads(args.out.read_text(encoding="utf-8"))
        if before["machine"] == results["machine"]:
            results.update(before)
    failed: dict[str, str] = {}
    for name in args.sections.split(","):
        say(f"== {name}")
        start = time.perf_counter()
        try:
            SECTIONS[name](args)
        except Exception:
            traceback.print_exc()
            failed[name] = traceback.format_exc()
        torch.cuda.empty_cache()
        results["failed"] = failed
        say(f"   ({time.perf_counter() - start:.0f} s)")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
