"""What is collected of the study: on made-up numbers, everything that the release is made from."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from sample_tables import write_measured
from selmem import bundled_path
from selmem.cards.models import _n_parameters
from selmem.tables import read_metadata
from study_stand_in import write_report, write_study, write_training

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import study_tables  # noqa: E402
from study_contrasts import PAIRS, contrasts, sizes  # noqa: E402
from study_records import count_parameters, read_trainings  # noqa: E402


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), ("1m", "4m"))


@pytest.fixture(scope="module")
def root(work, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    study_tables.collect(work, root)
    return root


def study(root, name):
    return pd.read_parquet(root / "scripts/results/study" / f"{name}.parquet")


def test_card_tables_speak_of_the_models_by_their_names_and_are_small(root):
    folder = root / "hub_cards/tables/mamba-own-4m-probe"
    for path in folder.iterdir():
        table = pd.read_parquet(path)
        assert set(table["encoder"]) == {"mamba-own-4m"}
        assert set(table["probe"]) == {"mamba-own-4m-probe"}
        assert path.stat().st_size < 500_000
    assert read_metadata(folder / "omission.parquet")["runs"] == ["made up"]
    controls = pd.read_parquet(folder / "controls.parquet")
    assert {"conv", "ssm", "other_layer_0"} <= set(controls["condition"])
    assert set(controls[controls["layer"] >= 0]["source"]) == {"all sources"}


def test_only_rows_of_single_sources_are_thinned():
    table = pd.DataFrame(
        {"source": ["all sources", "a", "a", "a"], "length": [8, 8, 16, 16],
         "scheme": ["pos_without_last_4", "pos", "pos_without_last_4", "pos"]}
    )  # fmt: skip
    assert list(study_tables.thinned("omission", table).index) == [0, 3]
    assert len(study_tables.thinned("omission", table[1:])) == 3


def test_trainings_state_parameters_passes_and_tokens_per_parameter(root):
    rows = study(root, "trainings").set_index("training")
    row = rows.loc["encoders/1m"]
    assert row["n_parameters"] - row["n_embedding_parameters"] == 1_066_720
    assert row["passes"] == pytest.approx(458_752_000 / 97_145_040, rel=1e-3)
    assert row["tokens_per_parameter"] == pytest.approx(458_752_000 / 1_066_720, rel=1e-4)
    assert rows.loc["probes/1m-twice", "variant"] == "twice"
    curve = study(root, "learning_curves")
    assert set(curve[curve["kind"] == "probe"]["length"]) == {4, 8, 16, 32, 64, 128, 256}


@pytest.mark.parametrize("end", ["", "-probe", "-null-probe"])
def test_parameters_are_counted_without_weights(end):
    path = bundled_path(f"mamba-tiny{end}")
    counted, _ = count_parameters(json.loads((path / "config.json").read_text()))
    assert counted == _n_parameters(path)


def test_convergence_is_stated_against_twice_or_half_of_the_tokens(root):
    rows = study(root, "convergence").query("kind == 'probe' and length == 64")
    rows = rows[(rows["size"] == "1m") | (rows["against"] == "half")].set_index("size")
    assert rows.loc["1m", ["gain", "rule"]].tolist() == [pytest.approx(0.005), "met"]
    assert rows.loc["4m", "rule"] == "not met with half of the tokens"
    assert rows.loc["4m", "gain"] == pytest.approx((0.93 - 0.9) / 0.93, abs=1e-4)
    assert rows.loc["4m", "tokens_after"] == 2 * rows.loc["4m", "tokens"]


def test_trainings_that_cannot_be_compared_are_told(tmp_path, capsys):
    write_training(tmp_path, "probes/1m", bits=1)
    write_training(tmp_path, "probes/1m-twice", bits=1, longer=3)
    assert not len(study_tables.convergence_table(read_trainings(tmp_path)))
    assert "are not twice" in capsys.readouterr().out


def test_verdicts_hold_every_size_and_the_claim_about_it(root):
    rows = study(root, "verdicts")
    assert set(rows[rows["claim"] == "dialect"]["size"]) == {"1m", "4m"}
    assert set(rows[rows["claim"] == "size"]["size"]) == {"4m", "15m", "45m"}


def test_a_second_run_is_inside_where_its_value_lies_in_the_first_interval(root, tmp_path, capsys):
    rows = study(root, "reruns")
    assert rows[rows["run"] == "1m-again"]["inside"].all()
    assert {"pos", "entity", "all"} == set(rows["scheme"])
    write_report(tmp_path / "1m", "1m", gain=0)
    write_report(tmp_path / "1m-again", "1m-again", gain=0.3)
    far = study_tables.rerun_table(tmp_path)
    large = far[(far["n_words"] > 5000) & (far["outcome"] == "omission_rate")]
    assert not large["inside"].any()
    fewer = study_tables.report_table(tmp_path / "1m-again", "omission")
    fewer.loc[fewer["length"] == 16, "n_words"] -= 1
    fewer.to_parquet(tmp_path / "1m-again/tables/omission.parquet")
    assert 16 not in set(study_tables.rerun_table(tmp_path)["length"]), "other words"
    study_tables.print_reruns(far)
    assert "cells of omission_rate inside the first's intervals" in capsys.readouterr().out


def test_variants_hold_one_row_for_each_reader_length_and_rule(root):
    rows = study(root, "variants")
    assert set(zip(rows["size"], rows["variant"], strict=True)) == {
        ("1m", ""), ("1m", "again"), ("1m", "seed1"), ("4m", "")
    }  # fmt: skip
    assert not rows.duplicated(["size", "variant", "length", "tag", "rule"]).any()


def test_what_is_absent_is_named_and_nothing_is_made_of_it(tmp_path, capsys):
    write_training(tmp_path / "work", "encoders/1m", bits=1)
    study_tables.collect(tmp_path / "work", tmp_path / "root")
    assert "causal" in capsys.readouterr().out
    made = {path.name for path in (tmp_path / "root/scripts/results/study").iterdir()}
    assert made == {"models", "trainings.parquet", "learning_curves.parquet"}


def test_measurements_are_contrasted_where_both_are_there(tmp_path, capsys):
    for name in PAIRS[0]:
        write_measured(tmp_path / name, probe=name)
    table = contrasts(tmp_path, PAIRS[:2])
    assert set(zip(table["first"], table["second"], strict=True)) == {PAIRS[0]}
    assert "left out" in capsys.readouterr().out


def test_sizes_that_were_not_measured_are_named(tmp_path, capsys):
    write_measured(tmp_path / "1m")
    assert not len(sizes(tmp_path))
    assert "15m" in capsys.readouterr().out


def test_overlap_is_told_of_the_measured_sources_with_and_without_what_is_left_out(work, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(work / "reports" / "1m", folder / "reports" / "1m")
    assert not len(study_tables.overlap_table(folder))
    rows = [("gsm8k", "1", 100, 40), ("gsm8k", "2", 300, 30), ("gsm8k", "3", 0, 0)]
    rows += [("not measured", "1", 10, 10)]
    table = pd.DataFrame(rows, columns=["source", "doc_id", "n_ngrams", "n_found"])
    table.to_parquet(folder / "overlap.parquet")
    assert study_tables.overlap_table(folder).to_dict("records") == [
        {"source": "gsm8k", "n_documents": 3, "n_ngrams": 400, "n_found": 70, "n_left_out": 1,
         "n_ngrams_kept": 300, "n_found_kept": 30}
    ]  # fmt: skip
