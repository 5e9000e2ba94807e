"""Cards of Spaces: the metric and the demo."""

import ast
import json
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCardData

from selmem.cards.rendering import render_card
from selmem.errors import InputError
from selmem.tables import read_table

# what a model is loaded from; fetched when the Space is built, not when it is woken up
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
PYTHON_VERSION = "3.12"  # a Space's default is older than this package supports


def metric_card(path: Path, repo_id: str, templates: Path) -> str:
    """Return the metric's own README, and below it what this project measured with the metric.

    Raises:
        InputError: the folder has no README, or the metric does not say its version.
    """
    readme = path / "README.md"
    if not readme.is_file():
        raise InputError(f"{readme} does not exist; a metric is published with its card")
    namespace, name = repo_id.split("/")
    context = {
        "readme": readme.read_text(encoding="utf-8").rstrip(),
        "metric_version": _constant(path / f"{name}.py", "METRIC_VERSION"),
        "dataset_id": f"{namespace}/omissions",
        "rows": _measured_rows(templates / "tables"),
    }
    return render_card("metric", templates, context)


def _measured_rows(tables: Path) -> list[dict[str, Any]]:
    """Return the rates under the rule count of every probe that has committed tables."""
    names = ("probe", "source", "length", "n_words", "omission_rate", "chance_rate")
    return [
        {name: row[name] for name in names} | {"probe": path.parent.name}
        for path in sorted(tables.glob("*/omission.parquet"))
        for row in read_table(path).to_pylist()
        if (row["scheme"], row["tag"], row["rule"]) == ("all", "whole", "count")
    ]


def space_card(path: Path, repo_id: str, templates: Path) -> str:
    """Return the card of the demo in `path`.

    Raises:
        InputError: the demo does not say which gradio it needs.
    """
    namespace = repo_id.split("/")[0]
    models = _offered_models(path)
    metadata = _metadata(
        path,
        title="What a Mamba can write back",
        emoji="🐍",
        models=models,
        datasets=[f"{namespace}/omissions"],
        tags=["mamba", "state-space-model", "interpretability"],
        short_description="Text in, state, text back: what was recovered",
        suggested_hardware="cpu-basic",
        preload_from_hub=[f"{model} {','.join(MODEL_FILES)}" for model in models],
    )
    context = {"repo_id": repo_id, "models": models, "metadata": metadata}
    return render_card("space", templates, context)


def _offered_models(path: Path) -> list[str]:
    """Return the Hub ids that the demo offers beside the models it has with it."""
    offered = path / "models.json"
    entries = json.loads(offered.read_text(encoding="utf-8")) if offered.is_file() else []
    return list(dict.fromkeys(model for entry in entries for model in entry.values()))


def _metadata(path: Path, **fields: Any) -> str:
    data = SpaceCardData(
        sdk="gradio",
        sdk_version=_gradio_version(path / "requirements.txt"),
        python_version=PYTHON_VERSION,
        app_file="app.py",
        license="apache-2.0",
        colorFrom="indigo",
        colorTo="gray",
        pinned=False,
        **fields,
    )
    return str(data.to_yaml())


def _gradio_version(requirements: Path) -> str:
    """Return the exact version of gradio that the Space's requirements name."""
    lines = requirements.read_text(encoding="utf-8").split() if requirements.is_file() else []
    for line in lines:
        name, _, version = line.partition("==")
        if name == "gradio" and version:
            return version
    raise InputError(f"{requirements} names no gradio==VERSION; the Hub needs one")


def _constant(path: Path, name: str) -> str:
    """Return the value of a module's constant without running the module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return str(ast.literal_eval(node.value))
    raise InputError(f"{path} has no constant {name}")
