r"""Write the tables behind a probe's card, the demo's page Explore and the README's picture.

    python scripts/card_tables.py FOLDER NAME [--controls FOLDER ...]

FOLDER is what `selmem report` wrote about one probe, whatever its sources, or what `selmem measure`
wrote. The tables go to hub_cards/tables/NAME, the picture to hub_cards/figures/NAME.png; both are
to be committed, and the cards rendered again (scripts/render_cards.py). They are aggregates: no
text, token or path is in them. Further folders, where controls were measured, give the table of
controls more rows.

The committed ones are of the bundled models and text (scripts/reproduce.sh makes them again):

    selmem measure --encoder $B/mamba-tiny --probe $B/mamba-tiny-probe \
        --null-probe $B/mamba-tiny-null-probe --data selmem_sample=$B/sample/documents.jsonl \
        --lengths 4 8 16 32 64 --max-chunks 150 --controls --out outputs/tiny
    python scripts/card_tables.py outputs/tiny mamba-tiny-probe

with B=src/selmem/bundled. Time: two minutes to measure and half a minute to analyse, on one core.
"""

import argparse
from pathlib import Path

from selmem.cards.picture import draw_card_picture
from selmem.cards.tables import collect_card_tables

TABLES = Path(__file__).resolve().parents[1] / "hub_cards" / "tables"


def main() -> None:
    """Read the arguments and write tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a report or a measurement")
    parser.add_argument("name", help="of the probe's repository, without the namespace")
    parser.add_argument(
        "--controls", type=Path, nargs="+", default=[], help="folders with more controls"
    )
    parser.add_argument("--tables", type=Path, default=TABLES, help="default: hub_cards/tables")
    arguments = parser.parse_args()
    tables = arguments.tables / arguments.name
    print(collect_card_tables(arguments.folder, tables, controls=arguments.controls))
    print(draw_card_picture(tables, arguments.tables.parent / f"figures/{arguments.name}.png"))


if __name__ == "__main__":
    main()
