"""The transformers Trainer, fed with batches that follow from the step number alone.

Its own loop does the optimisation, the checkpoints and the distribution over processes. What is
ours: where batches come from, the loss, the held-out evaluation, the parameters that decay, and
nothing in a step that waits for the GPU.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from selmem.checkpoint import OUTPUT_WEIGHT
from selmem.corpus_store import TokenReader
from selmem.errors import InputError
from selmem.runs.cuda_graphs import GraphedBackward
from selmem.runs.objectives import HeldOut, Objective, score_held_out
from selmem.runs.schedules import Batch, BatchSchedule

logger = logging.getLogger(__name__)

# shrinking these changes what a model forgets or where it starts, not how large its weights are
UNDECAYED = ("A_log", "null_conv", "null_ssm")


class Part(TypedDict):
    """One process's part of one forward pass."""

    windows: Tensor  # token ids, int64, (B, T)
    weight: float  # factor of its mean loss that makes the mean over all parts the batch's


class BatchParts(Dataset[Part]):
    """The parts of all batches that this process computes, in order.

    Args:
        schedule: what stands in which batch.
        reader: of the store that the schedule points into.
        n_steps: optimiser steps.
        parts: forward passes per step and process.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        schedule: BatchSchedule,
        reader: TokenReader,
        *,
        n_steps: int,
        parts: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._schedule, self._reader = schedule, reader
        self._n_steps, self._parts = n_steps, parts
        self._rank, self._world_size = rank, world_size

    def __len__(self) -> int:
        return self._n_steps * self._parts

    def __getitem__(self, index: int) -> Part:
        step, part = divmod(index, self._parts)
        batch = self._schedule.batch(step)
        shares = self._parts * self._world_size
        mine = batch.share(part * self._world_size + self._rank, shares)
        weight = len(mine.starts) * shares / len(batch.starts)
        return {"windows": self._reader.read(mine.starts, mine.length), "weight": weight}


class WindowTrainer(Trainer):
    """Trains on windows of a corpus.

    Args:
        model: encoder or probe.
        arguments: of the Trainer.
        objective: the loss.
        schedule: what stands in which batch.
        reader: of the store that schedule and held-out windows point into.
        held_out: held-out windows, one entry per length.
        tokens_per_forward: tokens at a time in held-out evaluations.
        on_scores: called with the scores of every held-out evaluation.
        cuda_graphs: replay each shape's forward and backward pass as one CUDA graph.
        callbacks: further ones.
    """

    control: TrainerControl

    def __init__(
        self,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        *,
        objective: Objective,
        schedule: BatchSchedule,
        reader: TokenReader,
        held_out: list[Batch],
        tokens_per_forward: int,
        on_scores: Callable[[dict[int, HeldOut]], None],
        cuda_graphs: bool = False,
        callbacks: Iterable[TrainerCallback] = (),
    ) -> None:
        self._parts = BatchParts(
            schedule,
            reader,
            n_steps=arguments.max_steps,
            parts=arguments.gradient_accumulation_steps,
            rank=arguments.process_index,
            world_size=arguments.world_size,
        )
        super().__init__(
            model,
            arguments,
            data_collator=_only_one,
            train_dataset=self._parts,
            eval_dataset=self._parts,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        self._trained, self._objective, self._reader = model, objective, reader
        self._held_out, self._tokens_per_forward = held_out, tokens_per_forward
        self._on_scores = on_scores
        self._graphs: GraphedBackward | None = None
        if cuda_graphs:
            self._graphs = GraphedBackward(lambda windows: objective.loss(model, windows), model)

    def get_train_dataloader(self) -> DataLoader[Part]:
        """Return the parts in order; they are already this process's own, on its device."""
        return DataLoader(self._parts, batch_size=1, collate_fn=_only_one)

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Compute the gradients of one part and return its share of the batch's loss."""
        if self._graphs is None:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        if not model.training:
            model.train()
        weight = inputs["weight"] / self.args.gradient_accumulation_steps
        return self._graphs(inputs["windows"], weight)

    def compute_loss(self, model: nn.Module, inputs: Any, *_unused: Any, **_unused_too: Any) -> Any:
        """Return the weighted mean loss of one part; the Trainer divides it by their number."""
        loss = self._objective.loss(model, inputs["windows"])
        return loss if inputs["weight"] == 1 else loss * inputs["weight"]

    def evaluate(self, *_unused: Any, **_unused_too: Any) -> dict[str, float]:
        """Score the held-out windows and hand the scores to `on_scores`."""
        scores = score_held_out(
            self._trained,
            self._objective,
            self._held_out,
            self._reader,
            tokens_per_forward=self._tokens_per_forward,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )
        self._on_scores(scores)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics={}
        )
        return {f"bits_{length}": score.bits for length, score in scores.items()}

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the matrices, without those whose size means something else."""
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.dim() > 1 and name.rpartition(".")[2] not in UNDECAYED
        ]

    def floating_point_ops(self, _inputs: Any) -> int:
        """Return 0: the Trainer would walk over all parameters at every step to count."""
        return 0

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Let a checkpoint lack the output layer, which is tied to the embeddings.

        Raises:
            InputError: it lacks other weights, or has unknown ones.
        """
        wrong = {*load_result.missing_keys, *load_result.unexpected_keys} - {OUTPUT_WEIGHT}
        if wrong:
            raise InputError(f"the checkpoint's weights do not fit the model: {sorted(wrong)}")


class StopInTime(TrainerCallback):
    """Ends the run with a checkpoint when its time or its steps are used up.

    Args:
        max_minutes: from the making of this object; None for no limit.
        max_steps: of this call; None for no limit.
        check_every: steps between two agreements of several processes on the time.
    """

    def __init__(
        self, max_minutes: float | None, max_steps: int | None, *, check_every: int
    ) -> None:
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._max_steps = max_steps
        self._check_every = check_every
        self._steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_unused: Any) -> None:
        """Ask for a checkpoint and the end once a limit is reached."""
        self._steps += 1
        out_of_steps = self._max_steps is not None and self._steps >= self._max_steps
        if out_of_steps or self._out_of_time(args, state.global_step):
            control.should_save = control.should_training_stop = True

    def _out_of_time(self, args: TrainingArguments, step: int) -> bool:
        if self._deadline is None:
            return False
        late = time.monotonic() >= self._deadline
        if args.world_size == 1:
            return late
        if step % self._check_every:
            return False
        answer = torch.tensor([float(late)], device=args.device)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer.item())


def _only_one(items: list[Any]) -> Any:
    return items[0]
