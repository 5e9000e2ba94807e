"""Render the cards of the bundled models as they would go to the Hub.

    python scripts/render_cards.py             # rewrites hub_cards/cards
    python scripts/render_cards.py OUT         # into another folder

Every number on them comes from the models' training records and from hub_cards/tables.
Time: a second.
"""

import argparse
from pathlib import Path

from selmem import bundled_path
from selmem.cards.models import model_card
from selmem.tables import write_text

TEMPLATES = Path(__file__).resolve().parents[1] / "hub_cards"
MODELS = ("mamba-tiny", "mamba-tiny-probe", "mamba-tiny-null-probe")


def main() -> None:
    """Read the argument and write the cards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=TEMPLATES / "cards")
    out = parser.parse_args().out
    for name in MODELS:
        card = model_card(bundled_path(name), f"selmem/{name}", TEMPLATES)
        write_text(out / f"{name}.md", card)


if __name__ == "__main__":
    main()
