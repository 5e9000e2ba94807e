"""Figures of how a family's readers were trained, and of which part of the state they read."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from selmem.figures.family import by_size
from selmem.figures.style import BLACK, LINES, MARKERS, canvas, curve, length_axis, percent
from selmem.tables import length_name

_MILLION = 1e6


def state_parts(
    readers: pd.DataFrame, names: Mapping[str, str], layers: pd.DataFrame, *, title: str
) -> Figure:
    """Draw what readers of a part of the state recover, and what each layer's state is worth.

    Args:
        readers: rows of `controls` of one size over all sources, of the conditions in `names`.
        names: labels of the readers, that of the size's own probe first.
        layers: rows of `controls` over all sources whose condition is `other_layer_N`, all sizes.
        title: of the figure.
    """
    lengths = sorted({int(n) for n in layers["length"]})[-2:]
    highest = layers["bits_more_than_probe"].max()
    sizes = list(by_size(layers))
    own = str(readers["size"].iloc[0])
    looks = dict(zip(names, (sizes.index(own), *range(4, 4 + len(names))), strict=False))
    with canvas(1 + len(lengths), height=3.8, title=title) as (figure, axes):
        for condition, index in looks.items():
            part = readers[readers["condition"] == condition].sort_values("length")
            name = names[condition]
            curve(axes[0], part, "length", "recovered_fraction", label=name, index=index)
        length_axis(axes[0], sorted({int(n) for n in readers["length"]}))
        axes[0].set_xlabel("chunk length (tokens)")
        axes[0].set_title(f"{own}: readers of parts", fontsize=9.5)
        axes[0].set_ylabel("null bits recovered")
        percent(axes[0])
        for axis, length in zip(axes[1:], lengths, strict=True):
            for i, (size, part) in enumerate(by_size(layers[layers["length"] == length]).items()):
                part = part.sort_values("layer")
                part = part.assign(depth=part["layer"] / part["layer"].max())
                curve(axis, part, "depth", "bits_more_than_probe", label=size, index=i)
            axis.set_title(f"layer exchanged, {length_name(length)}", fontsize=9.5)
            axis.set_xlabel("place of the layer")
            axis.set_xticks([0, 0.5, 1], ["first", "", "last"])
            axis.set_yscale("symlog", linthresh=0.1)  # a layer that nobody reads costs about 0
            axis.set_ylim(-0.02, 2 * highest)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes[1].set_ylabel("bits per token lost by it")
        _two_lines(figure, axes[0].get_lines(), axes[-1].get_lines())
    return figure


def _two_lines(figure: Figure, *lines: list[Line2D]) -> None:
    """Put a legend below the figure with the named lines of each panel in a line of its own."""
    named = [[x for x in part if not str(x.get_label()).startswith("_")] for part in lines]
    n_columns = max(len(part) for part in named)
    empty = Line2D([], [], ls="", label=" ")
    filled = [part + [empty] * (n_columns - len(part)) for part in named]
    key = [part[i] for i in range(n_columns) for part in filled]
    figure.legend(handles=key, loc="outside lower center", ncols=n_columns)


def learning_curves(table: pd.DataFrame, lengths: Mapping[str, int], *, title: str) -> Figure:
    """Draw held-out bits against tokens seen, one panel for each kind of model.

    Args:
        table: rows of the study's `learning_curves`.
        lengths: of the text that is scored, by kind.
        title: of the figure.
    """
    sizes = list(dict.fromkeys(table["size"]))
    with canvas(len(lengths), height=3.7, title=title) as (figure, axes):
        for axis, (kind, length) in zip(axes, lengths.items(), strict=True):
            rows = table[(table["kind"] == kind) & (table["length"] == length)]
            rows = rows[(rows["tokens"] > 0) & rows["variant"].isin(("", "twice", "half"))]
            for (size, variant), part in rows.groupby(["size", "variant"], sort=False):
                index = sizes.index(size)
                axis.plot(
                    part["tokens"] / _MILLION,
                    part["bits"],
                    color=LINES[index % len(LINES)],
                    marker=MARKERS[index % len(MARKERS)],
                    markevery=[-1],
                    ls="-" if variant == "" else ":",
                    label=str(size) if variant == "" else "_",
                )
            axis.set_title(f"{kind}, {length_name(length)}", fontsize=9.5)
            axis.set_xlabel("million tokens seen")
        axes[0].set_ylabel("held-out bits per token")
        handles, labels = axes[0].get_legend_handles_labels()
        if table["variant"].isin(("twice", "half")).any():
            dotted = Line2D([], [], ls=":", color=BLACK, label="twice or half of the tokens")
            handles, labels = [*handles, dotted], [*labels, str(dotted.get_label())]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
