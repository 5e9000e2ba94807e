"""What the study's trainings recorded, as tables; see study_tables.py."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from convergence import LENGTHS, LIMIT, still_to_gain
from study_runs import CAUSAL, PROBE_RATES
from transformers import MambaConfig

from selmem.encoder import MambaEncoder
from selmem.hub.checksums import file_sha256
from selmem.probe import MambaProbe, MambaProbeConfig

KINDS = {"encoders": "encoder", "probes": "probe", "nulls": "null probe"}
CAUSAL_KINDS = {"encoder": "encoder", "probe": "probe", "null": "null probe"}
RECORDS = ("config.json", "training.json", "learning_curve.jsonl")
HELD_OUT = (16, 64, 256, 512)  # tokens; the encoders' windows have 512
CURVE = ("step", "tokens", "seconds", "train_loss", "mean_held_out_bits")


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        path: its folder, below the working folder.
        kind: encoder, probe or null probe.
        size: of the family.
        variant: "" for the family's own; else what is different.
        config: of the model.
        record: training.json.
        curve: the evaluations of learning_curve.jsonl.
        weights: SHA-256 of model.safetensors, "" where the weights are elsewhere.
    """

    path: str
    kind: str
    size: str
    variant: str
    config: dict[str, Any]
    record: dict[str, Any]
    curve: list[dict[str, Any]]
    weights: str

    @property
    def labels(self) -> dict[str, Any]:
        """What its rows begin with in every table."""
        names = ("path", "kind", "size", "variant")
        return {name.replace("path", "training"): getattr(self, name) for name in names}


def read_trainings(work: Path) -> list[Training]:
    """Return every finished training of the study in `work`."""
    folders = [path for kind in KINDS for path in sorted((work / kind).glob("*"))]
    folders += sorted((work / "causal").glob("*-*"))
    whole = [folder for folder in folders if all((folder / name).is_file() for name in RECORDS)]
    return [_read(folder, work) for folder in whole]


def _read(folder: Path, work: Path) -> Training:
    config, record = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in RECORDS[:2]
    )
    lines = (folder / RECORDS[2]).read_text(encoding="utf-8").splitlines()
    size, _, variant = folder.name.partition("-")
    kind = KINDS.get(folder.parent.name)
    if kind is None:
        kind, size, variant = CAUSAL_KINDS[size], CAUSAL, f"causal {variant}"
    path, curve = folder.relative_to(work).as_posix(), [json.loads(x) for x in lines if x.strip()]
    file = folder / "model.safetensors"
    weights = file_sha256(file) if file.is_file() else ""
    return Training(path, kind, size, variant, config, record, curve, weights)


def count_parameters(config: dict[str, Any]) -> tuple[int, int]:
    """Return the parameters of a model, and how many of them are embeddings."""
    values = {name: value for name, value in config.items() if name != "dtype"}
    with torch.device("meta"):
        model: torch.nn.Module = (
            MambaEncoder(MambaConfig(**values))
            if config["model_type"] == "mamba"
            else MambaProbe(MambaProbeConfig(**values))
        )
    embeddings = config["vocab_size"] * config["hidden_size"]
    return sum(p.numel() for p in model.parameters()), embeddings


def training_table(trainings: list[Training]) -> pd.DataFrame:
    """Return a row for every training: size, budget, passes over the corpus, held-out bits."""
    return pd.DataFrame([_training_row(training) for training in trainings])


def _training_row(training: Training) -> dict[str, Any]:
    record, settings = training.record, training.record["settings"]
    total, embeddings = count_parameters(training.config)
    corpus = sum(source["n_tokens"] for source in record["corpus"]["sources"].values())
    held_out = record["held_out_bits"]
    return {
        **training.labels,
        "seed": settings["seed"],
        "learning_rate": settings["learning_rate"],
        "n_parameters": total,
        "n_embedding_parameters": embeddings,
        "steps": record["steps"],
        "best_step": record["best_step"],
        "tokens": record["tokens"],
        "corpus_tokens": corpus,
        "passes": record["tokens"] / corpus,
        "tokens_per_parameter": record["tokens"] / (total - embeddings),
        "minutes": record["seconds"] / 60,
        "device": record["device"],
        **{f"bits_{n}": held_out.get(str(n), float("nan")) for n in HELD_OUT},
        "weights_sha256": training.weights,
    }


def curve_table(trainings: list[Training]) -> pd.DataFrame:
    """Return the held-out bits per token of every evaluation, a row for each length."""
    rows = [
        {**training.labels, **{n: row[n] for n in ("step", "tokens")}, "length": int(n), "bits": x}
        for training in trainings
        for row in training.curve
        for n, x in row["held_out_bits"].items()
    ]
    return pd.DataFrame(rows)


def convergence_table(trainings: list[Training]) -> pd.DataFrame:
    """Return what twice the tokens still gain, or what the second half of them gained.

    `bits` are those of fewer tokens, `bits_after` of twice as many, `gain` the share by which they
    fall; the rule is that they fall by less than 1 % at both lengths.
    """
    plain = {(t.kind, t.size): t for t in trainings if not t.variant}
    rows: list[dict[str, Any]] = []
    for other in trainings:
        own = plain.get((other.kind, other.size))
        if own is None or other.variant not in ("twice", "half"):
            continue
        before, after = (own, other) if other.variant == "twice" else (other, own)
        rows += _gains(before, after, other.variant)
    table = pd.DataFrame(rows)
    if len(table):
        table["size"] = pd.Categorical(table["size"], list(PROBE_RATES))
        table = table.sort_values(["size", "kind", "against", "length"], ignore_index=True)
        table["size"] = table["size"].astype(str)
    return table


def _gains(before: Training, after: Training, against: str) -> Iterator[dict[str, Any]]:
    try:
        gains = still_to_gain(before.record, after.record)
    except ValueError as error:
        print(f"not compared: {before.path} and {after.path}: {error}")
        return
    met = "met" if max(gains.values()) < LIMIT else "not met"
    for n in LENGTHS:
        yield {
            "kind": before.kind,
            "size": before.size,
            "against": against,
            "length": int(n),
            "tokens": before.record["tokens"],
            "tokens_after": after.record["tokens"],
            "bits": before.record["held_out_bits"][n],
            "bits_after": after.record["held_out_bits"][n],
            "gain": gains[n],
            "rule": met if against == "twice" else f"{met} with half of the tokens",
        }


def card_record(training: Training) -> dict[str, str]:
    """Return the files that a model's card is made of, without the evaluations' details."""
    curve = [{name: row[name] for name in CURVE} for row in training.curve]
    return {
        "config.json": json.dumps(training.config, indent=2) + "\n",
        "training.json": json.dumps(training.record, indent=2) + "\n",
        "learning_curve.jsonl": "".join(json.dumps(row) + "\n" for row in curve),
    }
