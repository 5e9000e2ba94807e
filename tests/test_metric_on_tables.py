"""The metric on the published tables gives the published table of omission, to the last digit."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selmem.analysis import load_measurement
from selmem.analysis.omission import omission_table
from selmem.bundle import bundled_path
from selmem.hub.dataset_staging import stage_tables
from selmem.measurement import MeasureConfig, measure
from selmem.omission_rate.omission_rate import OmissionRate
from selmem.resampling import Resampling
from selmem.tables import OMISSION, SCHEMAS, write_table

N_DOCUMENTS, LENGTHS = 12, (8, 32)
SCHEMES = ("pos", "entity", "kind")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The tables as they lie on the Hub: measured, reported, staged."""
    folder = tmp_path_factory.mktemp("published")
    lines = (bundled_path("sample") / "documents.jsonl").read_text().splitlines(keepends=True)
    (folder / "text.jsonl").write_text("".join(lines[:: len(lines) // N_DOCUMENTS][:N_DOCUMENTS]))
    measure(
        MeasureConfig(
            encoder=str(bundled_path("mamba-tiny")),
            probe=str(bundled_path("mamba-tiny-probe")),
            null_probe=str(bundled_path("mamba-tiny-null-probe")),
            data=(f"selmem_sample={folder / 'text.jsonl'}",),
            lengths=LENGTHS,
            out=folder / "measured",
            max_chunks=40,
        )
    )
    frame = omission_table(load_measurement(folder / "measured"), Resampling(n_resamples=50))
    table = pa.Table.from_pandas(frame[list(OMISSION.names)], OMISSION, preserve_index=False)
    write_table(table, folder / "measured/omission.parquet", metadata={})
    stage_tables(folder / "measured", "selmem", folder / "staged")
    return {
        name: pq.read_table(folder / "staged/data" / name / "mamba_tiny_probe.parquet").to_pylist()
        for name in SCHEMAS
    }


def numbers(row, rate, chance):
    return row["n_words"], row["n_documents"], row[rate], row[chance]


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_token_records_give_exactly_the_rates_of_the_table_omission(published, scheme, length):
    kept = {row["chunk_id"] for row in published["chunks"] if row["length"] == length}
    tables = {
        name: [row for row in published[name] if row["chunk_id"] in kept]
        for name in ("chunks", "reconstructions", "words")
    }
    metric = OmissionRate()
    results = metric.compute(**metric.read_tables(**tables, tag=scheme))
    computed = {("all", "whole"): results, ("all", "cut"): results["cut"]}
    computed |= {(scheme, tag): row for tag, row in results["by_tag"].items() if row["n_words"]}
    compared = 0
    for row in published["omission"]:
        own = computed.get((row["scheme"], row["tag"]))
        if row["length"] != length or own is None or row["rule"] == "forced":
            continue
        end = {"count": "", "aligned": "_aligned"}[row["rule"]]
        expected = numbers(row, "omission_rate", "chance_rate")
        assert numbers(own, f"omission_rate{end}", f"chance_rate{end}") == expected, row
        compared += 1
    assert compared == 2 * len(computed) > 6
