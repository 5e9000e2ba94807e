"""Which figure shows which table; None where nothing was measured for it."""

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.figure import Figure

from selmem.analysis.measurements import POOLED
from selmem.figures import bars, curves, forest

Tables = Mapping[str, pd.DataFrame]
Draw = Callable[[Tables, str], Figure | None]


def _omission(scheme: str, *, rule: str = "count") -> Draw:
    def draw(tables: Tables, title: str) -> Figure | None:
        table = tables["omission"]
        return bars.omission_by_tag(table[table["scheme"] == scheme], rule=rule, title=title)

    return draw


def _retention(tables: Tables, title: str) -> Figure | None:
    if tables["lengths"]["length"].nunique() < 2:
        return None
    return curves.retention_by_length(tables["omission"], tables["lengths"], title=title)


def _sources(tables: Tables, title: str) -> Figure | None:
    table = curves.all_words(tables["by_source"])
    table = table[table["source"] != POOLED]
    has_bits = table["recovered_fraction"].notna().any()
    name = "recovered_fraction" if has_bits else "retained_over_chance"
    order = table.groupby("source")[name].mean().sort_values().index
    if len(order) < 2:
        return None
    return forest.by_length(
        table,
        "source",
        name,
        [str(source) for source in order],
        title=title,
        xlabel="null bits recovered" if has_bits else "words retained over chance",
        unit="percent",
        n_column="n_words",
    )


def _controls(tables: Tables, title: str) -> Figure | None:
    table = tables["controls"]
    table = table[table["layer"] < 0]
    extra = [c for c in table["condition"].unique() if c not in _FIXED]
    order = [*reversed(extra), *(c for c in reversed(_FIXED) if c in set(table["condition"]))]
    return forest.by_length(
        table,
        "condition",
        "bits",
        order,
        title=title,
        xlabel="bits per token (fewer is better)",
        n_column="n_tokens",
        names={c: c.replace("_", " ") for c in order},
    )


_LOSSES = {
    "omission_count": "omission (count)",
    "omission_aligned": "omission (aligned)",
    "omission_over_chance": "omission over chance",
    "recovered_fraction": "null bits not recovered",
    "rouge1_f1": "1 - ROUGE-1 F1",
}
_OUTCOMES = {
    **_LOSSES,
    "recovered_bits": "recovered bits per word",
    "recovered_fraction": "share of bits recovered",
}
_FIXED = ("oracle", "probe", "null", "encoder from empty state")


def _fates(tables: Tables, title: str) -> Figure | None:
    table = tables["fates"]
    if not len(table):
        return None
    table = table[table["tag"] == "all"]
    fates = [c for c in table.columns if f"{c}_low" in table.columns]
    rows = [
        pd.DataFrame(
            {
                "fate": fate,
                "length": table["length"],
                "n_omitted_words": table["n_omitted_words"],
                "n_documents": table["n_documents"],
                "share": table[fate],
                "share_low": table[f"{fate}_low"],
                "share_high": table[f"{fate}_high"],
            }
        )
        for fate in fates
    ]
    return forest.by_length(
        pd.concat(rows),
        "fate",
        "share",
        list(reversed(fates)),
        title=title,
        xlabel="share of the omitted words (aligned)",
        unit="percent",
        n_column="n_omitted_words",
    )


def _effects(tables: Tables, title: str) -> Figure | None:
    table = tables["effects"]
    if not len(table):
        return None
    return forest.effects_by_tag(table[table["words"] == "all classes"], title=title)


def _pairs(tables: Tables, title: str) -> Figure | None:
    table = tables["pairs"]
    if not len(table):
        return None
    outcome = table["outcome"].map(_LOSSES)
    texts = table["source"].map(lambda name: f" ({name})" if name else "")
    row = table["first"] + " minus " + table["second"] + texts + ": " + outcome
    table = table.assign(row=row, n_documents=table["n_pairs"])
    return forest.by_length(
        table,
        "row",
        "loss_difference",
        list(reversed(list(dict.fromkeys(table["row"])))),
        title=title,
        xlabel="difference in loss, in percentage points",
        unit="points",
        n_column="n_pairs",
    )


def _rarity(tables: Tables, title: str) -> Figure | None:
    table = tables["correlations"]
    table = table[table["predictor"] == "log10 word frequency"]
    if not len(table):
        return None
    held = table["adjusted_for"].map(lambda names: "adjusted" if names else "raw")
    outcome = table["outcome"].map(_OUTCOMES)
    level = table["level"].replace({"pos": "part of speech"})
    table = table.assign(row=outcome + ", by " + level + ", " + held)
    return forest.by_length(
        table,
        "row",
        "correlation",
        list(reversed(list(dict.fromkeys(table["row"])))),
        title=title,
        xlabel="rank correlation with log10 word frequency",
        n_column="n_points",
    )


def _simple(name: str, draw: Callable[..., Figure | None]) -> Draw:
    return lambda tables, title: draw(tables[name], title=title) if len(tables[name]) else None


def draw_models(tables: Tables, title: str) -> Figure | None:
    """Draw all models against each other; None for one."""
    return curves.recovered_by_model(tables["omission"], title=title)


DRAWN: Mapping[str, Draw] = {
    "retention_by_length": _retention,
    "common_words": _simple("common_words", curves.common_words),
    "bits_by_length": _simple("bits", bars.bits_by_length),
    "omission_by_pos": _omission("pos"),
    "omission_by_entity": _omission("entity"),
    "omission_by_kind": _omission("kind"),
    "recovered_by_class": lambda tables, title: forest.recovered_by_tag(
        tables["omission"], ("pos", "entity", "kind"), title=title
    ),
    "by_source": _sources,
    "by_position": _simple("positions", curves.by_position),
    "by_perplexity": lambda tables, title: curves.by_perplexity(
        tables["perplexity"], tables["correlations"], title=title
    ),
    "rarity": _rarity,
    "effects": _effects,
    "fates": _fates,
    "calibration": _simple("calibration", curves.calibration),
    "controls": _controls,
    "controls_by_layer": _simple("controls", curves.controls_by_layer),
    "pairs": _pairs,
}
