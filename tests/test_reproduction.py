"""What is committed of tables, figures and cards is what scripts/reproduce.sh makes again."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from compare import differences  # noqa: E402
from render_cards import cards  # noqa: E402

TEMPLATES = ROOT / "hub_cards"


def test_committed_cards_are_what_the_tables_and_templates_give():
    rendered = dict(cards())
    committed = {path.stem: path.read_text("utf-8") for path in (TEMPLATES / "cards").iterdir()}
    assert set(rendered) == set(committed), "run scripts/render_cards.py"
    for name, card in rendered.items():
        assert card == committed[name], f"{name}: run scripts/render_cards.py"


def test_script_compares_every_committed_folder():
    script = (ROOT / "scripts" / "reproduce.sh").read_text(encoding="utf-8")
    for folder in TEMPLATES.iterdir():
        if folder.is_dir():
            assert f" hub_cards/{folder.name}" in script


@pytest.fixture
def folders(tmp_path):
    """Return a folder of a table, a text and a figure, and its copy."""
    committed = tmp_path / "committed"
    committed.mkdir()
    frame = pd.DataFrame({"tag": ["a", "b", None], "rate": [0.5, 0.25, None], "n": [1, 2, 3]})
    frame.to_parquet(committed / "table.parquet")
    frame.to_csv(committed / "table.csv")
    (committed / "card.md").write_text("A card\n")
    shutil.copyfile(TEMPLATES / "figures" / "mamba-tiny-probe.png", committed / "figure.png")
    return Path(shutil.copytree(committed, tmp_path / "made")), committed


def test_the_same_files_do_not_differ(folders):
    assert list(differences(*folders)) == []


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("rate", 0, 0.55, "1 of 3 rows of rate, first row 0: 0.55, committed is 0.5"),
        ("rate", 2, 0.1, "1 of 3 rows of rate"),
        ("rate", 0, None, "1 of 3 rows of rate"),
        ("tag", 1, "c", "1 of 3 rows of tag"),
        ("n", 0, 9, "1 of 3 rows of n"),
    ],
)
def test_another_value_is_told_by_its_column(folders, column, row, value, message):
    made, _ = folders
    frame = pd.read_parquet(made / "table.parquet")
    frame.loc[row, column] = value
    frame.to_parquet(made / "table.parquet")
    assert message in next(differences(*folders))


def test_rounding_is_no_difference(folders):
    made, _ = folders
    frame = pd.read_parquet(made / "table.parquet")
    frame["rate"] += 1e-4
    frame.to_parquet(made / "table.parquet")
    assert list(differences(*folders)) == []


def test_other_text_another_size_and_a_missing_file_are_told(folders):
    made, _ = folders
    (made / "card.md").write_text("Another\n")
    picture = bytearray((made / "figure.png").read_bytes())
    picture[16:24] = (5).to_bytes(4) * 2
    (made / "figure.png").write_bytes(picture)
    (made / "table.csv").unlink()
    frame = pd.read_parquet(made / "table.parquet")
    frame.head(2).to_parquet(made / "table.parquet")
    found = "\n".join(differences(*folders))
    for part in ("the text differs", "(5, 5) pixels", "was not made", "2 rows of tag, rate, n"):
        assert part in found
