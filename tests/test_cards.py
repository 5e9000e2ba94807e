"""Cards: every number on them is in a table, and a missing one is an error that names it."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from huggingface_hub import ModelCard

from selmem.bundle import bundled_path
from selmem.cards.models import READERS, model_card
from selmem.cards.rendering import render_card
from selmem.errors import InputError
from selmem.statistics import MIN_DOCUMENTS_INTERVAL
from selmem.tables import OMISSION, read_table, write_table
from tiny_release import edit_json

TEMPLATES = Path(__file__).parents[1] / "hub_cards"


@pytest.fixture
def probe(release, tmp_path):
    """A copy of the probe's folder, free to be changed."""
    return shutil.copytree(release.probe, tmp_path / "mamba-tiny-probe")


def probe_card(path, repo_id="selmem/mamba-tiny-probe"):
    return model_card(path, repo_id, TEMPLATES)


def table_rows(card, first_cell):
    """Return the cells of all rows of a card's tables that start with `first_cell`."""
    lines = [line for line in card.splitlines() if line.startswith(f"| {first_cell} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_result_on_a_probe_card_is_the_tables(release):
    omission = read_table(release.probe / "omission.parquet")
    whole = omission.filter(pc.equal(omission["scheme"], "all"))
    found = [cells for cells in table_rows(probe_card(release.probe), "gsm8k") if len(cells) == 10]
    expected = []
    for tag in ("whole", "without_last_4"):
        for length in (4, 16):
            mask = pc.and_(pc.equal(whole["tag"], tag), pc.equal(whole["length"], length))
            by_rule = {
                row["rule"]: row
                for row in whole.filter(mask).to_pylist()
                if row["source"] == "gsm8k"
            }
            expected.append(["gsm8k", str(length), *expected_cells(by_rule)])
    assert found == expected


def expected_cells(by_rule):
    def rate(value):
        return f"{value * 100:.1f} %"

    def with_interval(row):
        if row["n_documents"] < MIN_DOCUMENTS_INTERVAL:
            return f"{rate(row['omission_rate'])} [under 10 documents]"
        low, high = 100 * row["ci_low"], 100 * row["ci_high"]
        return f"{rate(row['omission_rate'])} [{low:.1f}, {high:.1f}]"

    count = by_rule["count"]
    return [
        f"{count['n_words']:,}",
        f"{count['n_documents']:,}",
        with_interval(count),
        rate(count["chance_rate"]),
        rate(1 - count["omission_rate"] / count["chance_rate"]),
        with_interval(by_rule["aligned"]),
        with_interval(by_rule["forced"]),
        rate(count["recovered_fraction"]),
    ]


def test_controls_on_a_probe_card_are_the_tables(release):
    card = probe_card(release.probe)
    found = [cells for cells in table_rows(card, "gsm8k") if len(cells) == 5]
    assert found == [
        ["gsm8k", length, condition, bits, share]
        for length in ("4", "16")
        for condition, bits, share in (
            ("this probe", "2.000", "75.0 %"),
            ("the null probe", "8.000", "0.0 %"),
            ("exchanged ssm", "9.500", "-18.8 %"),
        )
    ]


@pytest.mark.parametrize("name", ["encoder", "probe", "null_probe"])
def test_training_numbers_on_a_card_are_the_training_records(release, name):
    folder = getattr(release, name)
    card = model_card(folder, f"selmem/{folder.name}", TEMPLATES)
    record = json.loads((folder / "training.json").read_text())
    curve = [
        json.loads(line) for line in (folder / "learning_curve.jsonl").read_text().split("\n")[:-1]
    ]
    tokens = "393,216,000 tokens (1399.3 times the corpus)"  # of 281,000
    assert f"12,000 steps, {tokens}, 70.5 minutes on CPU" in card
    assert f"seed {record['settings']['seed']}" in card
    assert table_rows(card, "gsm8k | MIT") == [["gsm8k", "MIT", "1,319", "281,000"]]
    shown = [row for row in curve if table_rows(card, f"{row['step']:,}")]
    assert len(shown) == 9
    assert shown[0] == curve[0]
    assert shown[-1] == curve[-1]
    for row in shown:
        bits = f"{row['mean_held_out_bits']:.3f}"
        assert table_rows(card, f"{row['step']:,}") == [
            [f"{row['step']:,}", f"{row['tokens']:,}", bits]
        ]
    late = next(row for row in curve if row["step"] >= 9_600)
    gain = late["mean_held_out_bits"] - min(row["mean_held_out_bits"] for row in curve)
    assert f"From step {late['step']:,} on" in card
    assert f"fell by another {gain:.3f}." in card
    for length, bits in record["held_out_bits"].items():
        accuracy = f"{100 * record['held_out_accuracy'][length]:.1f} %"
        assert [length, f"{bits:.3f}", accuracy] in table_rows(card, length)


def test_sizes_on_a_card_are_those_of_the_weights(release):
    from safetensors.torch import load_file

    weights = load_file(release.probe / "model.safetensors")
    n_parameters = sum(value.numel() for value in weights.values())
    card = probe_card(release.probe)
    assert f"It has {n_parameters:,} parameters in 2 layers of width 32" in card
    assert f"The state has {2 * 64 * (8 + 4):,} numbers" in card
    assert "texts of up to 32 tokens" in card


def test_metadata_of_a_probe_names_what_it_rests_on(release):
    card = ModelCard(probe_card(release.probe))
    data = card.data.to_dict()
    assert data["base_model"] == "selmem/mamba-tiny"
    assert data["base_model_relation"] == "finetune"
    assert data["library_name"] == "transformers"
    assert data["datasets"] == ["selmem/omissions"]
    assert data["metrics"] == ["selmem/omission_rate"]
    assert data["license"] == "apache-2.0"
    assert "pipeline_tag" not in data
    omission = read_table(release.probe / "omission.parquet").to_pylist()
    rates = {
        f"omission rate (count), {row['source']}, {row['length']} tokens": row["omission_rate"]
        for row in omission
        if (row["tag"], row["rule"]) == ("whole", "count")
    }
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == rates


@pytest.mark.parametrize("name", ["encoder", "probe", "null_probe"])
def test_metadata_is_plain_yaml_and_the_card_leaves_no_template_syntax(release, name):
    folder = getattr(release, name)
    card = model_card(folder, f"selmem/{folder.name}", TEMPLATES)
    assert isinstance(yaml.safe_load(card.split("---")[1]), dict)
    assert "{{" not in card
    assert "{%" not in card
    assert str(folder.parent) not in card


def test_a_card_with_a_missing_number_names_it(probe):
    table = read_table(probe / "omission.parquet").to_pylist()
    for row in table:
        if (row["tag"], row["rule"], row["length"]) == ("whole", "aligned", 16):
            row["ci_low"] = None
    write_table(pa.Table.from_pylist(table, OMISSION), probe / "omission.parquet", metadata={})
    message = r"the probe card: results: whole, row 2: aligned: interval lacks a number"
    with pytest.raises(InputError, match=message):
        probe_card(probe)


def test_an_interval_that_too_few_documents_give_is_said_to_be_absent(probe):
    table = read_table(probe / "omission.parquet").to_pylist()
    for row in table:
        row |= {"n_documents": 9, "ci_low": float("nan"), "ci_high": float("nan")}
    write_table(pa.Table.from_pylist(table, OMISSION), probe / "omission.parquet", metadata={})
    assert "[under 10 documents]" in probe_card(probe)


def test_a_record_without_a_number_names_it(probe):
    record = json.loads((probe / "training.json").read_text())
    del record["settings"]["seed"]
    (probe / "training.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"training\.json of selmem/mamba-tiny-probe lacks 'seed'"):
        probe_card(probe)


def test_a_probe_that_names_no_encoder_gets_no_card(probe):
    edit_json(probe / "config.json", encoder_name_or_path=None)
    with pytest.raises(InputError, match="names no encoder whose states the probe reads"):
        probe_card(probe)


@pytest.mark.parametrize("size", ["130m", "370m", "790m", "1.4b"])
def test_a_probe_that_was_not_measured_gets_no_card(probe, size):
    (probe / "omission.parquet").unlink()
    repo_id = f"selmem/mamba-{size}-probe"
    with pytest.raises(InputError, match=rf"{repo_id} is not yet measured: omission\.parquet"):
        probe_card(probe, repo_id)


def test_a_probe_without_controls_gets_no_card(probe):
    (probe / "controls.parquet").unlink()
    with pytest.raises(InputError, match=r"not yet measured: controls\.parquet"):
        probe_card(probe)


def test_results_of_several_probes_in_one_table_are_refused(probe):
    table = read_table(probe / "omission.parquet").to_pylist()
    table[0]["probe"] = "selmem/other"
    write_table(pa.Table.from_pylist(table, OMISSION), probe / "omission.parquet", metadata={})
    with pytest.raises(InputError, match="holds 2 probes, expected one"):
        probe_card(probe)


def test_a_value_that_a_template_asks_for_and_nobody_gives_is_named(tmp_path):
    (tmp_path / "thing.md.jinja").write_text("{{ rows[0].rate }} {{ seed }}")
    with pytest.raises(InputError, match="the thing card lacks a value: 'seed' is undefined"):
        render_card("thing", tmp_path, {"rows": [{"rate": 1.0}]})
    with pytest.raises(InputError, match="has no attribute 'rate'"):
        render_card("thing", tmp_path, {"rows": [{}], "seed": 1})
    with pytest.raises(InputError, match="the thing card: rows, row 1: rate lacks a number: nan"):
        render_card("thing", tmp_path, {"rows": [{"rate": float("nan")}], "seed": 1})
    with pytest.raises(InputError, match="has no card template other"):
        render_card("other", tmp_path, {})


def test_the_card_of_several_sources_leads_with_all_of_them_together(probe):
    rows = read_table(probe / "omission.parquet").to_pylist()
    pooled = [row | {"source": "all sources"} for row in rows if row["source"] == "gsm8k"]
    whole_texts = [
        row | {"length": 0, "n_words": 4321}
        for row in rows
        if (row["source"], row["length"]) == ("gsm8k", 4)
    ]
    table = pa.Table.from_pylist([*rows, *pooled, *whole_texts], OMISSION)
    write_table(table, probe / "omission.parquet", metadata={})
    card = probe_card(probe)
    first, second, by_source = (
        part.split("\n## ")[0] for part in card.split("## Results")[1].split("\n### ")[1:]
    )
    for part in (first, second):
        assert [cells[1] for cells in table_rows(part, "all sources")] == ["4", "16"]
        assert table_rows(part, "gsm8k") == []
    assert table_rows(by_source, "all sources") == []
    assert [cells[1] for cells in table_rows(by_source, "gsm8k")] == ["4", "16", "whole texts"]
    assert table_rows(by_source, "gsm8k")[2][2] == "4,321"
    assert "--lengths 4 16 whole --out measured" in card
    names = {result.metric_name for result in ModelCard(card).data.eval_results}
    assert names == {f"omission rate (count), all sources, {n} tokens" for n in (4, 16)}


def test_every_number_on_the_card_of_the_bundled_probe_is_in_the_committed_tables():
    card = model_card(bundled_path("mamba-tiny-probe"), "selmem/mamba-tiny-probe", TEMPLATES)
    tables = TEMPLATES / "tables/mamba-tiny-probe"
    cells = {}
    for row in read_table(tables / "omission.parquet").to_pylist():
        if row["scheme"] == "all" and row["tag"] in ("whole", "without_last_4"):
            cells.setdefault((row["tag"], row["source"], row["length"]), {})[row["rule"]] = row
    shown = [row for source in {key[1] for key in cells} for row in table_rows(card, source)]
    pooled = any(source == "all sources" for _, source, _ in cells)
    for (tag, source, length), by_rule in cells.items():
        if pooled and source != "all sources" and tag != "whole":
            continue
        expected = [source, str(length or "whole texts"), *expected_cells(by_rule)]
        assert expected in shown, expected
    controls = read_table(tables / "controls.parquet").to_pylist()
    cells = {(row["source"], row["length"]) for row in controls if "_" in row["condition"]}
    for row in controls:
        if row["layer"] < 0 and (row["source"], row["length"]) in cells:
            name = READERS.get(row["condition"], row["condition"].replace("_", " "))
            share = f"{row['recovered_fraction'] * 100:.1f} %"
            length = str(row["length"] or "whole texts")
            assert [row["source"], length, name, f"{row['bits']:.3f}", share] in shown
