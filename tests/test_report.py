from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from selmem.errors import InputError
from selmem.report import load_tables, summary, write_report
from selmem.resampling import Resampling
from selmem.tables import OMISSION, read_metadata
from synthetic_tables import CONTROLS, write_measurement

FEW = Resampling(n_resamples=100, seed=1)
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def of(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Two models, one source with a name that must be escaped."""
    folder = tmp_path_factory.mktemp("report")
    common = {"sources": ("news", "a<b>&c"), "n_documents": 16, "lengths": (8, 16)}
    common["controls"] = CONTROLS
    small = write_measurement(folder / "small", **common)
    large = write_measurement(folder / "large", encoder="x/tiny-370m", intercept=-2.5, **common)
    write_report([small, large], folder / "out", resampling=FEW)
    return folder


@pytest.fixture(scope="module")
def page(reported):
    return Page(reported / "out" / "report.html")


def test_the_report_asks_for_nothing_else(page):
    sources = [a.get("src", "") for a in page.of("img")]
    assert len(sources) >= 20
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert page.of("script") == []
    links = [a["href"] for a in page.of("a") + page.of("link")]
    assert all(link.startswith(("#", "data:")) for link in links)
    styles = (page.words[i] for i in range(len(page.words)) if "{" in page.words[i])
    assert not any("url(" in style or "@import" in style for style in styles)


def test_every_link_of_the_contents_leads_somewhere(page):
    anchors = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = {a["href"][1:] for a in page.of("a")}
    assert links <= anchors
    assert {"models", "words", "limits"} <= links


def test_every_picture_has_words_for_those_who_do_not_see_it(page):
    assert all(len(image["alt"]) > 40 for image in page.of("img"))


def test_names_of_sources_are_escaped(page):
    assert "a<b>&c" in page.text
    assert page.of("b") == []


def test_tables_are_written_with_their_schema_and_where_they_come_from(reported):
    out = reported / "out"
    assert pq.read_schema(out / "omission.parquet").remove_metadata() == OMISSION
    metadata = read_metadata(out / "omission.parquet")
    assert metadata["n_resamples"] == 100
    assert len(metadata["runs"]) == 2
    tables = load_tables(out)
    assert {"omission", "verdicts", "models", "positions", "controls"} <= set(tables)
    figures = {path.name for path in (out / "figures").iterdir()}
    assert "models.png" in figures
    assert "tiny-130m-tiny-130m-probe-omission_by_pos.png" in figures


def test_numbers_in_the_report_are_those_of_the_tables(page, reported):
    omission = load_tables(reported / "out")["omission"]
    row = omission[
        (omission["encoder"] == "tiny-130m")
        & (omission["source"] == "all sources")
        & (omission["length"] == 16)
        & (omission["tag"] == "NUM")
        & (omission["scheme"] == "pos")
        & (omission["rule"] == "count")
    ].iloc[0]
    low, high = (f"{100 * row[end]:.1f}" for end in ("ci_low", "ci_high"))
    omitted, chance = (f"{100 * row[name]:.1f}" for name in ("omission_rate", "chance_rate"))
    assert f"{row['tokens_per_word']:.2f} {omitted} [{low}, {high}] {chance} " in page.text


def test_models_are_compared_and_verdicts_stand_in_the_report(page):
    assert "Smaller models lose more." in page.text
    assert "Numbers are lost more than other words." in page.text
    badges = [a["class"] for a in page.of("span") if "badge" in a.get("class", "")]
    assert len(badges) == 40


def test_the_same_tables_give_the_same_report(tmp_path):
    folder = write_measurement(tmp_path / "m", n_documents=3, lengths=(4,), frequencies=False)
    pages = [
        write_report([folder], tmp_path / name, resampling=FEW).read_bytes() for name in ("a", "b")
    ]
    assert pages[0] == pages[1]


def test_the_report_may_go_into_the_measured_folder(tmp_path):
    folder = write_measurement(
        tmp_path / "m",
        n_documents=6,
        lengths=(4,),
        null_probe=False,
        entities=False,
        frequencies=False,
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    page = Page(write_report([folder], folder, resampling=FEW))
    for sentence in (
        "No null probe was measured",
        "No source has entities",
        "No word counts were given",
        "No controls were measured",
        "Below 10 documents no interval is given",
        "docs: too few",
    ):
        assert sentence in page.text
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert not list(folder.rglob("*.part"))


def test_text_without_words_still_gives_a_report(tmp_path):
    folder = write_measurement(tmp_path / "m", n_documents=6, lengths=(16,), annotated=False)
    page = Page(write_report([folder], tmp_path / "out", resampling=FEW))
    assert "No word was annotated" in page.text
    assert "null bits recovered" in page.text
    assert "no omission by class" in summary(load_tables(tmp_path / "out"))


def test_wrong_input_leaves_nothing_behind(reported, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="does not exist"):
        write_report([tmp_path / "nowhere"], tmp_path / "out", resampling=FEW)
    assert not (tmp_path / "out").exists()
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setattr("selmem.report.write.analyse", pytest.fail)
    with pytest.raises(InputError, match="cannot write"):
        write_report([reported / "small"], blocked, resampling=FEW)
    with pytest.raises(InputError, match=r"omission\.parquet does not exist"):
        load_tables(tmp_path)


def test_the_summary_fits_a_terminal_and_holds_the_rates(reported):
    tables = load_tables(reported / "out")
    text = summary(tables)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("read by") == 2
    omission = tables["omission"]
    row = omission[
        (omission["encoder"] == "tiny-130m")
        & (omission["source"] == "all sources")
        & (omission["tag"] == "ORG")
        & (omission["rule"] == "count")
        & (omission["scheme"] == "entity")
        & (omission["length"] == 8)
    ].iloc[0]
    line = next(line for line in text.splitlines() if line.startswith("  ORG"))
    assert f"{100 * row['omission_rate']:.1f} [" in line
    assert "no entity" in text


def test_the_summary_says_where_documents_are_too_few():
    names = ["encoder", "probe", "source", "length", "scheme", "tag", "rule"]
    row = dict(zip(names, ["e", "p", "s", 16, "all", "whole", "count"], strict=True))
    numbers = {"omission_rate": 0.5, "ci_low": np.nan, "ci_high": np.nan, "chance_rate": np.nan}
    table = pd.DataFrame([{**row, **numbers, "n_documents": 7, "recovered_fraction": np.nan}])
    assert "50.0 [7 docs] / \N{EN DASH}" in summary({"omission": table})
