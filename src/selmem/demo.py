"""The whole job on what comes with the package: no network, no other file."""

from pathlib import Path

from selmem.bundle import bundled_path
from selmem.measurement import MeasureConfig, measure

LENGTHS = (4, 16, 64)
# of a length: keeps the demo within two minutes on two cores
MAX_CHUNKS = 300


def run_demo(out: Path) -> Path:
    """Measure the bundled probe on the bundled text, write tables, figures and report to `out`.

    Args:
        out: folder; a second run with the same `out` takes up what is there.

    Returns:
        path of the report.
    """
    from selmem.report import write_report

    sample = bundled_path("sample") / "documents.jsonl"
    measure(
        MeasureConfig(
            encoder=str(bundled_path("mamba-tiny")),
            probe=str(bundled_path("mamba-tiny-probe")),
            null_probe=str(bundled_path("mamba-tiny-null-probe")),
            data=(f"selmem_sample={sample}",),
            lengths=LENGTHS,
            out=out,
            max_chunks=MAX_CHUNKS,
        )
    )
    return write_report([out], out)
