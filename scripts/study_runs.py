"""What is trained for the study: every training as one command; see study.py."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from speed import Shape, read_bench, tokens_per_second

CONFIGS = Path(__file__).resolve().parent / "configs" / "study"
PROBE_RATES = {"1m": 0.003, "4m": 0.002, "15m": 0.002, "45m": 0.001}  # peak learning rates
CONTROLLED = "4m"
CAUSAL, CAUSAL_SEEDS, CAUSAL_STEPS = "1m", (0, 1, 2), 5_000
NAME = "selmem/mamba-own-{}"  # what readers record as their encoder
# of a card that runs alone: how much of it a training of this size can use
SHARES = {"1m": 1 / 6, "4m": 0.2, "15m": 0.5, "45m": 1.0}
# names of runs: what is different in them
SEEDS = {f"{size}-seed{seed}": (size, seed) for size, seed in product(("1m", "4m"), (1, 2))}
DEDICATED = {f"{CONTROLLED}-only{length}": length for length in (64, 256)}  # tokens
FROM_SCRATCH: dict[str, dict[str, Any]] = {f"{CAUSAL}-repeat": {}, f"{CAUSAL}-again": {"seed": 1}}
EXTRA_LAYERS = 4


@dataclass(frozen=True)
class Run:
    """One command whose result is a folder.

    Attributes:
        out: the folder, below the working folder.
        command: of selmem, with what it always needs.
        config: settings file of a training; None for a measurement or a report.
        settings: further settings; they win over the file's.
        needs: folders of models that must be done before.
        inputs: other files that must be there before.
        result: the file in `out` that says that it is done.
        script: of this folder, if it is not selmem that runs; the command then names `out` itself.
    """

    out: str
    command: tuple[str, ...]
    config: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    result: str = "config.json"
    script: str | None = None

    @property
    def size(self) -> str | None:
        """Of the family, None for a checkpoint made by others."""
        path = self.needs[0] if self.needs else str(self.config)
        if path == "encoder":
            return None
        found = (size for size in sorted(SHARES, key=len, reverse=True) if size in path)
        return next(found, CAUSAL)

    @property
    def share(self) -> float:
        """How much of a card it uses; what runs on a card at once adds up to 1 at most."""
        if self.config is None:
            return 0.0  # little, and in bursts
        return 1.0 if self.size is None else SHARES[self.size]

    @property
    def store(self) -> str | None:
        """The folder of the corpus store that it reads, below the working folder."""
        return self.settings.get("data", self.settings.get("training_corpus"))

    @property
    def files(self) -> tuple[str, ...]:
        """Files below the working folder that must be there before."""
        stores = () if self.store is None else (f"{self.store}/store.json",)
        return (*(f"{folder}/config.json" for folder in self.needs), *stores, *self.inputs)

    @property
    def mark(self) -> str:
        """The file that says that it is done."""
        return f"{self.out}/{self.result}"

    def values(self) -> dict[str, Any]:
        """Return all settings of a training."""
        text = (CONFIGS / str(self.config)).read_text(encoding="utf-8")
        return {**yaml.safe_load(text), **self.settings}

    def arguments(self) -> list[str]:
        """Return the words after `selmem` or the script."""
        words = [*self.command] + (["--out", self.out] if self.script is None else [])
        words += [] if self.config is None else ["--config", str(CONFIGS / self.config)]
        for name, value in self.settings.items():
            several = value if isinstance(value, list | tuple) else [value]
            flag = f"--{name.replace('_', '-')}"
            words += [flag, *map(str, several)] if value is not True else [flag]
        return words


def encoder(size: str, name: str, **settings: Any) -> Run:
    """Return the pretraining of an encoder."""
    given = {"tokenizer": "tokenizer", "data": "corpus", **settings}
    return Run(name, ("pretrain",), f"encoder-{size}.yaml", given)


def reader(size: str, name: str, **settings: Any) -> Run:
    """Return the training of a probe, or with condition none of a null probe."""
    read = settings.pop("encoder", f"encoders/{size}")
    config = settings.pop("config", "probe.yaml")
    given = {"encoder": read, "data": "corpus", **settings}
    if config == "probe.yaml":
        given["learning_rate"] = PROBE_RATES[size]
        given["encoder_name"] = NAME.format(read.rpartition("/")[2])
    return Run(name, ("train",), config, given, (read,))


def both(size: str, name: str, **settings: Any) -> list[Run]:
    """Return the trainings of a probe and its null probe."""
    return [
        reader(size, f"probes/{name}", **settings),
        reader(size, f"nulls/{name}", condition="none", **settings),
    ]


def encoders() -> list[Run]:
    """Return the family, the longest training first."""
    return [encoder(size, f"encoders/{size}") for size in reversed(PROBE_RATES)]


def neox() -> list[Run]:
    """Return the encoder that the Pile's token counts apply to, and its readers."""
    own: dict[str, Any] = {"tokenizer": "tokenizer-neox", "data": "corpus-neox"}
    readers = both(CONTROLLED, "4m-neox", encoder="encoders/4m-neox", data="corpus-neox")
    return [encoder(CONTROLLED, "encoders/4m-neox", **own), *readers]


def probes() -> list[Run]:
    """Return the probes and null probes of the family."""
    return [run for size in reversed(PROBE_RATES) for run in both(size, size)]


def seeds() -> list[Run]:
    """Return readers of the same encoders with other seeds."""
    return [run for name, (size, seed) in SEEDS.items() for run in both(size, name, seed=seed)]


def lengths() -> list[Run]:
    """Return readers of one length, with as many tokens of it as in the mixture."""
    mixed = yaml.safe_load((CONFIGS / "probe.yaml").read_text(encoding="utf-8"))
    shares = dict(zip(mixed["lengths"], mixed["length_weights"], strict=True))
    return [
        run
        for name, length in DEDICATED.items()
        for run in both(
            CONTROLLED,
            name,
            lengths=[length],
            length_weights=[1.0],
            max_steps=round(mixed["max_steps"] * shares[length] / sum(shares.values())),
        )
    ]


def parts() -> list[Run]:
    """Return probes that see one part of the state."""
    return [
        reader(CONTROLLED, f"probes/{CONTROLLED}-{part}", condition=part)
        for part in ("conv", "ssm")
    ]


def depth() -> list[Run]:
    """Return readers with layers behind those that get the state."""
    return both(CONTROLLED, f"{CONTROLLED}-deep", extra_layers=EXTRA_LAYERS)


def convergence() -> list[Run]:
    """Return readers with twice the tokens, annealed; `scripts/convergence.py` compares."""
    return readers_of_steps("twice", 2)


def half() -> list[Run]:
    """Return readers with half of the tokens, annealed, where twice as many cost too much."""
    return readers_of_steps("half", 0.5)


def readers_of_steps(name: str, factor: float) -> list[Run]:
    """Return readers of every size that take `factor` times the steps."""
    steps = yaml.safe_load((CONFIGS / "probe.yaml").read_text(encoding="utf-8"))["max_steps"]
    given = {"max_steps": round(factor * steps)}
    return [run for size in reversed(PROBE_RATES) for run in both(size, f"{size}-{name}", **given)]


def again() -> list[Run]:
    """Return the smallest size twice more from scratch: with the same seed, and with another."""
    runs = []
    for name, settings in FROM_SCRATCH.items():
        read = f"encoders/{name}"
        runs.append(encoder(CAUSAL, read, **settings))
        runs += both(CAUSAL, name, encoder=read, **settings)
    return runs


def causal() -> list[Run]:
    """Return encoders and readers of the exchanged corpora; a null probe serves both encoders."""
    runs = []
    for seed in CAUSAL_SEEDS:
        folders = {side: f"causal/encoder-{side}-{seed}" for side in "ab"}
        corpora = {side: f"causal/corpus-{side}" for side in "ab"}
        for side in "ab":
            given = {"data": corpora[side], "seed": seed, "max_steps": CAUSAL_STEPS}
            runs.append(encoder(CAUSAL, folders[side], **given))
        common = {"config": "probe-causal.yaml", "seed": seed}
        for read, own in product("ab", "ab"):
            given = {"encoder": folders[read], "data": corpora[own], **common}
            runs.append(reader(CAUSAL, f"causal/probe-{read}-{own}-{seed}", **given))
        for own in "ab":
            given = {"encoder": folders[own], "data": corpora[own], "condition": "none", **common}
            runs.append(reader(CAUSAL, f"causal/null-{own}-{own}-{seed}", **given))
    return runs


def checkpoint() -> list[Run]:
    """Return the readers of a checkpoint made by others, in the folder `encoder`."""
    common = {"encoder": "encoder", "config": "probe-checkpoint.yaml"}
    return [
        reader("", "probe", **common),
        reader("", "null-probe", condition="none", **common),
    ]


STAGES: dict[str, Callable[[], list[Run]]] = {
    "encoders": encoders, "neox": neox, "probes": probes, "seeds": seeds, "lengths": lengths,
    "parts": parts, "depth": depth, "convergence": convergence, "half": half, "again": again,
    "causal": causal, "checkpoint": checkpoint,
}  # fmt: skip


def minutes(run: Run) -> float | None:
    """Return the estimated minutes of a training alone on one H200; not for checkpoints."""
    if run.config is None or run.config == "probe-checkpoint.yaml":
        return None
    values = run.values()
    shape = yaml.safe_load((CONFIGS / f"encoder-{run.size}.yaml").read_text(encoding="utf-8"))
    vocabulary = 50_277 if "neox" in run.out else 4_096
    n_layers = shape["num_hidden_layers"] + values.get("extra_layers", 0)
    reads = run.command == ("train",) and values.get("condition") != "none"
    rate = tokens_per_second(
        Shape(shape["hidden_size"], n_layers, vocabulary), read_bench(), reads_state=reads
    )
    return float(values["max_steps"] * values["tokens_per_batch"] / rate / 60)
