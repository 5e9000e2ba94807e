"""Bars and curves as HTML and SVG without scripts; every value also stands there as text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from selmem.space.html_text import EN_DASH, attribute, share_text, text_html

WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 44
_MARKS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A rate with its interval, and rates to set beside it; all fractions in [0, 1].

    Attributes:
        label: what it is the rate of.
        value: the rate.
        count: what stands in the column of numbers ("5 of 6", "1,234").
        low: of the interval; None where there is none.
        high: likewise.
        beside: another rate, drawn as a mark; None where there is none.
    """

    label: str
    value: float
    count: str
    low: float | None = None
    high: float | None = None
    beside: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """A curve: (x, y) in ascending x, with the interval of each y where there is one."""

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float] | None] = ()


def bar_table(bars: Sequence[Bar], headings: Sequence[str], *, caption: str) -> str:
    """Return a table of bars.

    Args:
        bars: one a row.
        headings: of the columns label, rate, count, and, where a bar has it, of the other rate.
        caption: what the table shows.
    """
    label, rate, count, *beside = headings
    more = f'<th scope="col" class="sm-number">{text_html(beside[0])}</th>' if beside else ""
    head = (
        f'<tr><th scope="col">{text_html(label)}</th>'
        f'<th scope="col" colspan="2">{text_html(rate)}</th>'
        f'<th scope="col" class="sm-number">{text_html(count)}</th>{more}</tr>'
    )
    rows = "".join(_bar_row(bar, has_beside=bool(beside)) for bar in bars)
    return (
        f'{caption_html(caption)}<div class="sm-scroll"><table class="sm-bars">'
        f"<thead>{head}</thead><tbody>{rows}</tbody></table></div>"
    )


def caption_html(text: str) -> str:
    """Return what stands above a table; outside of it, so that it wraps where the table scrolls."""
    return f'<p class="sm-caption">{text_html(text)}</p>' if text else ""


def _bar_row(bar: Bar, *, has_beside: bool) -> str:
    drawn = f'<span class="sm-bar" style="width:{_percent(bar.value)}"></span>'
    interval = ""
    if bar.low is not None and bar.high is not None:
        width = _percent(max(bar.high - bar.low, 0))
        drawn += f'<span class="sm-interval" style="left:{_percent(bar.low)};width:{width}"></span>'
        interval = f" <small>{bar.low:.0%}{EN_DASH}{bar.high:.0%}</small>"
    if bar.beside is not None:
        drawn += f'<span class="sm-beside" style="left:{_percent(bar.beside)}"></span>'
    more = ""
    if has_beside:
        more = f'<td class="sm-number">{share_text(bar.beside)}</td>'
    return (
        f'<tr><th scope="row">{text_html(bar.label)}</th>'
        f'<td class="sm-track" aria-hidden="true"><div>{drawn}</div></td>'
        f'<td class="sm-number">{bar.value:.0%}{interval}</td>'
        f'<td class="sm-number">{text_html(bar.count)}</td>{more}</tr>'
    )


def _percent(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"


def curve_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    x_ticks: Sequence[tuple[float, str]],
    log2: bool = False,
) -> str:
    """Return an SVG of fractions against x, with a legend; negative values are drawn as 0.

    Args:
        series: at most four; each has a colour, a line style and a mark of its own.
        title: says what is shown; with the values, it is what a screen reader says.
        x_label: what x is.
        x_ticks: (x, text), ascending; the first and the last bound the axis.
        log2: whether every doubling of x, which is then positive, has the same width.
    """
    place = _Place(x_ticks[0][0], x_ticks[-1][0], log2)
    values = "; ".join(
        f"{one.name}: " + ", ".join(f"{x:g}: {y:.0%}" for x, y in one.points) for one in series
    )
    drawn = "".join(_drawn(one, i, place) for i, one in enumerate(series))
    key = " ".join(_key(one.name, i) for i, one in enumerate(series))
    return (
        f'<figure class="sm-figure"><figcaption>{text_html(title)}</figcaption>'
        f'<p class="sm-legend">{key}</p>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{attribute(f"{title}. {values}")}">'
        f"{_axes(place, x_label, x_ticks)}{drawn}</svg></figure>"
    )


@dataclass(frozen=True)
class _Place:
    low: float
    high: float
    log2: bool

    def x(self, value: float) -> float:
        low, high, at = (math.log2(v) if self.log2 else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = 1 - min(max(value, 0.0), 1.0)
        return round(_TOP + share * (HEIGHT - _TOP - _BOTTOM), 1)


def _axes(place: _Place, x_label: str, x_ticks: Sequence[tuple[float, str]]) -> str:
    lines = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = place.y(share)
        lines.append(
            f'<line class="sm-grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        )
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    for value, text in x_ticks:
        x = place.x(value)
        lines.append(
            f'<text x="{x}" y="{HEIGHT - _BOTTOM + 17}" text-anchor="middle">'
            f"{text_html(text)}</text>"
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    lines.append(
        f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{text_html(x_label)}</text>'
    )
    return "".join(lines)


def _drawn(one: Series, index: int, place: _Place) -> str:
    name = f"sm-series-{index}"
    path = " ".join(f"{place.x(x)},{place.y(y)}" for x, y in one.points)
    parts = [f'<polyline class="{name}" points="{path}"/>']
    for (x, _), interval in zip(one.points, one.intervals, strict=False):
        if interval is not None:
            x0, low, high = place.x(x), place.y(interval[0]), place.y(interval[1])
            parts.append(
                f'<line class="{name} sm-whisker" x1="{x0}" x2="{x0}" y1="{low}" y2="{high}"/>'
            )
    parts += [
        f'<g class="{name}">{_mark(index, place.x(x), place.y(y))}'
        f"<title>{text_html(f'{one.name}, {x:g}: {y:.0%}')}</title></g>"
        for x, y in one.points
    ]
    return "".join(parts)


def _key(name: str, index: int) -> str:
    return (
        f'<span class="sm-key"><svg class="sm-key-line" viewBox="0 0 36 12" aria-hidden="true">'
        f'<polyline class="sm-series-{index}" points="1,6 35,6"/>'
        f'<g class="sm-series-{index}">{_mark(index, 18, 6)}</g></svg> {text_html(name)}</span>'
    )


def _mark(index: int, x: float, y: float) -> str:
    shape = _MARKS[index % len(_MARKS)]
    if shape == "circle":
        return f'<circle cx="{x}" cy="{y}" r="4"/>'
    if shape == "square":
        return f'<rect x="{x - 3.5}" y="{y - 3.5}" width="7" height="7"/>'
    if shape == "diamond":
        return f'<path d="M{x} {y - 5}l5 5-5 5-5-5z"/>'
    return f'<path d="M{x} {y - 5}l5 9h-10z"/>'
