"""One training run from start to saved model: folders, checkpoints, learning curve, best weights.

A run keeps what it needs to continue in OUT/checkpoints: `run.json` (its settings), the Trainer's
own checkpoints, `learning_curve.jsonl`, and `best.safetensors` (weights of the best held-out
evaluation so far, its step and score in the file's metadata). When it is done the model is written
to OUT and OUT/checkpoints is deleted.
"""

import json
import logging
import shutil
import tempfile
import time
from math import isfinite
from pathlib import Path
from typing import Any, Self

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from selmem.corpus_building import build_store
from selmem.corpus_store import CorpusStore, TokenReader, is_store, open_store
from selmem.errors import InputError
from selmem.probe.configuration_mamba_probe import MambaProbeConfig
from selmem.progress import no_transformers_bars
from selmem.runs.arguments import held_out_tokens, tokens_per_batch, training_arguments
from selmem.runs.config import RunConfig
from selmem.runs.objectives import Autocast, HeldOut, Objective, mean_bits
from selmem.runs.records import BestWeights, LearningCurve
from selmem.runs.schedules import Batch, BatchSchedule
from selmem.runs.trainer import StopInTime, WindowTrainer
from selmem.tables import config_hash, write_text
from selmem.tokenization import tokenizer_hash

logger = logging.getLogger(__name__)

CURVE = "learning_curve.jsonl"
PATHS = ("data", "encoder", "tokenizer", "init_probe")  # mean nothing on another machine
PROGRESS = "selmem_progress.json"  # the last file of a whole checkpoint


class Run:
    """A training run in `config.out`; as a context, it leaves nothing behind if its input is wrong.

    Raises:
        InputError: the folder holds another run or a model, or there is no run to resume.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.out = Path(config.out)
        self.checkpoints = self.out / "checkpoints"
        self._started = time.monotonic()
        self.arguments = training_arguments(config, self.checkpoints)
        self.device: torch.device = self.arguments.device
        self.is_main = self.arguments.process_index == 0
        with self.arguments.main_process_first():
            if self.is_main:
                _open_folder(config, self.out, self.checkpoints)
        self.last_checkpoint = _last_whole_checkpoint(self.checkpoints)
        self.curve = LearningCurve(self.checkpoints / CURVE, self._last_step())
        self.best = BestWeights(self.checkpoints / "best.safetensors")
        self._earlier_seconds = _seconds_of(self.last_checkpoint)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_unused: object) -> None:
        """After wrong input, remove what this run wrote, so that a corrected one can start."""
        wrong_input = kind is not None and issubclass(kind, InputError)
        started = self.config.resume or any(self.checkpoints.glob("checkpoint-*"))
        if wrong_input and self.is_main and not started:
            shutil.rmtree(self.checkpoints)
            if not any(self.out.iterdir()):
                self.out.rmdir()

    @property
    def autocast(self) -> Autocast:
        """Precision of the forward passes."""
        on_gpu = self.device.type == "cuda"
        bf16 = self.config.precision == "bf16" or (self.config.precision == "auto" and on_gpu)
        return Autocast(self.device, bf16)

    def corpus(self, tokenizer: Any) -> CorpusStore:
        """Return the store named in `data`, or one built from `data` among the checkpoints.

        Raises:
            InputError: a store of another tokenizer, or a store among other sources.
        """
        stores = [source for source in self.config.data if is_store(source)]
        if not stores:
            with self.arguments.main_process_first():
                return build_store(
                    self.config.data,
                    tokenizer,
                    self.checkpoints / "corpus",
                    held_out=self.config.held_out,
                )
        if len(self.config.data) > 1:
            raise InputError(f"{stores[0]} is a corpus store; give it alone, or only texts")
        store = open_store(Path(stores[0]))
        store.require_tokenizer(tokenizer_hash(tokenizer))
        return store

    def optimise(
        self,
        model: PreTrainedModel,
        objective: Objective,
        schedule: BatchSchedule,
        held_out: list[Batch],
        reader: TokenReader,
    ) -> bool:
        """Train `model` up to the last step or a limit; return whether the schedule is done."""
        _check_rows(schedule, self.arguments)
        model.to(self.device)
        trainer = WindowTrainer(
            model,
            self.arguments,
            objective=objective,
            schedule=schedule,
            reader=reader,
            held_out=held_out,
            tokens_per_forward=tokens_per_batch(self.config, self.device),
            on_scores=lambda scores: self._note(trainer, model, scores),
            cuda_graphs=self.config.cuda_graphs,
            callbacks=[self._stop_in_time(), _Progress(self)],
        )
        if self.last_checkpoint is None:
            trainer.evaluate()
        if self.config.max_steps > self._last_step():
            resumed = None if self.last_checkpoint is None else str(self.last_checkpoint)
            with no_transformers_bars():
                trainer.train(resume_from_checkpoint=resumed)
        step = max(int(trainer.state.global_step), self._last_step())
        trainer.accelerator.wait_for_everyone()
        if step < self.config.max_steps:
            logger.warning(
                "stopped at step %d of %d; run the same command with --resume to continue",
                step,
                self.config.max_steps,
            )
            return False
        return True

    def save(
        self, model: PreTrainedModel, tokenizer: Any, store: CorpusStore, **further: Any
    ) -> None:
        """Write the best weights, the tokenizer and `training.json`; drop the checkpoints.

        `further` facts stand in `training.json` beside what every run records.
        """
        if not self.is_main:
            return
        self.best.restore(model)
        summary = {**self._summary(store), **further}
        if isinstance(model.config, MambaProbeConfig):
            model.config.training = summary
        model.to(getattr(torch, self.config.save_dtype))
        model.config.use_cache = True  # the Trainer turned it off
        partial = Path(tempfile.mkdtemp(dir=self.out, prefix=".model.", suffix=".part"))
        try:
            with no_transformers_bars():
                model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            write_text(partial / "training.json", json.dumps(summary, indent=2) + "\n")
            shutil.copyfile(self.curve.path, partial / CURVE)
            # the configuration comes last: a folder with one is whole
            for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
                file.chmod(0o644)
                file.replace(self.out / file.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if not self.config.keep_checkpoints:
            shutil.rmtree(self.checkpoints)

    def _summary(self, store: CorpusStore) -> dict[str, Any]:
        """Return what the run was and reached, for `training.json` and a probe's config."""
        last, best = self.curve.rows[-1], self.curve.row(self.best.step)
        settings = self.config.outcome()
        effective = {
            "tokens_per_batch": tokens_per_batch(self.config, self.device),
            "held_out_tokens": held_out_tokens(self.config, self.device),
        }
        return {
            "steps": last["step"],
            "tokens": last["tokens"],
            "seconds": last["seconds"],
            "best_step": best["step"],
            "best_tokens": best["tokens"],
            "held_out_bits": best["held_out_bits"],
            "held_out_accuracy": best["held_out_accuracy"],
            "corpus": {"content_hash": store.content_hash, "sources": store.summary["sources"]},
            "device": _device_name(self.device),
            "world_size": self.arguments.world_size,
            "settings": {k: v for k, v in (settings | effective).items() if k not in PATHS},
            "config_hash": config_hash(settings),
        }

    def seconds(self) -> float:
        """Return the wall time of the run so far, earlier parts included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def _note(
        self, trainer: WindowTrainer, model: PreTrainedModel, scores: dict[int, HeldOut]
    ) -> None:
        step = int(trainer.state.global_step)
        if not self.is_main:
            return
        losses = [entry for entry in trainer.state.log_history if "loss" in entry]
        self.curve.add(
            {
                "step": step,
                "tokens": step * tokens_per_batch(self.config, self.device),
                "seconds": round(self.seconds(), 1),
                "train_loss": losses[-1]["loss"] if losses else None,
                "mean_held_out_bits": mean_bits(scores),
                "held_out_bits": {str(k): score.bits for k, score in scores.items()},
                "held_out_accuracy": {str(k): score.accuracy for k, score in scores.items()},
                "held_out_eos_bits": {str(k): score.eos_bits for k, score in scores.items()},
            }
        )
        self.best.offer(model, step, mean_bits(scores))
        if not isfinite(mean_bits(scores)):
            logger.warning("the loss is no longer finite at step %d; lower learning_rate", step)
        logger.info(
            "step %d: %.4f held-out bits per token, %.0f tokens/s",
            step,
            mean_bits(scores),
            self.curve.tokens_per_second(),
        )

    def _stop_in_time(self) -> StopInTime:
        return StopInTime(
            self.config.max_minutes, self.config.stop_after_steps, check_every=self.config.log_every
        )

    def _last_step(self) -> int:
        return 0 if self.last_checkpoint is None else _step_of(self.last_checkpoint)


class _Progress(TrainerCallback):
    """Completes each checkpoint with the wall time used, which also marks it as whole."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_save(self, args: Any, state: Any, control: Any, **_unused: Any) -> None:  # noqa: ARG002
        if self._run.is_main:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_text(folder / PROGRESS, json.dumps({"seconds": self._run.seconds()}) + "\n")


def _check_rows(schedule: BatchSchedule, arguments: TrainingArguments) -> None:
    shares = arguments.world_size * arguments.gradient_accumulation_steps
    longest = max(schedule.lengths)
    if schedule.rows(longest) < shares:
        raise InputError(
            f"a batch has {schedule.rows(longest)} windows of {longest} tokens, fewer than its "
            f"{shares} parts (processes times accumulation_steps); raise tokens_per_batch"
        )


def _open_folder(config: RunConfig, out: Path, checkpoints: Path) -> None:
    """Make the folder of a new run, or check that an old one is the same run."""
    file = checkpoints / "run.json"
    if (out / "config.json").exists():
        raise InputError(f"{out} already holds a trained model; choose another folder")
    if not config.resume:
        if file.exists():
            raise InputError(f"{out} holds an interrupted run; add --resume, or remove it")
        write_text(file, json.dumps(config.outcome(), indent=2) + "\n")
        return
    if not file.exists():
        raise InputError(f"{out} holds no run to resume; leave out --resume to start one")
    before, now = json.loads(file.read_text(encoding="utf-8")), config.outcome()
    if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
        raise InputError(
            f"{out} was started with other settings: "
            + ", ".join(f"{n} {before.get(n)!r}, now {now.get(n)!r}" for n in changed)
        )


def _last_whole_checkpoint(checkpoints: Path) -> Path | None:
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{PROGRESS}")]
    return max(whole, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _seconds_of(checkpoint: Path | None) -> float:
    if checkpoint is None:
        return 0.0
    return float(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))["seconds"])


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
