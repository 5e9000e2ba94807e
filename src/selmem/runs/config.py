"""Configuration of a training run: what encoders and probes share, and how it is read.

Values come from flags, from a JSON or YAML file (`--config FILE`), or both; a flag wins.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml
from transformers import HfArgumentParser

from selmem.errors import InputError

# may differ between an interrupted run and its continuation
FREE_ON_RESUME = frozenset(
    {"out", "resume", "max_minutes", "stop_after_steps", "keep_checkpoints", "save_every"}
)


def option(default: Any, description: str) -> Any:
    """Return a dataclass field with its unit and meaning for `--help`.

    Args:
        default: its default; `...` where a value must be given.
        description: unit and meaning.
    """
    metadata = {"help": description}
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training run needs to know. The help of each field says its unit."""

    out: str = option(..., "folder for the trained model; its checkpoints lie in it meanwhile")
    data: list[str] = field(
        metadata={"help": "texts, [NAME=]PATH or [NAME=]hub:DATASET, or one corpus store"}
    )
    max_steps: int = option(10_000, "optimiser steps of the whole schedule; 0 saves the start")
    tokens_per_batch: int | None = option(
        None, "tokens of an optimiser step, over all processes; by default 32,768, on CPU 2,048"
    )
    accumulation_steps: int = option(1, "parts in which a batch is computed, to save memory")
    learning_rate: float = option(1e-3, "peak of the cosine schedule")
    final_lr_ratio: float = option(0.03, "learning rate at the end, as a share of the peak")
    warmup_ratio: float = option(0.02, "share of the steps with a rising learning rate")
    weight_decay: float = option(0.0, "AdamW's, on matrices but not on A_log and null states")
    beta1: float = option(0.9, "AdamW's")
    beta2: float = option(0.95, "AdamW's")
    max_grad_norm: float = option(1.0, "gradients of a larger norm are scaled down to it")
    precision: Literal["auto", "bf16", "fp32"] = option(
        "auto", "matrix products; weights and states are float32; auto is bf16 on a GPU"
    )
    seed: int = option(0, "of the data order and of random weights")
    held_out: float = option(0.005, "share of the documents held out, by hash of their text")
    held_out_tokens: int | None = option(
        None, "tokens per length in each held-out evaluation; by default 65,536, on CPU 4,096"
    )
    eval_every: int = option(500, "steps between two held-out evaluations")
    log_every: int = option(50, "steps between two readings of the training loss")
    save_every: int = option(1_000, "steps between two checkpoints")
    max_minutes: float | None = option(None, "stop with a checkpoint after this time, in minutes")
    stop_after_steps: int | None = option(None, "stop with a checkpoint after this many steps")
    resume: bool = option(False, "continue the interrupted run in `out`")
    keep_checkpoints: bool = option(False, "keep the folder `checkpoints` when done")
    save_dtype: Literal["float32", "bfloat16"] = option("float32", "of the saved weights")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto is a GPU where there is one")
    cuda_graphs: bool = option(False, "replay each length's step as one CUDA graph, on one GPU")

    def __post_init__(self) -> None:
        """Refuse values that no run can use.

        Raises:
            InputError: names the field, its value and what is expected.
        """
        for name in ("tokens_per_batch", "accumulation_steps", "held_out_tokens"):
            _at_least(self, name, 1)
        for name in ("eval_every", "log_every", "save_every", "stop_after_steps"):
            _at_least(self, name, 1)
        for name in ("max_steps", "seed", "weight_decay", "max_grad_norm"):
            _at_least(self, name, 0)
        for name in ("held_out", "warmup_ratio", "final_lr_ratio"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected a share from 0 to 1")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}, expected a positive number")
        if not self.data:
            raise InputError("data is empty, expected at least one corpus")

    def outcome(self) -> dict[str, Any]:
        """Return the fields that decide what comes out of a run."""
        return {name: value for name, value in asdict(self).items() if name not in FREE_ON_RESUME}


Config = TypeVar("Config", bound=RunConfig)


def parse_config(config_class: type[Config], arguments: Sequence[str], *, prog: str) -> Config:
    """Return a configuration from command-line arguments and the file named by `--config`.

    Args:
        config_class: its fields are the flags, `max_steps` as `--max-steps`.
        arguments: without the program's name.
        prog: what usage messages call the program.

    Raises:
        InputError: a flag that is unknown, missing or wrong; a file that is no mapping, or has an
            unknown name or a value that its flag would not take.
    """
    first = _SettingsParser([], prog=prog, add_help=False)
    first.add_argument("--config", type=Path)
    file = first.parse_known_args(arguments)[0].config
    parser = _SettingsParser([config_class], prog=prog, usage=_usage(config_class, prog))
    parser.add_argument("--config", type=Path, help="JSON or YAML file of these settings")
    parser.file = file
    # of two values the last one counts, so the file's come first
    given = [] if file is None else [*_flags(_read_file(file, config_class)), f"--config={file}"]
    config: Config
    config, *_, unknown = parser.parse_args_into_dataclasses(
        [*given, *arguments], look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        parser.error(f"unknown settings: {' '.join(unknown)}")
    return config


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class _SettingsParser(HfArgumentParser):
    """Raises an InputError for wrong arguments, in place of printing all settings."""

    file: Path | None = None

    def __init__(self, config_classes: Sequence[type[RunConfig]], **options: Any) -> None:
        super().__init__(config_classes, allow_abbrev=False, formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        also = "" if self.file is None else f" and {self.file}"
        raise InputError(f"{message}; see `{self.prog} --help`{also}")


def _usage(config_class: type[RunConfig], prog: str) -> str:
    required = [
        f"--{entry.name} {entry.name.upper()}" + (" ..." if entry.name == "data" else "")
        for entry in fields(config_class)
        if entry.default is MISSING and entry.default_factory is MISSING
    ]
    return f"{prog} [--config FILE] {' '.join(required)} [--SETTING VALUE ...]"


def _read_file(path: Path, config_class: type[RunConfig]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, expected names and values")
    known = {entry.name for entry in fields(config_class)}
    if unknown := sorted({str(name) for name in values} - known):
        raise InputError(
            f"{path} sets {', '.join(unknown)}, which does not exist; settings are "
            f"{', '.join(sorted(known))}"
        )
    return values


def _flags(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the flags that say the same; null leaves the default."""
    for name, value in values.items():
        if isinstance(value, list):
            yield from (f"--{name}", *map(str, value))
        elif value is not None:
            yield f"--{name}={value}"


def _at_least(config: RunConfig, name: str, least: float) -> None:
    value = getattr(config, name)
    if value is not None and not value >= least:
        raise InputError(f"{name} is {value}, expected at least {least}")
