"""Make the examples that the demo shows before any model is loaded.

    python scripts/space_examples.py

reads beginnings of bundled texts with the bundled models and writes
spaces/reconstruction/examples.json. Make it again whenever the bundled models change; a test says
so. Time: under a minute on two cores. Other models: --encoder E --probe P --null-probe N.
"""

import argparse
import json
from pathlib import Path

from selmem.bundle import bundled_path
from selmem.space.examples import Example, write_examples
from selmem.space.models import ModelChoice, ModelStore, bundled_choice
from selmem.space.reading import Annotator, read_text

OUT = Path(__file__).parents[1] / "spaces" / "reconstruction" / "examples.json"

# label of the button, document of the bundled sample, and where its beginning ends
BEGINNINGS = (
    ("Short", "dialogue-004", "the cheapest way there is."),
    ("News", "news-001", "Nobody was hurt."),
    ("Maths", "maths-002", "How many children came?"),
    ("Code", "code-002", '"1h 30m" into seconds.'),
    ("Dialogue", "dialogue-001", "Well, she never said."),
    ("Law", "law-003", "produce the receipt;"),
    ("Science", "science-001", "1954, 1987 and 2019."),
)


def main() -> None:
    """Write the examples and print what came back of each."""
    arguments = _arguments()
    choice = _choice(arguments)
    loaded = ModelStore([choice]).load(choice.name)
    annotator = Annotator()
    texts = _texts()
    examples = [
        Example(label, read_text(loaded, _beginning(texts[doc_id], end), annotator))
        for label, doc_id, end in BEGINNINGS
    ]
    write_examples(arguments.out, examples, fingerprint=loaded.models.encoder.fingerprint)
    for example in examples:
        words = example.reading.whole_words
        lost = sum(word.omitted_aligned for word in words)
        tokens = example.reading.n_tokens
        print(f"{example.label:10} {tokens:4} tokens, {lost} of {len(words)} words not recovered")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--encoder", "--probe", "--null-probe"):
        parser.add_argument(name, help="folder; the bundled one if left out")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def _choice(arguments: argparse.Namespace) -> ModelChoice:
    if not arguments.encoder:
        return bundled_choice()
    return ModelChoice(
        name=Path(arguments.probe).name,
        encoder=arguments.encoder,
        probe=arguments.probe,
        null_probe=arguments.null_probe,
    )


def _texts() -> dict[str, str]:
    lines = (bundled_path("sample") / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["doc_id"]: row["text"] for row in rows}


def _beginning(text: str, end: str) -> str:
    return text[: text.index(end) + len(end)]


if __name__ == "__main__":
    main()
