"""Cards of encoders, probes and null probes: numbers from training records and measured tables."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError, safe_open

from selmem.analysis.controls import PLAIN_READERS
from selmem.analysis.measurements import POOLED
from selmem.cards.metadata import encoder_data, probe_data
from selmem.cards.naming import hub_id
from selmem.cards.rendering import render_card
from selmem.errors import InputError
from selmem.json_files import read_object
from selmem.licences import licence_of
from selmem.statistics import MIN_DOCUMENTS_INTERVAL
from selmem.tables import RULES, read_table

# names of the project's other repositories
DATASET, METRIC, SPACE = "omissions", "omission_rate", "reconstruction"
CURVE_ROWS = 12  # at most, of all evaluations
# tags of the scheme "all" in the table `omission`, and how the card calls them
WORDS = {"whole": "all words", "without_last_4": "words without a token among the last four"}
# what the probe, or another reader, was given in the table of controls
READERS = {
    "oracle": "an oracle that recovers everything",
    "probe": "this probe",
    "null": "the null probe",
    "encoder from empty state": "the encoder, from an empty state",
    "other_state": "this probe, whole state of another document",
    "other_conv": "this probe, convolution windows of another document",
    "other_ssm": "this probe, SSM state of another document",
    "conv": "a probe trained on the convolution windows alone",
    "ssm": "a probe trained on the SSM state alone",
    "deep": "a probe with further layers behind those that get the state",
}
SETTINGS = ("seed", "learning_rate", "tokens_per_batch", "max_steps")
LAST_FIFTH = 0.8


@dataclass(frozen=True)
class ModelFiles:
    """Where the numbers of one model's card are.

    Attributes:
        path: folder of the model.
        tables: committed tables of that model, may be absent.
        repo_id: NAMESPACE/NAME on the Hub.
    """

    path: Path
    tables: Path
    repo_id: str

    def find(self, name: str, reason: str) -> Path:
        """Return the file `name` of the model's folder, or the committed one.

        A folder with a table `omission` of its own uses no committed table.

        Raises:
            InputError: there is none; says `reason`.
        """
        measured_here = (self.path / "omission.parquet").is_file()
        folders = [self.path] if measured_here else [self.path, self.tables]
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        raise InputError(
            f"{self.repo_id} {reason}: {name} is not in "
            f"{' nor in '.join(map(str, folders))}; a model gets no card before that"
        )

    def json(self, name: str, reason: str) -> dict[str, Any]:
        """Return the content of a JSON file."""
        return read_object(self.find(name, reason), "make it again")


def model_card(
    path: Path, repo_id: str, templates: Path, *, n_parameters: int | None = None
) -> str:
    """Return the card of the model in `path`.

    Args:
        path: folder of the model.
        repo_id: NAMESPACE/NAME on the Hub.
        templates: the checkout's folder `hub_cards`.
        n_parameters: of the model; by default those of the weights in `path`.

    Raises:
        InputError: no model there, or one that was not yet measured; a number is missing.
    """
    files = ModelFiles(path, templates / "tables" / repo_id.split("/")[1], repo_id)
    config = files.json("config.json", "is no model")
    model = _model_facts(config, _n_parameters(path) if n_parameters is None else n_parameters)
    context = {"repo_id": repo_id, "model": model, **_training_facts(files)}
    if config.get("model_type") == "mamba":
        return render_card("encoder", templates, {**context, "metadata": encoder_data(context)})
    if config.get("model_type") != "mamba_probe":
        raise InputError(
            f"{path} holds a model of type {config.get('model_type')!r}, expected "
            "'mamba' or 'mamba_probe'"
        )
    context |= _probe_facts(config, repo_id)
    if config["condition"] == "none":
        data = probe_data(context, [])
        return render_card("null_probe", templates, {**context, "metadata": data})
    reason = "is not yet measured"
    omission = read_table(files.find("omission.parquet", reason))
    context |= _result_facts(omission, repo_id)
    context |= _control_facts(read_table(files.find("controls.parquet", reason)), repo_id)
    data = probe_data(context, context["results"]["whole"])
    return render_card("probe", templates, {**context, "metadata": data})


def _model_facts(config: Mapping[str, Any], n_parameters: int) -> dict[str, Any]:
    names = ("hidden_size", "num_hidden_layers", "state_size", "conv_kernel", "vocab_size")
    inner = config.get("intermediate_size") or config.get("expand", 2) * config["hidden_size"]
    layers, width = config["num_hidden_layers"], config["state_size"] + config["conv_kernel"]
    return {
        **{name: config.get(name) for name in names},
        "extra_layers": config.get("extra_layers", 0),
        "n_parameters": n_parameters,
        "n_without_embeddings": n_parameters - config["vocab_size"] * config["hidden_size"],
        "state_values": layers * inner * width,
    }


def _n_parameters(path: Path) -> int:
    total = 0
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as weights:
                names = list(weights.keys())
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        except SafetensorError as error:
            raise InputError(f"{file} is damaged: {error}") from error
    return total


def _training_facts(files: ModelFiles) -> dict[str, Any]:
    reason = "does not say how it was trained"
    training = files.json("training.json", reason)
    try:
        settings = training["settings"]
        facts = {name: training[name] for name in ("steps", "tokens", "best_step", "device")}
        facts |= {name: settings[name] for name in SETTINGS}
        sources = training["corpus"]["sources"]
        held_out = training["held_out_bits"]
        return {
            "training": {
                **facts,
                "minutes": training["seconds"] / 60,
                "passes": training["tokens"] / sum(size["n_tokens"] for size in sources.values()),
            },
            "corpus": [_corpus_row(name, size) for name, size in sorted(sources.items())],
            "held_out": [
                {
                    "length": int(n),
                    "bits": held_out[n],
                    "accuracy": training["held_out_accuracy"][n],
                }
                for n in sorted(held_out, key=int)
            ],
            "curve": _curve_facts(files.find("learning_curve.jsonl", reason)),
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"training.json of {files.repo_id} lacks {error}") from error


def _corpus_row(name: str, size: Mapping[str, int]) -> dict[str, Any]:
    return {"name": name, "licence": licence_of(name).name, **size}


def _curve_facts(path: Path) -> dict[str, Any]:
    """Return some rows of the learning curve, and what its last fifth still gained."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    if len(rows) < 2:
        raise InputError(f"{path} has {len(rows)} evaluations, expected at least 2")
    late = next(row for row in rows if row["step"] >= LAST_FIFTH * rows[-1]["step"])
    best = min(row["mean_held_out_bits"] for row in rows)
    step = math.ceil((len(rows) - 1) / (CURVE_ROWS - 2))  # the last row, and the first
    picked = sorted({0, *range(len(rows) - 1, 0, -step)})
    names = ("step", "tokens", "mean_held_out_bits")
    return {
        "rows": [{name: rows[i][name] for name in names} for i in picked],
        "late_step": late["step"],
        "late_gain": late["mean_held_out_bits"] - best,
    }


def _probe_facts(config: Mapping[str, Any], repo_id: str) -> dict[str, Any]:
    if not config.get("encoder_name_or_path"):
        raise InputError(f"config.json of {repo_id} names no encoder whose states the probe reads")
    namespace = repo_id.split("/")[0]
    names = ("condition", "max_chunk_tokens", "encoder_fingerprint", "tokenizer_hash")
    return {
        "probe": {name: config.get(name) for name in names},
        "encoder_id": hub_id(str(config["encoder_name_or_path"]), namespace),
        "dataset_id": f"{namespace}/{DATASET}",
        "metric_id": f"{namespace}/{METRIC}",
        "space_id": f"{namespace}/{SPACE}",
        "null_probe_id": f"{_base_name(repo_id)}-null-probe",
        "probe_id": f"{_base_name(repo_id)}-probe",
    }


def _base_name(repo_id: str) -> str:
    return repo_id.removesuffix("-probe").removesuffix("-null")


def _result_facts(omission: pa.Table, repo_id: str) -> dict[str, Any]:
    """Return the rows of the card's result tables, by kind of words."""
    rows = [row for row in omission.to_pylist() if row["scheme"] == "all"]
    probes = {row["probe"] for row in rows}
    if len(probes) != 1:
        raise InputError(
            f"omission.parquet of {repo_id} holds {len(probes)} probes, expected one; give each "
            "probe its own table"
        )
    main = [row for row in rows if row["source"] == POOLED]
    single = [row for row in rows if row["source"] != POOLED]
    return {
        "results": {tag: _by_source_and_length(main or single, tag) for tag in WORDS},
        "results_by_source": _by_source_and_length(single, "whole") if main else [],
        "words": WORDS,
        "lengths": sorted({row["length"] for row in rows}, key=lambda n: n or math.inf),
    }


def _by_source_and_length(rows: Sequence[Mapping[str, Any]], tag: str) -> list[dict[str, Any]]:
    cells: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if row["tag"] == tag:
            cells.setdefault((row["source"], row["length"]), {})[row["rule"]] = row
    return [
        {"source": source, "length": length, **{rule: _cell(found, rule) for rule in RULES}}
        for (source, length), found in sorted(cells.items(), key=_whole_texts_last)
    ]


def _whole_texts_last(entry: tuple[tuple[str, int], Any]) -> tuple[str, float]:
    (source, length), _ = entry
    return source, length or math.inf


def _cell(found: Mapping[str, Mapping[str, Any]], rule: str) -> dict[str, Any]:
    """Return what the card says under one rule; a rule or a number that is missing stays None."""
    row = found.get(rule, {})
    names = ["omission_rate", "n_words", "n_documents", "recovered_fraction"]
    if rule != "forced":
        names += ["chance_rate", "retained_over_chance"]
    return {**{name: row.get(name) for name in names}, "interval": _interval(row)}


def _interval(row: Mapping[str, Any]) -> str | None:
    low, high = row.get("ci_low"), row.get("ci_high")
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        few = row.get("n_documents", math.inf) < MIN_DOCUMENTS_INTERVAL
        return f"[under {MIN_DOCUMENTS_INTERVAL} documents]" if few else None
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _control_facts(controls: pa.Table, repo_id: str) -> dict[str, Any]:
    """Return the rows of the card's table of controls: of cells with controls, layers apart.

    Where there are such rows over all sources, those of single sources are left to the tables.
    """
    names = ("source", "length", "condition", "bits", "recovered_fraction")
    rows = [row for row in controls.to_pylist() if row["layer"] < 0]
    cells = {
        (row["source"], row["length"]) for row in rows if row["condition"] not in PLAIN_READERS
    }
    if any(source == POOLED for source, _ in cells):
        cells = {(source, length) for source, length in cells if source == POOLED}
    rows = [row for row in rows if (row["source"], row["length"]) in cells]
    if not rows:
        raise InputError(f"{repo_id} was measured without controls; add --controls to `measure`")
    rows.sort(key=lambda row: (row["source"], row["length"] or math.inf, row["bits"]))
    return {
        "controls": [{name: row[name] for name in names} for row in rows],
        "readers": READERS,
    }
