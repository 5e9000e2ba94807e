"""The effects of a word's frequency in the encoder's and in the reader's corpus."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from selmem.figures.style import BLACK, LINES, MARKERS, canvas, interval_ends
from selmem.tables import length_name

_PANELS: Mapping[str, str] = {
    "omission_aligned": "omission (points)",
    "recovered_bits": "recovered bits per word",
    "recovered_fraction": "recovered fraction (points)",
}
_ROWS: Mapping[str, str] = {
    "encoder": "rare to the encoder",
    "reader": "rare to the reader",
    "interaction": "both agree on it",
    "match": "both agree (other words)",
}


def causal_effects(table: pd.DataFrame) -> Figure | None:
    """Draw each effect with its interval over word pairs, one panel per outcome.

    Args:
        table: of `analysis.causal.causal_table`.
    """
    rows = table[(table["seed"] == "all") & table["group"].isin(("all", "other words"))]
    if not len(rows):
        return None
    lengths = sorted(rows["length"].unique())
    title = "What rarity does to a word: rare minus frequent"
    with canvas(len(_PANELS), height=1.9 + 0.3 * len(lengths), title=title, sharey=True) as drawn:
        figure, axes = drawn
        for panel, (outcome, label) in zip(axes, _PANELS.items(), strict=True):
            scale = 1.0 if outcome == "recovered_bits" else 100.0
            for i, length in enumerate(lengths):
                part = rows[(rows["outcome"] == outcome) & (rows["length"] == length)]
                part = part.set_index("effect").reindex(list(_ROWS)).dropna(subset="value")
                ends = part.rename(columns={"ci_low": "value_low", "ci_high": "value_high"})
                panel.errorbar(
                    part["value"] * scale,
                    [list(_ROWS).index(name) + 0.18 * i for name in part.index],
                    xerr=np.array(interval_ends(ends, "value")) * scale,
                    ls="",
                    marker=MARKERS[i % len(MARKERS)],
                    color=LINES[i % len(LINES)],
                    label=length_name(int(length)),
                )
            panel.axvline(0, color=BLACK, lw=1)
            panel.set_xlabel(label)
        axes[0].set_yticks(range(len(_ROWS)), list(_ROWS.values()))
        axes[0].invert_yaxis()
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(lengths)
        )
    return figure
