"""Figures, README section, findings and cards of the study, made from tables of made-up numbers."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from selmem.tables import write_text
from study_stand_in import write_study

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import readme_tables  # noqa: E402
import study_figures  # noqa: E402
import study_readme  # noqa: E402
import study_readme_tables  # noqa: E402
from render_cards import cards  # noqa: E402
from study_tables import collect  # noqa: E402

TEMPLATES = sorted((ROOT / "scripts").glob("study_*.md.jinja"))
# what a template may say by itself: lengths, the rule and the level, names
LITERAL = r"13-grams|T = \d+|\d+ tokens|95 %|1 %|Mamba-1|`\d+m[\w-]*`"


def release(folder, sizes, **options):
    """Return a repository with the aggregates of a study and what the cards need."""
    root = folder / "root"
    collect(write_study(folder / "work", sizes, **options), root)
    for path in (ROOT / "hub_cards").glob("*.jinja"):
        shutil.copy(path, root / "hub_cards")
    own = "hub_cards/tables/mamba-tiny-probe"
    shutil.copytree(ROOT / own, root / own)
    for name in study_figures.MAKERS:  # which are there decides; drawn in a test of its own
        write_text(root / study_figures.FIGURES / f"{name}.png", "")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return release(tmp_path_factory.mktemp("release"), ("1m", "4m"))


@pytest.fixture(scope="module")
def section(root):
    return study_readme.render(study_figures.Committed(root))["section"]


def test_every_figure_is_drawn_small_and_white(root, tmp_path):
    drawn = dict(study_figures.figures(study_figures.Committed(root)))
    assert set(drawn) == set(study_readme.CAPTIONS)
    for name, figure in drawn.items():
        study_figures.save(figure, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == 1440
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert (tmp_path / f"{name}.png").stat().st_size < 120_000


def test_figures_without_tables_are_named_and_left_out(tmp_path, capsys):
    assert list(study_figures.figures(study_figures.Committed(tmp_path))) == []
    assert "not drawn: retention" in capsys.readouterr().out


def test_section_holds_every_table_and_figure_by_its_committed_name(section):
    names = ["family", "verdicts", "causal", "token_counts", "convergence", "readers", "reruns"]
    assert re.findall(r"<!-- table: (\w+) -->", section) == names
    shown = set(re.findall(r"hub_cards/figures/study/(\w+)\.png", section))
    assert shown == set(study_readme.CAPTIONS)
    assert "{{" not in section
    assert "\n\n\n" not in section
    assert re.search(r"[^\n]\n###", section) is None


def test_tables_hold_the_numbers_of_the_committed_tables(root, section):
    verdicts = pd.read_parquet(root / "scripts/results/study/verdicts.parquet")
    row = verdicts.query("claim == 'numbers' and size == '4m' and length == 64").iloc[0]
    shown = [f"{100 * row[name]:+.1f}" for name in ("ours_controlled", "ci_low", "ci_high")]
    line = next(line for line in section.splitlines() if line.startswith("| Numbers"))
    assert f"{row['verdict']}<br>{shown[0]} [{shown[1]}, {shown[2]}]" == line.split(" | ")[2][:-2]
    assert "| `mamba-own-4m` | 3,942,400 | 1,048,576 | 459 M |" in section
    reruns = pd.read_parquet(root / "scripts/results/study/reruns.parquet")
    own = reruns[(reruns["run"] == "1m-again") & (reruns["outcome"] == "omission_rate")]
    assert f"| {own['inside'].sum()} of {len(own)} (" in section


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_hold_no_number_of_a_result(path):
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", path.read_text(), flags=re.DOTALL)
    assert re.findall(r"\d+", re.sub(LITERAL, "", text)) == []
    captions = " ".join(study_readme.CAPTIONS.values())
    assert re.findall(r"\d+", re.sub(LITERAL, "", captions)) == []


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["+12.3 [+9.6, +15.0]", "+10.2 [-7.7, +12.8]"], "+10.2 to +12.3 [-7.7, +15.0]"),
        (["-9.5 [-12.1, -7.0]", "-21.9 [-25.9, -17.9]"], "-21.9 to -9.5 [-25.9, -7.0]"),
        (["47.2 %", "86.5 %", "9.0 %"], "9.0 to 86.5 %"),
        (["0.56"], "0.56"),
    ],
)
def test_a_span_holds_the_ends_of_values_and_intervals_as_they_are_written(texts, expected):
    assert study_readme.span(texts) == expected


def test_a_number_that_no_table_has_or_several_have_is_refused(root):
    committed = study_figures.Committed(root)
    with pytest.raises(SystemExit, match=r"0 rows of .*expected one"):
        study_readme.context(committed)["words"]("1b", 64)
    with pytest.raises(SystemExit, match="expected one"):
        study_readme.lookup(committed, "verdicts", claim="numbers")


def test_functions_of_the_templates_take_the_number_of_their_row(root):
    known = study_readme.context(study_figures.Committed(root))
    rows = pd.read_parquet(root / "hub_cards/tables/mamba-own-1m-probe/omission.parquet")
    row = rows.query(
        "source == 'all sources' and length == 64 and tag == 'NUM' and rule == 'count' "
        "and scheme == 'pos'"
    ).iloc[0]
    found = known["words"]("1m", 64, "omission_rate", scheme="pos", tag="NUM")
    assert found == f"{100 * row['omission_rate']:.1f} %"
    assert re.fullmatch(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", known["effect"]("maths", "4m"))
    assert re.fullmatch(r"[+-]\d+\.\d", known["paper"]("maths", "4m"))
    assert known["reader"]("4m-only64", 64) == "-2.0 [-3.0, -1.0]"
    convergence = pd.read_parquet(root / "scripts/results/study/convergence.parquet")
    rows = convergence.query("kind == 'probe' and size == '4m' and length == 64")
    for against, gain in rows.set_index("against")["gain"].items():
        assert known["gain"]("probe", "4m", 64, against) == f"{100 * gain:.1f} %"
    assert (known["budgets"]("twice"), known["budgets"]("half")) == (["1m", "4m"], ["4m"])
    reruns = pd.read_parquet(root / "scripts/results/study/reruns.parquet")
    own = reruns.query("run == '1m-again' and outcome == 'recovered_fraction'")
    assert known["agreement"]("-again") == f"{100 * own['inside'].mean():.0f} %"
    assert known["larger"] == ["4m", "15m", "45m"]
    ranks = pd.read_parquet(root / "scripts/results/study/token_counts.parquet")
    row = ranks.query("predictor == 'count in the Pile' and length == 64 and adjusted_for == ''")
    value = row.set_index("outcome")["correlation"]["null_bits"]
    assert known["token_rank"]("Pile", "null_bits", 64).startswith(f"{value:+.2f} [")
    held = known["token_rank"]("Pile", "null_bits", 64, "other count")
    assert held.startswith(f"{value + 0.01:+.2f} [")
    assert known["form_effect"]() == "0.01"
    controls = pd.read_parquet(root / "hub_cards/tables/mamba-own-4m-probe/controls.parquet")
    controls = controls[(controls["length"] == 16) & (controls["source"] != "all sources")]
    bits = controls.set_index(["condition", "source"])["bits"]
    more = (bits["null"] > bits["encoder from empty state"]).sum()
    assert known["weak_null"]("4m", 16) == f"{more} of {len(bits['null'])}"


def test_section_stands_in_the_readme_once_and_goes_with_its_tables(section):
    readme = readme_tables.with_study((ROOT / "README.md").read_text(), "")
    assert "<!-- study -->" not in readme
    once = readme_tables.with_study(readme, section)
    assert readme_tables.with_study(once, section) == once
    assert once.index("<!-- study -->") < once.index(readme_tables.AFTER_STUDY)
    assert readme_tables.with_study(once, "") == readme


def test_nothing_of_the_study_is_said_without_its_tables(tmp_path):
    texts = readme_tables.texts(tmp_path)
    assert list(texts) == ["README.md"]
    assert "<!-- study -->" not in texts["README.md"]


def test_a_study_that_was_only_trained_has_a_section_without_results(tmp_path):
    root = release(tmp_path, ("1m",), variants=False)
    shutil.rmtree(root / "hub_cards/tables/mamba-own-1m-probe")
    shutil.rmtree(root / "hub_cards/figures")
    (root / "scripts/results/study/verdicts.parquet").unlink()
    texts = study_readme.render(study_figures.Committed(root))
    assert "<!-- table: family -->" in texts["section"]
    assert "<!-- table: causal -->" not in texts["section"]
    assert ".png" not in texts["section"]
    assert texts["findings"] == ""


def test_cards_of_the_family_come_from_records_without_weights(root, capsys):
    rendered = dict(cards(root))
    made = {name for name in rendered if name.startswith("mamba-own")}
    ends = ("", "-probe", "-null-probe")
    assert made == {f"mamba-own-{size}{end}" for size in ("1m", "4m") for end in ends}
    assert "Without the embeddings it has 3,942,400 parameters" in rendered["mamba-own-4m"]
    probe = rendered["mamba-own-4m-probe"]
    assert "base_model: selmem/mamba-own-4m\n" in probe
    assert "| all sources | 64 | a probe trained on the SSM state alone |" in probe
    controls = probe[probe.index("## Controls") : probe.index("## Training")]
    assert "conll2003" not in controls
    shutil.rmtree(root / "hub_cards/tables/mamba-own-4m-probe")
    assert "mamba-own-4m-probe" not in dict(cards(root))
    assert "mamba-own-4m-probe is not yet measured" in capsys.readouterr().out


class Trainings:
    """Committed tables of which only that of the trainings is there."""

    def table(self, name):
        assert name == "trainings"
        rows = [
            ("encoder", "", 5.0, 6.0, 4.0),
            ("encoder", "causal a-0", 0.0, 0.0, 4.1),
            ("encoder", "causal b-1", 0.0, 0.0, 4.2),
            ("probe", "causal a-a-0", 0.1, 1.1, 0.0),
            ("probe", "causal a-b-0", 0.2, 1.2, 0.0),
            ("probe", "causal b-a-1", 0.3, 1.3, 0.0),
            ("probe", "causal b-b-1", 0.4, 1.4, 0.0),
            ("null probe", "causal a-a-0", 9.0, 9.0, 0.0),
        ]
        return pd.DataFrame(rows, columns=["kind", "variant", "bits_16", "bits_64", "bits_512"])


def test_every_encoder_stands_beside_what_its_two_readers_find():
    found = study_readme_tables.memories(Trainings())
    assert found.loc["a-0"].to_list() == [4.1, 0.1, 1.1, 0.2, 1.2]
    assert found.loc["b-1"].to_list() == [4.2, 0.3, 1.3, 0.4, 1.4]
    assert len(found) == 2
    assert study_readme_tables.memory_table(Trainings())[3].startswith(
        "| corpus B, seed 1 | 4.20 | 0.30"
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [("abc", "abc", True), ("abd", "abc", False), (["a", "b", ""], ["a", "b", ""], False)],
)
def test_two_runs_gave_the_same_weights_where_all_three_models_did(ours, theirs, same):
    kinds = ("encoder", "probe", "null probe")
    rows = [("x/1", *pair) for pair in zip(kinds, theirs, strict=True)]
    rows += [("x/2", *pair) for pair in zip(kinds, ours, strict=True)]
    table = pd.DataFrame(rows, columns=["training", "kind", "weights_sha256"])
    committed = SimpleNamespace(table=lambda _: table)
    assert study_readme_tables.same_weights(committed, "2", "1") is same
    assert not study_readme_tables.same_weights(committed, "3", "1")
