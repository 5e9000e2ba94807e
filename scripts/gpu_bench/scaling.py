"""Train a probe as `selmem train` does, several times over, and time its steps; see two_gpus.py.

    accelerate launch --num_processes 2 --module gpu_bench.scaling FOLDER OUT JOBS

FOLDER holds encoder/ and store/; JOBS is JSON, a list of `Job`. The first ten steps of a training
are not timed, and it ends after the steps asked for, while the learning rate still rises as in a
run of the default length. Prints one line of JSON from the first process.
"""

import functools
import gc
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers.trainer
from accelerate.utils import DistributedDataParallelKwargs
from accelerate.utils.dataclasses import DDPCommunicationHookType
from transformers import TrainerCallback

from selmem import bundled_path
from selmem.training import TrainConfig, train

UNTIMED = 10
LOG_EVERY = 10  # steps; each reading waits for the device
EMBEDDINGS = 50280 * 768  # the largest gradient, and the last one


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        name: its key in the results.
        steps: after which it ends.
        tokens_per_batch: over all processes.
        parts: in which each process computes its share of a batch.
        ddp: settings of accelerate's DistributedDataParallelKwargs other than the defaults.
    """

    name: str
    steps: int
    tokens_per_batch: int = 65_536
    parts: int = 1
    ddp: dict[str, Any] = field(default_factory=dict)


class Steps(TrainerCallback):
    """Notes the time after the untimed steps and after the last, and every loss."""

    last = UNTIMED
    times: list[float]
    losses: list[float]

    def __init__(self) -> None:
        Steps.times, Steps.losses = [], []

    def on_step_end(self, _args: Any, state: Any, control: Any, **_unused: Any) -> None:
        """Wait for the device where a time is noted; end after the last step."""
        if state.global_step in (UNTIMED, Steps.last):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            Steps.times.append(time.perf_counter())
        control.should_training_stop |= state.global_step >= Steps.last

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any, **_unused: Any) -> None:
        """Keep the mean loss since the last note."""
        if "loss" in logs:
            Steps.losses.append(float(logs["loss"]))


def run(job: Job, folder: Path, out: Path) -> dict[str, Any]:
    """Return tokens a second and losses of one training."""
    settings = dict(job.ddp)
    if "comm_hook" in settings:
        settings["comm_hook"] = DDPCommunicationHookType(settings["comm_hook"])
    wrapping = functools.partial(DistributedDataParallelKwargs, **settings)
    transformers.trainer.DistributedDataParallelKwargs = wrapping  # type: ignore[attr-defined]
    Steps.last = job.steps
    train(
        TrainConfig(
            encoder=str(folder / "encoder"),
            tokenizer=str(bundled_path("mamba-tiny")),
            data=[str(folder / "store")],
            out=str(out / job.name),
            lengths=[256],
            length_weights=[1.0],
            tokens_per_batch=job.tokens_per_batch,
            accumulation_steps=job.parts,
            eval_every=10_000,
            held_out_tokens=4096,
            log_every=LOG_EVERY,
        )
    )
    first, last = Steps.times
    rate = (job.steps - UNTIMED) * job.tokens_per_batch / (last - first)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {"tokens_s": rate, "losses": list(Steps.losses)}


def attempt(job: Job, folder: Path, out: Path) -> dict[str, Any]:
    """Return the same, or why settings that are only tried do not work here."""
    try:
        return run(job, folder, out)
    except Exception as error:
        if not job.ddp:
            raise
        return {"tokens_s": 0.0, "losses": [], "error": str(error)}


def reduction_ms() -> float:
    """Return the time of summing the gradient of the embeddings over the processes."""
    gradient = torch.zeros(EMBEDDINGS, device=torch.cuda.current_device())
    for repeats in (3, 10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            dist.all_reduce(gradient)
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats * 1e3


def main() -> None:
    """Run the jobs."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    jobs = [Job(**settings) for settings in json.loads(sys.argv[3])]
    transformers.trainer.DEFAULT_CALLBACKS.append(Steps)
    found: dict[str, Any] = {job.name: attempt(job, folder, out) for job in jobs}
    if dist.is_initialized() and torch.cuda.is_available():
        found["reduction_ms"] = reduction_ms()
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
