"""How every figure looks, and the parts that several of them share."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import RcParams, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from selmem.resampling import Floats

# Okabe and Ito 2008: distinguishable under every common colour blindness
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GREY = "#6b6b6b"
LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

DPI = 160
WIDTH = 9.0  # inches
MAX_PANELS = 3

_STYLE = RcParams(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.labelsize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#e3e3e3",
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "savefig.facecolor": "white",
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
    }
)


@contextmanager
def canvas(
    n_panels: int = 1, *, height: float = 3.6, title: str = "", **grid: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a white figure and its panels from left to right (then the next row, if any)."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        n_rows = len(grid.get("height_ratios", (1,)))
        axes = figure.subplots(n_rows, n_panels, squeeze=False, **grid)
        figure.suptitle(title, x=0.005, ha="left", fontweight="bold", fontsize=11.5)
        yield figure, list(axes.flat)


def percent(axes: Axes, *, axis: str = "y") -> None:
    """Write the ticks of an axis of fractions in percent."""
    formatter = PercentFormatter(1.0, decimals=0)
    (axes.yaxis if axis == "y" else axes.xaxis).set_major_formatter(formatter)


def points(axes: Axes) -> None:
    """Write the ticks of an x axis of differences of fractions in points, with their sign."""
    axes.xaxis.set_major_formatter(FuncFormatter(_in_points))


def _in_points(x: float, _: int | None) -> str:
    return f"{100 * x:+.3g}".replace("-", "\N{MINUS SIGN}") if abs(x) > 1e-9 else "0"


def limits(table: pd.DataFrame, name: str) -> tuple[Floats, Floats]:
    """Return the ends of the interval of column `name`, nan where there is none."""
    special = {
        "omission_rate": ("ci_low", "ci_high"),
        "effect": ("ci_low", "ci_high"),
        "loss_difference": ("ci_low", "ci_high"),
        "correlation": ("ci_low", "ci_high"),
        "retained_over_chance": ("retained_low", "retained_high"),
    }
    low, high = special.get(name, (f"{name}_low", f"{name}_high"))
    if low not in table and name == "recovered_fraction":
        low, high = "recovered_low", "recovered_high"
    return table[low].to_numpy(dtype=float), table[high].to_numpy(dtype=float)


def interval_ends(table: pd.DataFrame, name: str) -> tuple[Floats, Floats]:
    """Return how far the interval of column `name` reaches below and above it; 0 where unknown."""
    low, high = limits(table, name)
    value = table[name].to_numpy(dtype=float)
    return np.nan_to_num(np.maximum(value - low, 0)), np.nan_to_num(np.maximum(high - value, 0))


def keep_in_view(axes: Axes, table: pd.DataFrame, name: str) -> None:
    """Keep one very wide interval from squeezing all others: show twice the range of the values."""
    values = table[name].to_numpy(dtype=float)
    low, high = limits(table, name)
    room = max(float(np.ptp(values)), 0.1 * float(np.abs(values).max()))
    left = max(float(np.nanmin([*low, *values])), values.min() - room)
    right = min(float(np.nanmax([*high, *values])), values.max() + room)
    margin = 0.04 * (right - left) or 0.05
    axes.set_xlim(left - margin, right + margin)


def curve(
    axes: Axes, table: pd.DataFrame, x: str, y: str, *, label: str, index: int, **line: Any
) -> None:
    """Draw a line with its intervals as a band; points without an interval are hollow."""
    colour, marker = LINES[index % len(LINES)], MARKERS[index % len(MARKERS)]
    known = table[table[y].notna()]
    low, high = limits(known, y)
    values, places = known[y].to_numpy(dtype=float), known[x].to_numpy(dtype=float)
    options: dict[str, Any] = {"color": colour, "marker": marker, "label": label, **line}
    axes.plot(places, values, **options)
    axes.fill_between(places, low, high, color=colour, alpha=0.18, lw=0)
    bare = ~np.isfinite(low)
    axes.plot(places[bare], values[bare], ls="", marker=marker, mfc="white", mec=colour)


def pick(values: Iterable[int], most: int = MAX_PANELS) -> list[int]:
    """Return at most `most` of the values, evenly spread, with the first and the last."""
    ordered = sorted({int(v) for v in values})
    if len(ordered) <= most:
        return ordered
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[i] for i in places]


def length_axis(axes: Axes, lengths: Sequence[int]) -> None:
    """Make x a logarithmic axis of chunk lengths."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(lengths), [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set_xlabel("chunk length (tokens)")
