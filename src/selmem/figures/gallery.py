"""Which figures a report has, in which order, and what each says in plain words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from selmem.analysis.measurements import POOLED
from selmem.figures import bars, curves, forest
from selmem.tables import atomic_path

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Drawn:
    """A figure on disk.

    Attributes:
        name: file name without suffix.
        title: as a heading.
        caption: what it shows and how to read it.
        png: the file's bytes.
    """

    name: str
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class _Plan:
    name: str
    title: str
    caption: str
    draw: Callable[[Tables, str], Figure | None]


def draw_figures(tables: Tables, folder: Path, *, prefix: str = "") -> list[Drawn]:
    """Draw every figure that the tables of one model have data for, and write it as PNG.

    Args:
        tables: of one encoder and probe.
        folder: is made if it does not exist.
        prefix: of the file names.
    """
    main = pooled(tables)
    return [drawn for plan in PLANS for drawn in _drawn(plan, main, folder, prefix)]


def draw_model_figure(tables: Tables, folder: Path) -> list[Drawn]:
    """Draw the figure that compares models; nothing for one model.

    Args:
        tables: of all models, `omission` with a column `model`.
        folder: is made if it does not exist.
    """
    return list(_drawn(MODELS, pooled(tables), folder, ""))


def _drawn(plan: _Plan, tables: Tables, folder: Path, prefix: str) -> Iterator[Drawn]:
    figure = plan.draw(tables, plan.title)
    if figure is not None:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        name = f"{prefix}{plan.name}"
        with atomic_path(folder / f"{name}.png") as path:
            path.write_bytes(buffer.getvalue())
        yield Drawn(name, plan.title, plan.caption, buffer.getvalue())


def pooled(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return the rows over all sources, or of the only source; tables without sources whole."""
    found = dict(tables)
    for name, table in tables.items():
        if len(table) and "source" in table and name not in ("pairs", "too_short"):
            main = table[table["source"] == POOLED]
            found[name] = main if len(main) else table
    found["by_source"] = tables.get("omission", pd.DataFrame())
    return found


def _omission(scheme: str, *, rule: str = "count") -> Callable[[Tables, str], Figure | None]:
    def draw(tables: Tables, title: str) -> Figure | None:
        table = tables["omission"]
        return bars.omission_by_tag(table[table["scheme"] == scheme], rule=rule, title=title)

    return draw


def _retention(tables: Tables, title: str) -> Figure | None:
    if tables["lengths"]["length"].nunique() < 2:
        return None
    return curves.retention_by_length(tables["omission"], tables["lengths"], title=title)


def _sources(tables: Tables, title: str) -> Figure | None:
    table = tables["by_source"]
    table = table[
        (table["scheme"] == "all") & (table["tag"] == "whole") & (table["rule"] == "count")
    ]
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


def _simple(
    name: str, draw: Callable[..., Figure | None]
) -> Callable[[Tables, str], Figure | None]:
    return lambda tables, title: draw(tables[name], title=title) if len(tables[name]) else None


MODELS = _Plan(
    "models",
    "Models compared",
    "Words that greedy decoding does not recover, and the share of the null probe's bits that the "
    "state supplies, against chunk length. Each model has its own probe and null probe. Bands are "
    "95 % intervals by document.",
    lambda tables, title: curves.recovered_by_model(tables["omission"], title=title),
)

PLANS = (
    _Plan(
        "retention_by_length",
        "What comes back, by length",
        "Each line is one way of counting. Word and ROUGE scores give credit for words that any "
        "text would contain; retained over chance takes that out, and recovered bits also take "
        "out what the probe could have guessed from the words before. Bands are 95 % intervals by "
        "document.",
        _retention,
    ),
    _Plan(
        "bits_by_length",
        "Bits per token, with and without the state",
        "How surprised each reader is by a token when it is given the true text before it. The "
        "null probe was trained in the same way but sees no state; what the probe saves against it "
        "are the recovered bits. Where the null probe is worse than the encoder reading from an "
        "empty state, it is under-trained, and recovered bits are too high there.",
        _simple("bits", bars.bits_by_length),
    ),
    _Plan(
        "omission_by_pos",
        "Words not recovered, by part of speech",
        "Greedy reconstruction, counted as in Hossain et al. 2025: a word is omitted if its "
        "surface does not stand in the reconstruction. A diamond marks how often that would "
        "happen by chance, against the reconstructions of other documents: a bar far left of its "
        "diamond means that the state kept something. n is the number of words.",
        _omission("pos"),
    ),
    _Plan(
        "omission_by_entity",
        "Words not recovered, by entity",
        "As above, by entity type. Names have more tokens than other words, and a word is "
        "omitted if any token of it is wrong.",
        _omission("entity"),
    ),
    _Plan(
        "omission_by_kind",
        "Words not recovered, by kind of token",
        "As above, by what a word looks like: number, variable, operator, identifier and so on.",
        _omission("kind"),
    ),
    _Plan(
        "recovered_by_class",
        "Null bits recovered, by class",
        "The share of what the null probe could not predict that the state supplies. Unlike "
        "omission it gives no credit for chance and does not punish words of many tokens. The "
        "dashed line is the share over all words.",
        lambda tables, title: forest.recovered_by_tag(
            tables["omission"], ("pos", "entity", "kind"), title=title
        ),
    ),
    _Plan(
        "by_source",
        "By source",
        "The same measure for every source of text, over all words that no chunk border cuts.",
        _sources,
    ),
    _Plan(
        "by_position",
        "By position in the chunk",
        "Left: tokens that are not the probe's best guess although it is given the true text "
        "before them, so that one error does not cause the next. Right: null bits recovered. Open "
        "markers leave out the last four positions, whose embeddings the first layer's "
        "convolution state holds almost verbatim.",
        _simple("positions", curves.by_position),
    ),
    _Plan(
        "by_perplexity",
        "By the encoder's perplexity",
        "Omission of chunks that surprise the encoder little or much, in bins of 5 with at least "
        "3 chunks; grey bars show how many chunks each point stands for. The rank correlation is "
        "over chunks, its interval by document. Hollow points have fewer than 10 documents and no "
        "interval.",
        lambda tables, title: curves.by_perplexity(
            tables["perplexity"], tables["correlations"], title=title
        ),
    ),
    _Plan(
        "rarity",
        "Rare words",
        "Spearman correlation of a word's frequency with what is lost of it: positive with "
        "omission would mean that frequent words are lost more. Over word types, and over "
        "the means of the parts of speech; raw, and with tokens (and characters) per word held "
        "fixed. n is the number of points.",
        _rarity,
    ),
    _Plan(
        "effects",
        "Class, or rarity and tokens?",
        "How much more often words of a class are omitted than those of the most frequent class. "
        "Open circle: the plain difference. Filled: the average marginal effect in a regression "
        "that holds the number of tokens fixed, then also frequency, position, length and source, "
        "then also the null probe's bits. What shrinks to zero was explained by what was added.",
        _effects,
    ),
    _Plan(
        "fates",
        "What becomes of an omitted word",
        "Shares of the words omitted under the rule `aligned`: some tokens of it kept, other "
        "tokens in its place (of a word of the same class, of another class, or of no word that "
        "the annotation knows), or nothing in its place.",
        _fates,
    ),
    _Plan(
        "calibration",
        "Does the probe know when it is wrong?",
        "How often the probe's best guess is right, against the probability that it gives to it, "
        "the true text before it given. On the dashed line it is as sure as it should be. Grey "
        "bars show how many tokens each point stands for.",
        _simple("calibration", curves.calibration),
    ),
    _Plan(
        "controls",
        "Controls",
        "Bits per token when a part of the state is replaced, or under probes trained on less. It "
        "shows what this probe relies on, not what the state holds. With another document's state "
        "the probe is misled rather than uninformed, so it may need far more bits than the null.",
        _controls,
    ),
    _Plan(
        "controls_by_layer",
        "Controls by layer",
        "How many more bits per token the probe needs when one layer's state comes from another "
        "document (other) or is the mean over all texts of the length (mean).",
        _simple("controls", curves.controls_by_layer),
    ),
    _Plan(
        "pairs",
        "Two versions of the same text",
        "Loss of the first version minus loss of the second, paired by text: right of zero, "
        "the first loses more. Only pairs with similar numbers of tokens count.",
        _pairs,
    ),
)
