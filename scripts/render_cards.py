"""Render the cards of the bundled models, and of the study's, as they would go to the Hub.

    python scripts/render_cards.py             # rewrites hub_cards/cards
    python scripts/render_cards.py OUT         # into another folder

Every number on them comes from the models' training records and from hub_cards/tables. Of the
study's models the records are committed without the weights (scripts/results/study/models); a probe
that was not yet measured gets no card. Time: 5 seconds.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from study_records import count_parameters

from selmem import bundled_path
from selmem.cards.models import model_card
from selmem.tables import write_text

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ("mamba-tiny", "mamba-tiny-probe", "mamba-tiny-null-probe")


def cards(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield name and card of every model whose numbers are committed below `root`."""
    templates = root / "hub_cards"
    for name in BUNDLED:
        yield name, model_card(bundled_path(name), f"selmem/{name}", templates)
    for path in sorted((root / "scripts/results/study/models").glob("*")):
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        is_probe = config.get("condition", "none") != "none"
        if is_probe and not (templates / "tables" / path.name).is_dir():
            print(f"no card: {path.name} is not yet measured")
            continue
        n_parameters, _ = count_parameters(config)
        repo_id = f"selmem/{path.name}"
        yield path.name, model_card(path, repo_id, templates, n_parameters=n_parameters)


def main() -> None:
    """Read the argument and write the cards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "hub_cards" / "cards")
    out = parser.parse_args().out
    for name, card in cards():
        write_text(out / f"{name}.md", card)


if __name__ == "__main__":
    main()
