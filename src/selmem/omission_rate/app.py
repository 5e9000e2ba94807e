# SPDX-License-Identifier: Apache-2.0
"""The page of this metric: two texts in, their omission rate out."""

from pathlib import Path
from typing import Any

import evaluate
import gradio

# the look of the project's demo; nothing is fetched from elsewhere
LAUNCH: dict[str, Any] = {
    "theme": gradio.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ),
    "footer_links": ["api"],
    "run_history": False,
    "ssr_mode": False,
}


def score(reference: str, prediction: str) -> dict[str, Any]:
    """Return the metric of one pair of texts, without what one pair cannot have."""
    if not reference.strip():
        message = "The reference is empty: type or paste at least one word."
        raise gradio.Error(message, title="Not possible", print_exception=False)
    metric = evaluate.load(str(Path(__file__).with_name("omission_rate.py")))
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
        flagging_mode="never",
        analytics_enabled=False,
    )


if __name__ == "__main__":
    build().queue(max_size=20).launch(**LAUNCH)
