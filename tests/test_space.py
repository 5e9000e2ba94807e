"""What the demo shows of a text and of the published tables, without its widgets."""

import ast
import csv
import io
import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pyarrow as pa
import pytest

from selmem.chunks import cut_chunk, tokenize_document
from selmem.documents import Document
from selmem.errors import InputError
from selmem.hub.known_sentences import KNOWN_SENTENCES, SENTENCE_TOKENS
from selmem.measurement import MeasureConfig, measure
from selmem.space import models as space_models
from selmem.space.charts import Bar, Series, bar_table, curve_chart
from selmem.space.examples import Example, read_examples, write_examples
from selmem.space.explore import (
    Selection,
    first_selection,
    nearest_selection,
    panels,
    position_rows,
    tag_rows,
)
from selmem.space.groups import group_words, summary_sentences
from selmem.space.html_text import EN_DASH, attribute, text_html
from selmem.space.marked_text import marked_reconstruction, marked_text, null_guesses
from selmem.space.models import ModelChoice, ModelStore, read_choices
from selmem.space.published import Published, study_rates
from selmem.space.reading import Annotator, clean, read_text, written_words
from selmem.space.records import LengthPoint, Piece, Reading, WordRecord
from selmem.space.service import Service
from selmem.space.shown import show
from selmem.space.verdicts import verdict_table
from selmem.tables import OMISSION, read_table, write_table
from selmem.tokenization import decode
from space_server import APP, ROOT
from space_tables import PROBE, omission_row, write_tables
from tiny_release import make_release

COMMITTED = ROOT / "hub_cards" / "tables"
TEXT = "She bought two red apples and a loaf of bread. A small dog was sleeping."
NOTHING_PUBLISHED = Published(None)


@pytest.fixture(scope="module")
def choice(tmp_path_factory):
    release = make_release(tmp_path_factory.mktemp("release"))
    return ModelChoice(
        name="mamba-tiny-probe",
        encoder=str(release.encoder),
        probe=str(release.probe),
        null_probe=str(release.null_probe),
    )


@pytest.fixture(scope="module")
def loaded(choice):
    return ModelStore([choice]).load(choice.name)


@pytest.fixture(scope="module")
def annotator():
    return Annotator()


@pytest.fixture(scope="module")
def reading(loaded, annotator):
    return read_text(loaded, TEXT, annotator)


class Visible(HTMLParser):
    """Collects text outside of <small>, and checks that the tags are balanced."""

    def __init__(self, html):
        super().__init__()
        self.text, self.open, self.found = "", [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in {"line", "circle", "rect", "path", "polyline", "br"}:
            self.open.append(tag)
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in {"line", "circle", "rect", "path", "polyline"}:
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "small" not in self.open:
            self.text += data


def paragraph(html):
    """Return the text of the marked paragraph, without the signs under the words."""
    found = re.search(r'<p class="sm-text[^>]*>.*?</p>', html, re.DOTALL)
    return Visible(found.group()).text


def test_a_reading_says_what_measure_writes_into_its_tables(loaded, reading, tmp_path):
    source = tmp_path / "text.jsonl"
    source.write_text(json.dumps({"doc_id": "a", "text": TEXT}) + "\n")
    measure(
        MeasureConfig(
            encoder=loaded.choice.encoder,
            probe=loaded.choice.probe,
            null_probe=loaded.choice.null_probe,
            data=(f"text={source}",),
            lengths=(reading.n_tokens,),
            out=tmp_path / "out",
        )
    )
    [summary] = read_table(tmp_path / "out/reconstructions.parquet").to_pylist()
    assert (reading.text, reading.reconstruction) == (summary["reference"], summary["text"])
    assert reading.null_bits == pytest.approx(summary["null_bits"], abs=1e-3)
    assert reading.recovered_bits == pytest.approx(summary["recovered_bits"], abs=1e-3)
    rows = read_table(tmp_path / "out/words.parquet").to_pylist()
    assert len(rows) == len(reading.words) > 0
    assert {word.pos for word in reading.words} >= {"NOUN", "VERB", "DET"}
    for word, row in zip(reading.words, rows, strict=True):
        assert (word.start, word.end) == (row["char_start"], row["char_end"])
        for name in ("pos", "entity", "kind", "cut", "omitted_aligned", "omitted_forced"):
            assert getattr(word, name) == row[name], name
        assert word.omitted_count == pytest.approx(row["omitted_count"], abs=1e-4)
        assert word.recovered_bits == pytest.approx(row["recovered_bits"], abs=2e-3)


def test_each_point_over_length_is_the_reading_of_the_first_tokens_alone(loaded, reading):
    document = Document(doc_id="text", source="text", text=TEXT)
    tokenized = tokenize_document(document, loaded.tokenizer)
    assert [point.tokens for point in reading.lengths] == [4, 8, 16, reading.n_tokens]
    for point in reading.lengths[:-1]:
        beginning = cut_chunk(tokenized, loaded.tokenizer, point.tokens, 0).text
        alone = read_text(loaded, beginning, Annotator(_tried=True)).lengths[-1]
        assert alone.tokens == point.tokens, "the beginning is tokenized as it was"
        assert alone.recovered_fraction == pytest.approx(point.recovered_fraction, abs=2e-3)
    fractions = {point.recovered_fraction for point in reading.lengths}
    assert len(fractions) == 4, "nothing changes with length, so this proves nothing"


def test_a_text_that_the_probe_knows_is_written_back_whole(loaded, annotator):
    ids = loaded.tokenizer(KNOWN_SENTENCES[1])["input_ids"][:SENTENCE_TOKENS]
    known = read_text(loaded, decode(loaded.tokenizer, ids), annotator)
    assert known.exact_match
    assert known.text == known.reconstruction
    assert not any(word.omitted_aligned for word in known.words)
    assert f"wrote the whole text back, all {len(known.words)} words" in summary_sentences(known)
    assert "sm-omitted" not in marked_text(known).split("sm-view-bits")[0].split("</p>", 1)[1]
    assert "sm-added" not in marked_reconstruction(known).split("</p>", 1)[1]


def test_a_long_text_is_cut_at_the_probes_length_and_the_page_says_so(loaded, annotator):
    million = "The bridge was closed. " * 50_000
    reading = read_text(loaded, million, annotator)
    assert reading.n_tokens == 32
    assert million.startswith(reading.text)
    assert "Only the beginning of the text was read: 32 tokens, that is" in reading.note
    assert f"of {len(million.strip()):,} characters" in reading.note
    assert reading.note in unescape(show(reading, NOTHING_PUBLISHED).summary)
    assert not read_text(loaded, TEXT, annotator).note


def test_a_cut_does_not_split_a_character(loaded, annotator):
    reading = read_text(loaded, "😀" * 40, annotator)
    assert set(reading.text) == {"😀"}
    assert 28 < reading.n_tokens <= 32


@pytest.mark.parametrize("text", ["", "   \n\t ", "\u2003"])
def test_a_text_without_words_is_refused(text):
    with pytest.raises(InputError, match="There is no text: type or paste at least one word"):
        clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script> & <b>bold</b>",
        "${1+1} {{value}} `x` {this}",
        "Family 👩‍👩‍👧 and flags 🇸🇪 😀",
        "مرحبا بالعالم hello",
        "你好 世界。今天",
        "bell \x07 null \x00 turn \u202e back \x1b[31m",
        "half \ud83d pair",
        "e\u0301 and é",
        "<|endoftext|> twice",
        "a\r\nb\tc",
    ],
)
def test_any_text_is_shown_as_it_is_and_never_as_markup(loaded, annotator, text):
    reading = read_text(loaded, text, annotator)
    shown = show(reading, NOTHING_PUBLISHED)
    for panel in shown.values():
        Visible(panel)
        assert "<script" not in panel
        assert "<b>" not in panel
        assert not set(panel) & {"\x00", "\x07", "\x1b", "\u202e", "\r", "$", "`", "{", "}"}
        panel.encode("utf-8")
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for sign, picture in {
        "\x07": "␇",
        "\x00": "␀",
        "\x1b": "␛",
        "\r": "␍",
        "\u202e": "U+202E",
    }.items():
        expected = expected.replace(sign, picture)
    for view in re.findall(r'<div class="sm-view .*?</div>', shown.text, re.DOTALL):
        if len(reading.text) == len(text):  # not cut at the probe's length
            assert paragraph(view) == expected


def test_marks_of_the_text_are_those_of_its_words(reading):
    html = marked_text(reading)
    words = html.split('<div class="sm-view sm-view-bits">')[0].split('dir="auto">')[1]
    assert words.count('<del class="sm-omitted"') == sum(w.omitted_aligned for w in reading.words)
    assert words.count('<span class="sm-kept"') == sum(not w.omitted_aligned for w in reading.words)
    sure = html.split('<div class="sm-view sm-view-sure">')[1].split('dir="auto">')[1]
    assert sure.count("sm-wrong") == sum(w.omitted_forced for w in reading.words)
    assert paragraph(html) == TEXT
    assert paragraph(marked_reconstruction(reading)) == reading.reconstruction
    assert paragraph(null_guesses(reading)) == TEXT


def test_a_written_word_counts_only_with_all_its_tokens(loaded):
    text = "She bought bread."
    ids = loaded.tokenizer(text)["input_ids"]
    spans = loaded.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    of_bread = [i for i, (start, end) in enumerate(spans) if start < 16 and end > 11]
    assert len(of_bread) > 1
    changed = list(ids)
    changed[of_bread[-1]] = loaded.tokenizer("x")["input_ids"][0]
    pieces = list(written_words(ids, changed, loaded.tokenizer))
    assert [piece.matched for piece in pieces] == [True, True, False, True]
    assert all(piece.matched for piece in written_words(ids, ids, loaded.tokenizer))


def word(text, start, *, omitted=False, pos="NOUN", bits=4.0, **changes):
    fields = {
        "start": start,
        "end": start + len(text),
        "pos": pos,
        "entity": "O",
        "kind": "word",
        "cut": False,
        "omitted_count": float(omitted),
        "omitted_aligned": omitted,
        "omitted_forced": omitted,
        "null_bits": 8.0,
        "recovered_bits": bits,
        "guess": text,
        "confidence": 0.5,
        "null_guess": "it",
        "null_right": False,
    }
    return WordRecord(**fields | changes)


def made_up(words, text, **changes):
    fields = {
        "model": "m",
        "text": text,
        "note": "",
        "n_tokens": 8,
        "reconstruction": "one more",
        "exact_match": False,
        "null_bits": 80.0,
        "recovered_bits": 20.0,
        "words": tuple(words),
        "written": (
            Piece(start=0, end=3, matched=True),
            Piece(start=4, end=8, matched=False),
        ),
        "lengths": (
            LengthPoint(tokens=4, n_words=2, retained=1.0, recovered_fraction=0.5),
            LengthPoint(tokens=8, n_words=3, retained=0.25, recovered_fraction=-0.1),
        ),
    }
    return Reading(**fields | changes)


def seven_words():
    text = "one two three four five six seven"
    spans = [(found.group(), found.start()) for found in re.finditer(r"\w+", text)]
    tags = ["NUM"] * 3 + ["VERB"] * 3 + ["DET"]
    lost = [True, True, True, False, False, True, False]
    words = [
        word(surface, start, omitted=omitted, pos=pos)
        for (surface, start), pos, omitted in zip(spans, tags, lost, strict=True)
    ]
    return made_up(words, text)


def test_the_sentence_names_the_classes_that_lost_most_and_least():
    assert summary_sentences(seven_words()) == (
        "4 of 7 words were not recovered by this probe. Lost most: numerals (3 of 3). "
        "Lost least: verbs (1 of 3). When it guesses each next word from the true text before, "
        "the state saves it 20 of 80 bits (25%)."
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"words": ()}, "There is no whole word in this text."),
        ({"recovered_bits": -3.0}, "the state does not help it."),
        ({"null_bits": None, "recovered_bits": None}, "Lost least: verbs (1 of 3)."),
    ],
)
def test_the_sentence_fits_what_was_measured(changes, expected):
    reading = seven_words()
    changed = Reading(**{**vars(reading), **changes})
    assert summary_sentences(changed).endswith(expected)


def test_groups_count_whole_words_only_and_add_up():
    reading = seven_words()
    groups = {group.tag: (group.n_omitted, group.n_words) for group in group_words(reading, "pos")}
    assert groups == {"NUM": (3, 3), "VERB": (1, 3), "DET": (0, 1)}
    cut = (*reading.words[:-1], word("seven", 28, pos="DET", cut=True))
    groups = group_words(Reading(**{**vars(reading), "words": cut}), "pos")
    assert [group.tag for group in groups] == ["NUM", "VERB"]


def test_entity_types_of_the_tagger_are_counted_as_the_study_counts_them():
    words = [word("a", 0, entity="GPE"), word("b", 2, entity="LOC"), word("c", 4, entity="DATE")]
    groups = {group.tag: group.n_words for group in group_words(made_up(words, "a b c"), "entity")}
    assert groups == {"LOC": 2, "O": 1}


def test_without_a_tagger_words_have_a_kind_and_the_page_says_so(loaded):
    reading = read_text(loaded, TEXT, Annotator(_tried=True))
    assert {word.pos for word in reading.words} == {None}
    assert {word.kind for word in reading.words} == {"word", "punctuation"}
    assert reading.note.startswith("No part-of-speech tagger is installed here")
    groups = show(reading, NOTHING_PUBLISHED).groups
    assert "Kind of word" in groups
    assert "Part of speech" not in groups
    assert "plain words" in summary_sentences(reading) or "punctuation" in groups


def test_without_a_null_probe_there_are_no_recovered_bits(choice, annotator):
    alone = ModelChoice(name="alone", encoder=choice.encoder, probe=choice.probe)
    reading = read_text(ModelStore([alone]).load("alone"), TEXT, annotator)
    shown = show(reading, NOTHING_PUBLISHED)
    assert reading.null_bits is None
    assert "Without a null probe there are no recovered bits" in shown.text
    assert "There is no null probe for this model" in shown.null_guesses
    assert "bits recovered" not in shown.lengths.split("<details>")[0]


def test_bits_have_a_shade_and_a_number():
    words = [word("ab", 0, bits=bits) for bits in (-3.0, 0.2, 1.0, 3.0, 5.0, 9.0, 20.0)]
    html = marked_text(made_up([words[0]], "ab"))
    assert "sm-shade-minus" in html.split("dir=")[2]
    assert "<small>\N{MINUS SIGN}3</small>" in html
    shades = [
        re.search(r"sm-gloss sm-shade-(\w+)", marked_text(made_up([one], "ab"))).group(1)
        for one in words
    ]
    assert shades == ["minus", "0", "1", "2", "3", "4", "5"]


def test_readings_survive_json(reading, tmp_path):
    write_examples(tmp_path / "examples.json", [Example("One", reading)], fingerprint="abc")
    assert read_examples(tmp_path / "examples.json") == (Example("One", reading),)
    assert json.loads((tmp_path / "examples.json").read_text())["encoder_fingerprint"] == "abc"
    assert read_examples(tmp_path / "none.json") == ()
    (tmp_path / "old.json").write_text('{"examples": [{"label": "a", "reading": {}}]}')
    with pytest.raises(InputError, match=r"make it again with scripts/space_examples\.py"):
        read_examples(tmp_path / "old.json")


def test_an_unknown_model_is_refused_and_the_offered_ones_are_named(choice):
    store = ModelStore([choice])
    with pytest.raises(InputError, match=r"'evil/model' is not offered here; offered: mamba-tiny"):
        store.load("evil/model")
    with pytest.raises(InputError) as raised:
        store.load("x" * 10_000)
    assert len(str(raised.value)) < 300


def test_a_model_that_does_not_load_is_refused_without_naming_folders(choice, tmp_path, caplog):
    broken = ModelChoice(name="broken", encoder=str(tmp_path / "gone"), probe=choice.probe)
    with pytest.raises(
        InputError, match="the model broken cannot be loaded at the moment"
    ) as raised:
        ModelStore([broken]).load("broken")
    assert str(tmp_path) not in str(raised.value)
    assert str(tmp_path) in caplog.text


def test_only_the_last_used_models_stay_in_memory(monkeypatch):
    loads = []
    monkeypatch.setattr(space_models, "_load", lambda one: loads.append(one.name) or one)
    names = ("a", "b", "c")
    store = ModelStore([ModelChoice(name=n, encoder="e", probe="p") for n in names], kept=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        store.load(name)
    assert loads == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"encoder": "a/b"}, r"an entry has \['encoder'\]"),
        ({"encoder": "a/b", "probe": "c/d", "code": "e/f"}, "an entry has"),
        ({"encoder": "../b", "probe": "/etc/passwd"}, "is no Hub id"),
        ({"encoder": "a/b", "probe": "c"}, "'c' is no Hub id"),
    ],
)
def test_the_list_of_models_holds_hub_ids_and_nothing_else(tmp_path, entry, message):
    path = tmp_path / "models.json"
    path.write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=message):
        read_choices(path)


@pytest.fixture
def tables(tmp_path):
    return write_tables(tmp_path / "tables")


SELECTION = Selection(model=PROBE, source="news", length=64, scheme="pos", rule="aligned")


def linked_csv(html):
    """Return the rows of the CSV behind a panel's link."""
    text = unquote(re.search(r'href="data:text/csv;charset=utf-8,([^"]*)"', html).group(1))
    return list(csv.DictReader(io.StringIO(text)))


def test_panels_show_the_published_rows_and_their_csv_holds_them(tables):
    published = Published(tables)
    shown = panels(published, SELECTION)
    for panel in vars(shown).values():
        Visible(panel)
    expected = tag_rows(published, SELECTION)
    assert [row["tag"] for row in expected] == ["NOUN", "DET"]
    rows = linked_csv(shown.tags)
    assert [list(row) for row in rows] == [OMISSION.names] * 2
    assert [float(row["omission_rate"]) for row in rows] == [0.5, 0.25]
    for text in ("nouns", "50%", "40%", "60%", "1,234", "90%"):
        assert text in Visible(shown.tags).text + shown.tags, text
    assert [row["length"] for row in linked_csv(shown.lengths)] == ["16", "64", "16", "64"]
    assert [int(row["position"]) for row in linked_csv(shown.positions)] == list(range(16))
    assert "Numbers are lost &lt;more&gt;." in shown.verdicts
    assert "undecided" in shown.verdicts
    assert [row["length"] for row in linked_csv(shown.verdicts)] == ["64", "0"]


def verdict_row(statement, length, verdict, value=float("nan")):
    numbers = dict.fromkeys(("ours_paper_rule", "ours_controlled", "ci_low", "ci_high"), value)
    row = {"statement": statement, "length": length, "verdict": verdict, "paper": "at 256: 51 %"}
    return row | numbers


def test_verdicts_are_one_row_a_claim_with_other_lengths_beside():
    rows = [
        verdict_row("Numbers.", 0, "seen here", 0.2),
        verdict_row("Numbers.", 8, "undecided", 0.1),
        verdict_row("Numbers.", 16, "seen here", -0.25),
        verdict_row("Numbers.", 32, "seen here", 0.3),
        verdict_row("Dialects.", 16, "not measured"),
        verdict_row("Dialects.", 32, "too short"),
        verdict_row("Longer.", 32, "not seen here", 0.004),
    ]
    body = re.findall(r"<tr>(.*?)</tr>", verdict_table(rows, 16))[1:]
    cells = [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t", row)] for row in body]
    minus = "\N{MINUS SIGN}0.250"
    assert cells == [
        [
            "Numbers.",
            "at 256: 51 %",
            minus,
            f"{minus} [{minus}, {minus}]",
            "seen here",
            "8: undecided; 32, whole texts: seen here",
        ],
        ["Dialects.", "at 256: 51 %", EN_DASH, EN_DASH, "not measured", EN_DASH],
        ["Longer.", "at 256: 51 %", EN_DASH, EN_DASH, EN_DASH, "32: not seen here"],
    ]
    assert "whole texts of all sources together" in verdict_table(rows, 0)


def test_every_selection_of_the_committed_tables_has_its_panels():
    published = Published(COMMITTED)
    assert set(published.models) == {folder.name for folder in COMMITTED.iterdir()}
    for model in published.models:
        start = Selection(**vars(first_selection(published)) | {"model": model})
        for panel in vars(panels(published, nearest_selection(published, start))).values():
            Visible(panel)
    chosen = Selection(**vars(first_selection(published)) | {"model": "mamba-tiny-probe"})
    for source in published.options("source", probe=chosen.model):
        for length in published.options("length", probe=chosen.model, source=source):
            selection = Selection(**vars(chosen) | {"source": source, "length": length})
            shown = panels(published, selection)
            for panel in vars(shown).values():
                Visible(panel)
            kinds = Selection(**vars(selection) | {"scheme": "kind"})
            assert {"word"} <= {row["tag"] for row in tag_rows(published, kinds)}, (source, length)
            assert (len(position_rows(published, selection)) > 0) == (length > 0)
            assert "Numbers are lost" in shown.verdicts


def test_the_documented_call_for_tables_runs_on_the_committed_ones(choice):
    about = (APP / "about.md").read_text()
    call = re.search(r"`client\.predict\((.*?), api_name=\"/omission\"\)`", about).group(1)
    service = Service(store=ModelStore([choice]), published=Published(COMMITTED))
    rows = service.omission(*ast.literal_eval(f"({call})"))
    assert {row["length"] for row in rows} == {64}
    assert {row["rule"] for row in rows} == {"aligned"}
    assert "NOUN" in {row["tag"] for row in rows}


def test_changing_the_selection_changes_the_rows(tables):
    published = Published(tables)
    maths = nearest_selection(published, Selection(**vars(SELECTION) | {"source": "maths"}))
    assert (maths.source, maths.length) == ("maths", 16), "maths has no texts of 64 tokens"
    assert {row["source"] for row in tag_rows(published, maths)} == {"maths"}
    nothing = Selection(**vars(SELECTION) | {"scheme": "entity"})
    assert "no words have a named entity" in panels(published, nothing).tags


def test_the_layout_of_the_published_dataset_is_read_too(tables, tmp_path):
    target = tmp_path / "dataset/data/omission/mamba_tiny_probe.parquet"
    target.parent.mkdir(parents=True)
    (tables / "mamba-tiny-probe/omission.parquet").rename(target)
    published = Published(tmp_path / "dataset")
    assert published.models == [PROBE]
    assert len(tag_rows(published, SELECTION)) == 2
    assert "No table of positions is published" in panels(published, SELECTION).positions


def test_the_folder_of_a_report_is_read_too(tables):
    folder = tables / "mamba-tiny-probe"
    (folder / "tables").mkdir()
    shutil.copy(folder / "omission.parquet", folder / "tables")
    (folder / "positions.parquet").rename(folder / "tables/positions.parquet")
    published = Published(tables)
    assert len(tag_rows(published, SELECTION)) == 2, "the table that is there twice counts once"
    assert len(position_rows(published, SELECTION)) == 16


@pytest.mark.parametrize("folder", [None, "empty"])
def test_without_tables_there_is_nothing_to_select(folder, tmp_path):
    published = Published(folder and tmp_path / folder)
    assert published.models == []
    assert first_selection(published) is None
    with pytest.raises(InputError, match="there are tables of: no model"):
        panels(published, SELECTION)


def test_the_published_rate_of_the_nearest_length_stands_beside_that_of_a_text(tables):
    published = Published(tables)
    assert study_rates(published, "mamba-tiny-probe", scheme="pos", n_tokens=9) is None, "2 sources"
    rows = [omission_row("NOUN", length, "aligned", source="all sources") for length in (16, 64)]
    rows[1]["omission_rate"] = 0.75
    path = tables / "mamba-tiny-probe/omission.parquet"
    write_table(pa.Table.from_pylist(rows, OMISSION), path, metadata={})
    rates = study_rates(Published(tables), "other/mamba-tiny-probe", scheme="pos", n_tokens=50)
    assert (rates.length, rates.by_tag) == (64, {"NOUN": 0.75})
    assert study_rates(Published(tables), "another-probe", scheme="pos", n_tokens=50) is None
    reading = Reading(**{**vars(seven_words()), "model": "mamba-tiny-probe", "n_tokens": 60})
    with_noun = Reading(**{**vars(reading), "words": (word("one", 0, omitted=True),)})
    groups = show(with_noun, Published(tables)).groups
    assert "the published rate at 64 tokens" in groups
    assert "75%" in groups


def test_the_api_refuses_what_the_tables_do_not_hold(tables, choice):
    service = Service(store=ModelStore([choice]), published=Published(tables))
    assert len(service.omission(PROBE, "news", 64)) == 2
    with pytest.raises(InputError, match=r"no published rows for 'news' at 12 tokens.*16, 64"):
        service.omission(PROBE, "news", 12)
    with pytest.raises(InputError, match="'words' is not one of pos, entity, kind"):
        service.omission(PROBE, "news", 64, scheme="words")
    with pytest.raises(InputError, match="there are no tables of 'none'"):
        service.omission("none", "news", 64)


def test_bars_show_their_numbers_and_stay_inside():
    html = bar_table(
        [Bar(label="<nouns>", value=1.2, count="5", low=0.9, high=1.4, beside=-0.1)],
        ("Tag", "rate", "words", "chance"),
        caption="Rates",
    )
    Visible(html)
    assert "&lt;nouns&gt;" in html
    widths = [float(found) for found in re.findall(r"(?:width|left):([\d.]+)%", html)]
    assert max(widths) <= 100
    assert min(widths) >= 0


def test_curves_say_their_values_to_a_screen_reader():
    series = [Series(name="kept", points=[(4, 1.0), (8, 0.5)], intervals=[(0.9, 1.0), None])]
    ticks = [(4.0, "4"), (8.0, "8")]
    html = curve_chart(series, title="T", x_label="tokens", x_ticks=ticks, log2=True)
    Visible(html)
    assert 'aria-label="T. kept: 4: 100%, 8: 50%"' in html
    assert html.count("sm-whisker") == 1


def test_attributes_cannot_be_left():
    assert attribute('" onclick="x') == "&quot; onclick=&quot;x"
    assert text_html("\u2028") == '<span class="sm-control">U+2028</span>'
