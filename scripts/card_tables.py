"""Write the tables behind a probe's card from a measurement, to be committed.

    python scripts/card_tables.py MEASURED NAME     e.g. outputs/tiny mamba-tiny-probe

MEASURED is what `selmem measure --controls --null-probe ...` wrote; the tables go to
hub_cards/tables/NAME. They are aggregates: no text, token or path is in them.

Time: about a minute for 2,000 chunks a source and length.
"""

import argparse
from pathlib import Path

from selmem.cards.tables import collect_card_tables

TABLES = Path(__file__).resolve().parents[1] / "hub_cards" / "tables"


def main() -> None:
    """Read the arguments and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path)
    parser.add_argument("name", help="of the probe's repository, without the namespace")
    parser.add_argument("--tables", type=Path, default=TABLES, help="default: hub_cards/tables")
    arguments = parser.parse_args()
    print(collect_card_tables(arguments.measured, arguments.tables / arguments.name))


if __name__ == "__main__":
    main()
