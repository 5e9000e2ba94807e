"""Say whether a probe has converged: what twice the tokens, annealed, would still gain.

    python scripts/convergence.py probes/4m probes/4m-twice       (and likewise nulls/4m ...)

Both folders are finished trainings (`selmem train`) of the same settings but for max_steps, the
second with twice as many; each is scored at its best step, near the end of its own schedule. The
rule: at T = 64 and at T = 256 the held-out bits per token fall by less than 1 %. Where they fall by
more, the distance is printed, and the exit status is 1.

Time: a second.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

LENGTHS = ("64", "256")
LIMIT = 0.01
MAY_DIFFER = {"max_steps", "eval_every", "log_every"}


def read_training(folder: Path) -> dict[str, Any]:
    """Return what a finished training recorded."""
    path = folder / "training.json"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; finish this training first")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def still_to_gain(once: dict[str, Any], twice: dict[str, Any]) -> dict[str, float]:
    """Return by which share the held-out bits fall from one budget to twice as much, per length.

    Raises:
        ValueError: the two trainings differ in more than their length, or not by a factor of 2.
    """
    ours, theirs = once["settings"], twice["settings"]
    wrong = {n for n in {*ours, *theirs} - MAY_DIFFER if ours.get(n) != theirs.get(n)}
    wrong |= {"corpus"} if once["corpus"] != twice["corpus"] else set()
    if wrong:
        raise ValueError(f"the two trainings differ in {', '.join(sorted(wrong))}")
    if twice["steps"] != 2 * once["steps"]:
        raise ValueError(f"{twice['steps']} steps are not twice {once['steps']}")
    bits = [(once["held_out_bits"][n], twice["held_out_bits"][n]) for n in LENGTHS]
    return {n: (first - second) / first for n, (first, second) in zip(LENGTHS, bits, strict=True)}


def main() -> int:
    """Print a line per length and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("once", type=Path)
    parser.add_argument("twice", type=Path)
    args = parser.parse_args()
    once, twice = read_training(args.once), read_training(args.twice)
    gains = still_to_gain(once, twice)
    for length, gain in gains.items():
        before, after = once["held_out_bits"][length], twice["held_out_bits"][length]
        print(f"T={length}: {before:.4f} to {after:.4f} bits per token, {100 * gain:.2f} % less")
    converged = max(gains.values()) < LIMIT
    print(
        f"converged at {once['tokens']:,} tokens"
        if converged
        else f"not converged at {once['tokens']:,} tokens: {100 * max(gains.values()):.2f} % are "
        f"more than {100 * LIMIT:.0f} %"
    )
    return 0 if converged else 1


if __name__ == "__main__":
    sys.exit(main())
