from io import BytesIO
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from selmem.analysis import analyse
from selmem.figures import draw_figures, pooled
from selmem.figures.captions import CAPTIONS
from selmem.figures.forest import by_length
from selmem.figures.plans import DRAWN
from selmem.figures.style import WIDTH, pick
from selmem.resampling import Resampling
from selmem.tables import length_name
from synthetic_tables import CONTROLS, loaded

FEW = Resampling(n_resamples=100, seed=1)


@pytest.fixture(scope="module")
def full():
    """Tables of everything that can be measured; enough documents for the regression."""
    m = loaded(sources=("aave", "sae", "gsm8k"), n_documents=12, controls=CONTROLS)
    return analyse([m], FEW)


@pytest.fixture(scope="module")
def bare():
    """Tables of one length, without null probe, annotation, counts and controls."""
    m = loaded(
        n_documents=6,
        lengths=(16,),
        null_probe=False,
        entities=False,
        frequencies=False,
        annotated=False,
    )
    return analyse([m], FEW)


def drawn(tables):
    main = pooled(tables)
    figures = {name: draw(main, CAPTIONS[name].title) for name, draw in DRAWN.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


@pytest.fixture(scope="module")
def figures(full):
    return drawn(full)


def texts(figure):
    """Return (text, box in pixels) of all that can be read in a figure."""
    FigureCanvasAgg(figure).draw()
    hidden = {label for axes in figure.axes for label in labels_out_of_view(axes)}
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    written = [a for a in found if a.get_text().strip() and a not in hidden]
    return [(a.get_text().strip(), a.get_window_extent()) for a in written]


def labels_out_of_view(axes):
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def test_every_plan_is_drawn_when_everything_was_measured(figures):
    assert set(figures) == set(DRAWN)


@pytest.mark.parametrize("name", list(DRAWN))
def test_no_text_is_cut_off(figures, name):
    figure = figures[name]
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in texts(figure):
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text


@pytest.mark.parametrize("name", list(DRAWN))
def test_every_panel_says_what_its_axes_are(figures, name):
    figure = figures[name]
    rows = figure.axes
    assert any(axes.get_xlabel() or len(axes.get_xticklabels()) for axes in rows)
    assert rows[0].get_ylabel() or rows[0].get_yticklabels()[0].get_text()
    bottom = [axes for axes in rows if axes.get_subplotspec().is_last_row()]
    assert all(axes.get_xlabel() or axes.get_xticklabels()[0].get_text() for axes in bottom)


@pytest.mark.parametrize(
    "name", ["omission_by_pos", "recovered_by_class", "rarity", "controls", "fates", "pairs"]
)
def test_row_labels_do_not_overlap(figures, name):
    axes = figures[name].axes[0]
    FigureCanvasAgg(figures[name]).draw()
    boxes = sorted((t.get_window_extent() for t in axes.get_yticklabels()), key=lambda b: b.y0)
    assert all(a.y1 <= b.y0 + 1 for a, b in pairwise(boxes))


def test_omission_bars_show_rates_intervals_chance_and_counts(full, figures):
    table = pooled(full)["omission"]
    rows = table[
        (table["scheme"] == "pos") & (table["rule"] == "count") & (table["length"] == 16)
    ].set_index("tag")
    axes = figures["omission_by_pos"].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.patches[: len(names)]]
    np.testing.assert_allclose(widths, rows.loc[names, "omission_rate"])
    chance = next(line for line in axes.lines if line.get_marker() == "D")
    np.testing.assert_allclose(chance.get_xdata(), rows.loc[names, "chance_rate"])
    assert sum(rows["ci_low"].notna()) == len(axes.collections[0].get_segments())
    written = {text for text, _ in texts(figures["omission_by_pos"])}
    assert {f"{n:,}" for n in rows.loc[rows["n_documents"] >= 10, "n_words"]} <= written


def test_groups_of_too_few_documents_are_marked_instead_of_given_an_interval(bare):
    m = loaded(n_documents=6, lengths=(16,))
    figure = drawn(analyse([m], FEW))["omission_by_entity"]
    assert any("6 docs)" in text for text, _ in texts(figure))
    assert not any(c.get_segments() for c in figure.axes[0].collections)
    assert "omission_by_entity" not in drawn(bare)


def test_a_point_without_interval_is_hollow_to_the_eye():
    table = pd.DataFrame(
        {
            "tag": ["few", "many"],
            "length": 16,
            "share": [0.2, 0.8],
            "share_low": [np.nan, 0.7],
            "share_high": [np.nan, 0.9],
        }
    )
    figure = by_length(table, "tag", "share", ["few", "many"], title="", xlabel="share")
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    pixels = np.asarray(drawn.buffer_rgba())[::-1]  # rows from the bottom up, as axes count
    for place, x, is_hollow in ((0, 0.2, True), (1, 0.8, False)):
        column, row = figure.axes[0].transData.transform((x, place)).round().astype(int)
        assert (pixels[row, column, :3].min() > 240) == is_hollow


def test_what_was_not_measured_is_left_out(bare):
    assert set(drawn(bare)) == {"bits_by_length", "by_position", "calibration", "controls"}


def test_files_are_white_sharp_and_wide_enough_for_a_readme(full, tmp_path):
    few = {**full, "positions": full["positions"].iloc[:0]}
    made = draw_figures(few, tmp_path, prefix="x-")
    assert "x-by_position" not in {figure.name for figure in made}
    for figure in made:
        assert (tmp_path / f"{figure.name}.png").read_bytes() == figure.png
        image = Image.open(BytesIO(figure.png))
        assert image.info["dpi"][0] >= 150
        assert image.width >= WIDTH * 150
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        assert len(figure.caption) > 40


def test_lengths_are_picked_evenly_with_both_ends():
    assert pick([4, 8, 16, 32, 64, 128, 256]) == [4, 32, 256]
    assert pick(pd.Series([64, 16, 16])) == [16, 64]
    assert length_name(0) == "whole texts"
