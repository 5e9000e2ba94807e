"""Draw the study's figures from the committed tables.

    python scripts/study_figures.py            # into hub_cards/figures
    python scripts/study_figures.py OUT        # into another folder

Written are OUT/study/*.png and the picture of every size's card, OUT/mamba-own-SIZE-probe.png. The
tables are those that study_tables.py writes; a figure whose table is absent is not drawn.
Time: 15 seconds.
"""

import argparse
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from study_measures import CARD
from study_runs import CONTROLLED, PROBE_RATES

from selmem.analysis.measurements import POOLED
from selmem.cards.picture import draw_card_picture
from selmem.figures import family, family_models
from selmem.figures.causal import causal_effects
from selmem.figures.curves import all_words
from selmem.tables import WHOLE_TEXT, atomic_path, length_name

ROOT = Path(__file__).resolve().parents[1]
FIGURES = "hub_cards/figures/study"
LENGTH = 64  # tokens, of the figures that show one length
STATEMENTS = {
    "length": "longer texts",
    "position": "earlier tokens",
    "numbers": "numbers",
    "variables": "variables",
    "organisations": "names of organisations",
    "dialect": "African-American English",
    "maths": "maths",
    "code": "code",
    "rarity": "rare words",
    "perplexity": "texts that surprise the encoder",
}
READERS = {
    "probe": "whole state",
    "deep": "whole state, extra layers",
    "ssm": "SSM state alone",
    "conv": "convolution alone",
}
LOSSES = {
    "omission_count": "omission (count)",
    "omission_aligned": "omission (aligned)",
    "omission_over_chance": "omission over chance",
    "recovered_fraction": "bits not recovered",
    "rouge1_f1": "1 - ROUGE-1 F1",
}
RARITY = {
    "omission_count": "omission (count)",
    "omission_aligned": "omission (aligned)",
    "recovered_bits": "recovered bits per word",
    "recovered_fraction": "share of bits recovered",
}
OF_CARDS = ("omission", "lengths", "positions", "controls")
KINDS = {"encoder": 512, "probe": LENGTH, "null probe": LENGTH}


class Committed:
    """The committed tables of the study below `root`, read when they are asked for."""

    def __init__(self, root: Path) -> None:
        self.study = root / "scripts" / "results" / "study"
        self.cards = root / "hub_cards" / "tables"
        self.figures = root / FIGURES

    def folders(self) -> dict[str, Path]:
        """Return the folder of every size's card tables that is there."""
        named = {size: self.cards / CARD.format(size) for size in PROBE_RATES}
        return {size: folder for size, folder in named.items() if folder.is_dir()}

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of the whole study; no rows where it is absent."""
        path = self.study / f"{name}.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame()

    def has(self, name: str) -> bool:
        """Whether a table of the whole study or of any size's card is there."""
        return len(self.family(name) if name in OF_CARDS else self.table(name)) > 0

    def family(self, name: str, *, pooled: bool = True) -> pd.DataFrame:
        """Return a table of every size's card, one after the other, over all sources or of each."""
        parts = [
            pd.read_parquet(folder / f"{name}.parquet").assign(size=size)
            for size, folder in self.folders().items()
        ]
        found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        return found[found["source"] == POOLED] if pooled and len(found) else found


def figures(committed: Committed) -> Iterator[tuple[str, Figure]]:
    """Yield the name of every figure that there are tables for, and the figure."""
    for name, (make, needed) in MAKERS.items():
        absent = [table for table in needed if not committed.has(table)]
        figure = None if absent else make(committed)
        if figure is None:
            print(f"not drawn: {name}; absent: {', '.join(absent) or 'such rows'}")
        else:
            yield name, figure


def retention(tables: Committed) -> Figure | None:
    """Return what comes back against length, by size."""
    words = tables.table("common_words")
    words = words[words["source"] == POOLED]
    rows = tables.family("omission")
    if not (len(words) and len(rows)):
        return None
    return family.retention(rows, words, title="What comes back, by size")


def classes(tables: Committed) -> Figure | None:
    """Return omission and recovered bits by part of speech and entity."""
    rows = tables.family("omission").query("rule == 'count' and length == @LENGTH")
    if not len(rows):
        return None
    entities, parts = family.class_order(rows)
    rows = rows[rows["scheme"].isin(("pos", "entity"))]
    title = "By part of speech and by entity"
    return family.loss_by_row(
        rows, "tag", entities + parts, length=LENGTH, title=title, breaks=[len(entities)]
    )


def sources(tables: Committed) -> Figure | None:
    """Return omission and recovered bits by source."""
    rows = all_words(tables.family("omission", pooled=False)).query("length == @LENGTH")
    order = family.source_order(rows)
    if len(order) < 2:
        return None
    return family.loss_by_row(rows, "source", order, length=LENGTH, title="By source of the text")


def positions(tables: Committed) -> Figure | None:
    """Return recovered bits along the chunk."""
    rows = tables.family("positions")
    lengths = [n for n in (16, 64, 256) if n in set(rows["length"])]
    return family.positions(rows, lengths, title="By position in the chunk") if lengths else None


def claims(tables: Committed) -> Figure | None:
    """Return the effects behind the verdicts."""
    rows = tables.table("verdicts")
    rows = rows[rows["claim"].isin(STATEMENTS) & (rows["verdict"] != "not measured")]
    at = rows[rows["length"] == LENGTH]
    whole = rows[(rows["length"] == WHOLE_TEXT) & ~rows["claim"].isin(set(at["claim"]))]
    if not len(rows):
        return None
    title = f"Is more lost of ...? At {LENGTH} tokens; dialects on whole texts"
    return family.claims(pd.concat([at, whole]), STATEMENTS, title=title)


def rarity(tables: Committed) -> Figure | None:
    """Return correlations with frequency, and differences between two versions of a text."""
    ranks = tables.table("correlations")
    ranks = ranks[(ranks["source"] == POOLED) & (ranks["length"] == LENGTH)]
    ranks = ranks[(ranks["predictor"] == "log10 word frequency") & (ranks["level"] != "pos")]
    held = ranks["adjusted_for"].map(lambda names: ", adjusted" if names else "")
    ranks = ranks.assign(row=ranks["outcome"].map(RARITY) + held)
    pairs = tables.table("pairs").query("length == @WHOLE_TEXT and not concatenated")
    pairs = pairs[(pairs["first"] == "AAE") & (pairs["second"] == "SAE")]
    pairs = pairs.assign(row=pairs["outcome"].map(LOSSES))
    panels = (
        (ranks, "correlation", f"rank correlation with frequency, {length_name(LENGTH)}"),
        (pairs, "loss_difference", "AAE minus SAE in points, whole texts"),
    )
    shown = [
        (table, name, label, 1.0 if name == "correlation" else 100.0)
        for table, name, label in panels
        if len(table)
    ]
    if not shown:
        return None
    return family.outcomes(shown, "row", title="Frequent words, and two dialects")


def state(tables: Committed) -> Figure | None:
    """Return what readers of parts recover, and what single layers are worth; None without both."""
    rows = tables.family("controls")
    readers = rows[(rows["size"] == CONTROLLED) & rows["condition"].isin(READERS)]
    layers = rows[rows["condition"].str.startswith("other_layer_")]
    names = {name: label for name, label in READERS.items() if name in set(readers["condition"])}
    lengths = set(layers["length"])
    readers = readers[readers["length"].isin(lengths)]
    if not len(readers):
        return None
    return family_models.state_parts(
        readers, names, layers, title="Which part of the state is read"
    )


def learning_curves(tables: Committed) -> Figure:
    """Return the learning curves of the family and of the budgets that they are compared with."""
    rows = tables.table("learning_curves")
    rows = rows.assign(order=rows["size"].map(list(PROBE_RATES).index))
    rows = rows.sort_values("order", kind="stable")
    return family_models.learning_curves(rows, KINDS, title="Learning curves")


MAKERS: dict[str, tuple[Callable[[Committed], Figure | None], tuple[str, ...]]] = {
    "retention": (retention, ("omission", "common_words")),
    "classes": (classes, ("omission",)),
    "sources": (sources, ("omission",)),
    "positions": (positions, ("positions",)),
    "claims": (claims, ("verdicts",)),
    "rarity": (rarity, ("correlations", "pairs")),
    "state": (state, ("controls",)),
    "causal": (lambda tables: causal_effects(tables.table("causal")), ("causal",)),
    "learning_curves": (learning_curves, ("learning_curves",)),
}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of few colours, a third of the size of one of all colours."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with Image.open(buffer) as picture, atomic_path(path) as temporary:
        small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        small.save(temporary, format="png", optimize=True)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "hub_cards" / "figures")
    parser.add_argument("--root", type=Path, default=ROOT, help="default: this repository")
    arguments = parser.parse_args()
    committed = Committed(arguments.root)
    for folder in committed.folders().values():
        print(draw_card_picture(folder, arguments.out / f"{folder.name}.png"))
    for name, figure in figures(committed):
        save(figure, arguments.out / "study" / f"{name}.png")
        print(arguments.out / "study" / f"{name}.png")


if __name__ == "__main__":
    main()
