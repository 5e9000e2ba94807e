"""Metadata of the models' cards, in the classes that the Hub's client library has for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from selmem.tables import length_name

TAGS = ["mamba", "state-space-model", "interpretability"]


def encoder_data(context: Mapping[str, Any]) -> str:
    """Return the metadata (YAML) of an encoder's card."""
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        tags=TAGS,
        model_name=context["repo_id"].split("/")[1],
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type="held-out",
                dataset_name="held-out documents",
                metric_type="bits_per_token",
                metric_name=f"bits per token, windows of {row['length']} tokens",
                metric_value=round(row["bits"], 4),
            )
            for row in context["held_out"]
        ],
    )
    return str(data.to_yaml())


def probe_data(context: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Return the metadata (YAML) of a probe's card.

    Args:
        context: what the template gets.
        results: rows over all words, one for each length of all sources together, or of each where
            there is one; none for a null probe.
    """
    name = context["repo_id"].split("/")[1]
    measured = {
        "datasets": [context["dataset_id"]],
        "metrics": [context["metric_id"]],
        "model_name": name,
        "eval_results": [_eval_result(row, context) for row in results],
    }
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        base_model=context["encoder_id"],
        base_model_relation="finetune",
        tags=[*TAGS, "probing", "text-reconstruction"],
        **(measured if results else {}),
    )
    return str(data.to_yaml())


def _eval_result(row: Mapping[str, Any], context: Mapping[str, Any]) -> EvalResult:
    return EvalResult(
        task_type="text-reconstruction",
        task_name="Text reconstruction from the state",
        dataset_type=context["dataset_id"],
        dataset_name=context["dataset_id"],
        dataset_config="omission",
        metric_type=context["metric_id"],
        # results that differ in nothing but the data's name would replace each other
        metric_name=f"omission rate (count), {row['source']}, {length_name(row['length'])}",
        metric_value=row["count"]["omission_rate"],
    )
