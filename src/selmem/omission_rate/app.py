# SPDX-License-Identifier: Apache-2.0
"""The page of this metric: two texts in, their omission rate out."""

from pathlib import Path
from typing import Any

import evaluate
import gradio


def score(reference: str, prediction: str) -> dict[str, Any]:
    """Return the metric of one pair of texts, without what one pair cannot have."""
    metric = evaluate.load(str(Path(__file__).with_name("omission_rate.py")))
    if not reference.strip():
        raise gradio.Error("The reference is empty.")
    results = metric.compute(predictions=[prediction], references=[reference], chance_draws=0)
    shown = ("omission_rate", "omission_rate_aligned", "n_words", "metric_version")
    return {name: results[name] for name in shown}


def build() -> gradio.Interface:
    """Return the page."""
    return gradio.Interface(
        fn=score,
        inputs=[
            gradio.Textbox(label="Reference", lines=4),
            gradio.Textbox(label="Reconstruction", lines=4),
        ],
        outputs=gradio.JSON(label="Omission rate"),
        title="Omission rate",
        description="The share of the reference's words that the reconstruction lacks.",
        examples=[["The dog barked at the other dog.", "The dog barked at another cat."]],
        api_name="score",
    )


if __name__ == "__main__":
    build().launch()
