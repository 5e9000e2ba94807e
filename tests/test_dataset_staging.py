"""The published tables hold what licences allow, under the columns that design promises."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from sample_tables import CLOSED, OPEN, SECRET, sample_rows, write_measured
from selmem.cards.columns import COLUMNS
from selmem.cards.dataset import dataset_card
from selmem.cards.naming import hub_id
from selmem.errors import InputError
from selmem.hub.dataset_staging import stage_tables
from selmem.hub.republication import publishable, withheld_sources
from selmem.tables import SCHEMAS, read_metadata, read_table, write_table

TEMPLATES = Path(__file__).parents[1] / "hub_cards"


@pytest.fixture
def staged(tmp_path):
    measured = write_measured(tmp_path / "measured")
    return stage_tables(measured, "selmem", tmp_path / "staged"), tmp_path / "staged"


def every_value(folder):
    """Yield (file, column, value) of all Parquet files under `folder`, nested values one by one."""
    for path in sorted(folder.rglob("*.parquet")):
        for name, column in zip(
            pq.read_schema(path).names, pq.read_table(path).columns, strict=True
        ):
            for value in column.to_pylist():
                for item in value if isinstance(value, list) else [value]:
                    yield path, name, item


def test_no_text_of_a_withheld_source_is_anywhere_in_the_staged_files(staged):
    _, folder = staged
    for path, column, value in every_value(folder):
        assert SECRET not in str(value), f"{path.name}: {column}"
        assert not (isinstance(value, int) and 7001 <= value <= 7004), f"{path.name}: {column}"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


def test_the_search_for_text_finds_it_where_nothing_was_withheld(tmp_path):
    write_measured(tmp_path)
    found = {
        (path.name, column) for path, column, value in every_value(tmp_path) if SECRET in str(value)
    }
    assert found == {
        ("chunks.parquet", "text"),
        ("reconstructions.parquet", "reference"),
        ("reconstructions.parquet", "text"),
        ("tokens.parquet", "token"),
        ("words.parquet", "word"),
    }


def test_a_column_that_nobody_thought_of_is_withheld():
    rows = sample_rows("p")
    tables = {name: pa.Table.from_pylist(rows[name], schema=SCHEMAS[name]) for name in SCHEMAS}
    chunks = tables["chunks"]
    tables["chunks"] = chunks.append_column("summary", chunks["text"])
    summaries = publishable(tables)["chunks"]["summary"].to_pylist()
    assert summaries == ["plainone plaintwo"] * 4 + [None] * 4


def test_tags_and_flags_of_a_withheld_source_stay(staged):
    splits, _ = staged
    tables = splits[0].tables
    for name in ("chunks", "reconstructions", "words"):
        rows = tables[name].filter(pc.starts_with(tables[name]["chunk_id"], CLOSED))
        assert rows.num_rows == {"chunks": 4, "reconstructions": 4, "words": 8}[name]
    words = tables["words"].filter(pc.starts_with(tables["words"]["chunk_id"], CLOSED))
    assert set(words["pos"].to_pylist()) == {"noun"}
    assert tables["omission"].num_rows == 24


def test_an_open_source_is_published_whole(staged):
    splits, _ = staged
    for name, rows in sample_rows("selmem/mamba-tiny-probe", ("conv",)).items():
        column = "source" if name == "omission" else "chunk_id"
        table = splits[0].tables[name]
        found = table.filter(pc.match_substring(table[column], OPEN)).to_pylist()
        wanted = pa.Table.from_pylist([row for row in rows if OPEN in row[column]], table.schema)
        assert found == wanted.to_pylist()


def test_an_unknown_source_is_withheld():
    assert withheld_sources(["my_mails", "gsm8k", "gum.test"]) == {"my_mails", "gum.test"}


def test_a_chunk_of_unknown_source_is_refused():
    tables = {
        name: pa.Table.from_pylist(rows, schema=SCHEMAS[name])
        for name, rows in sample_rows("p").items()
    }
    tables["chunks"] = tables["chunks"].slice(1)
    with pytest.raises(
        InputError, match="reconstructions has chunk 'gsm8k/a/4/0', which is not in"
    ):
        publishable(tables)


def test_paths_of_the_machine_are_not_published(tmp_path):
    write_measured(tmp_path / "m", probe="/home/me/out/mamba-tiny-probe")
    splits = stage_tables(tmp_path / "m", "selmem", tmp_path / "staged")
    assert splits[0].tables["omission"]["probe"].unique().to_pylist() == ["selmem/mamba-tiny-probe"]
    for path in (tmp_path / "staged").rglob("*.parquet"):
        assert b"/home" not in path.read_bytes()
        assert list(read_metadata(path)) == ["run_config_hashes", "config_hash"]


def test_a_hub_id_stays_and_a_folder_is_named_after_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_id("state-spaces/mamba-130m-hf", "me") == "state-spaces/mamba-130m-hf"
    (tmp_path / "outputs/probe").mkdir(parents=True)
    assert hub_id("outputs/probe", "me") == "me/probe"


def test_each_probe_is_a_split_and_controls_that_one_lacks_are_null(tmp_path):
    write_measured(tmp_path / "m/one", probe="selmem/mamba-tiny-probe", controls=("conv",))
    write_measured(tmp_path / "m/two", probe="selmem/mamba-130m-probe", controls=())
    splits = stage_tables(tmp_path / "m", "selmem", tmp_path / "staged")
    assert [split.name for split in splits] == ["mamba_130m_probe", "mamba_tiny_probe"]
    schemas = [split.tables["tokens"].schema for split in splits]
    assert schemas[0] == schemas[1]
    assert splits[0].tables["tokens"]["probe_bits_conv"].null_count == 16


@pytest.fixture
def halves(tmp_path):
    """One probe measured in two folders, a source each, and the rates over both beside them."""
    whole = write_measured(tmp_path / "whole")
    for folder, source in (("a", OPEN), ("b", CLOSED)):
        for name in set(SCHEMAS) - {"omission"}:
            table = read_table(whole / f"{name}.parquet")
            part = table.filter(pc.starts_with(table["chunk_id"], source))
            if source == OPEN and name == "tokens":
                part = part.drop_columns(["probe_bits_conv"])
            write_table(part, tmp_path / "halves" / folder / f"{name}.parquet", metadata={})
    rates = read_table(whole / "omission.parquet")
    write_table(rates, tmp_path / "halves/omission.parquet", metadata={})
    return tmp_path / "halves"


def test_folders_of_one_probe_are_one_split(halves, staged, tmp_path):
    [split] = stage_tables(halves, "selmem", tmp_path / "joined")
    [whole], _ = staged
    assert split.name == whole.name
    for name in SCHEMAS:
        assert split.tables[name].num_rows == whole.tables[name].num_rows
    assert split.tables["chunks"].equals(whole.tables["chunks"])
    assert split.tables["omission"].equals(whole.tables["omission"])
    assert split.tables["tokens"]["probe_bits_conv"].null_count == 16  # those of source a


def test_folders_of_one_probe_need_common_rates_and_different_chunks(halves, tmp_path):
    (halves / "omission.parquet").unlink()
    with pytest.raises(InputError, match=rf"selmem report {halves}/a {halves}/b --out {halves}`"):
        stage_tables(halves, "selmem", tmp_path / "joined")
    write_measured(halves / "c")
    with pytest.raises(InputError, match=r"two of them hold chunk gsm8k/a/4/0"):
        stage_tables(halves, "selmem", tmp_path / "joined")


def test_wrong_tables_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"nor a folder in it has reconstructions\.parquet"):
        stage_tables(tmp_path / "nothing", "selmem", tmp_path / "staged")
    folder = write_measured(tmp_path / "m")
    (folder / "omission.parquet").unlink()
    with pytest.raises(InputError, match=r"does not exist; `selmem report .*/m --out .*/m` wr"):
        stage_tables(folder, "selmem", tmp_path / "staged")
    write_measured(folder)
    words = read_table(folder / "words.parquet")
    write_table(words.drop_columns(["pos"]), folder / "words.parquet", metadata={})
    with pytest.raises(InputError, match=r"words\.parquet has no column pos"):
        stage_tables(folder, "selmem", tmp_path / "staged")


def card_of(splits):
    return DatasetCard(dataset_card(splits, "selmem/omissions", TEMPLATES))


def test_the_card_declares_the_features_splits_and_files_that_are_there(staged):
    from datasets import Features

    splits, folder = staged
    data = card_of(splits).data.to_dict()
    assert [config["config_name"] for config in data["configs"]] == list(SCHEMAS)
    for config, info in zip(data["configs"], data["dataset_info"], strict=True):
        path = folder / config["data_files"][0]["path"]
        table = pq.read_table(path)
        assert info["config_name"] == config["config_name"]
        assert Features._from_yaml_list(info["features"]).arrow_schema.names == table.schema.names
        assert info["splits"][0]["num_examples"] == table.num_rows
        assert info["download_size"] == path.stat().st_size


def test_the_card_counts_rows_chunks_and_documents_as_the_tables_do(staged):
    splits, _ = staged
    text = card_of(splits).text
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    found = {row[0].strip("`"): row[1:] for row in rows}
    for name, table in splits[0].tables.items():
        assert found[name][1] == f"{table.num_rows:,}"
    assert found["mamba_tiny_probe"][2:] == ["4", "8", "4"]
    assert found[OPEN] == ["MIT", "published", "4", "2"]
    assert found[CLOSED] == ["Reuters, research only", "withheld", "4", "2"]


def test_the_metadata_of_the_card_is_plain_yaml(staged):
    splits, _ = staged
    front = dataset_card(splits, "selmem/omissions", TEMPLATES).split("---")[1]
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "other"
    assert metadata["size_categories"] == ["n<1K"]


def test_the_card_says_what_every_column_holds():
    assert {name: list(columns) for name, columns in COLUMNS.items()} == {
        name: schema.names for name, schema in SCHEMAS.items()
    }


def test_whole_texts_are_one_length_whatever_their_tokens(staged):
    splits, _ = staged
    chunks = splits[0].tables["chunks"]
    ids = [chunk_id.replace("/4/", "/whole/") for chunk_id in chunks["chunk_id"].to_pylist()]
    splits[0].tables["chunks"] = pa.concat_tables(
        [chunks, chunks.set_column(0, "chunk_id", pa.array(ids))]
    )
    assert "| 4, whole | 16 | 4 |" in card_of(splits).text


def test_the_card_holds_the_findings_where_there_are_some(staged, tmp_path):
    splits, _ = staged
    for path in TEMPLATES.glob("*.jinja"):
        shutil.copy(path, tmp_path)
    title = "## What the family `mamba-own` shows"
    assert title not in dataset_card(splits, "selmem/omissions", tmp_path)
    (tmp_path / "findings.md").write_text("Much is lost.\n")
    card = dataset_card(splits, "selmem/omissions", tmp_path)
    assert f"{title}\n\nMuch is lost.\n\n## Limits" in card.replace("\n\n\n", "\n\n")
