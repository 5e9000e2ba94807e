"""Train a probe as `selmem train` does, and time its steps; run by peers.py.

    accelerate launch --num_processes 2 --module gpu_bench.scaling FOLDER OUT STEPS

FOLDER holds encoder/ and text.jsonl. The first ten steps are not timed.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from transformers import TrainerCallback

from selmem import bundled_path
from selmem.training import TrainConfig, train

TOKENS_PER_BATCH = int(os.environ.get("TOKENS_PER_BATCH", "65536"))
UNTIMED = 10


class Steps(TrainerCallback):
    """Notes the time after the untimed steps and after the last, and every loss."""

    times: list[float]
    losses: list[float]

    def __init__(self) -> None:
        Steps.times, Steps.losses = [], []

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_unused: Any) -> None:
        """Wait for the device where a time is noted."""
        if state.global_step in (UNTIMED, state.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            Steps.times.append(time.perf_counter())

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any, **_unused: Any) -> None:
        """Keep the mean loss since the last note."""
        if "loss" in logs:
            Steps.losses.append(float(logs["loss"]))


def main() -> None:
    """Print one line of JSON from the first process."""
    folder, out, n_steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    transformers.trainer.DEFAULT_CALLBACKS.append(Steps)
    config = TrainConfig(
        encoder=str(folder / "encoder"),
        tokenizer=str(bundled_path("mamba-tiny")),
        data=[str(folder / "text.jsonl")],
        out=out,
        lengths=[256],
        length_weights=[1.0],
        tokens_per_batch=TOKENS_PER_BATCH,
        max_steps=n_steps,
        eval_every=n_steps,
        held_out_tokens=4096,
        log_every=5,
    )
    train(config)
    first, last = Steps.times
    rate = (n_steps - UNTIMED) * TOKENS_PER_BATCH / (last - first)
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"tokens_s": rate, "losses": Steps.losses}))


if __name__ == "__main__":
    main()
