"""The short table that the terminal shows."""

from collections.abc import Iterator, Mapping

import pandas as pd

from selmem.analysis.measurements import POOLED
from selmem.figures.bars import TAG_NAMES
from selmem.figures.style import pick
from selmem.report.text import interval, number
from selmem.tables import length_name

_NAME_WIDTH, _CELL_WIDTH = 14, 28
_SCHEMES = {"pos": "part of speech", "entity": "entity"}


def summary(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return omission by part of speech and entity as text of at most 100 columns.

    Args:
        tables: as `analyse` returns them; `omission` is used.
    """
    omission = tables["omission"]
    if not len(omission):
        return "No word was annotated, so there is no omission by class; see the report."
    models = omission.groupby(["encoder", "probe"], sort=False)
    return "\n\n".join(
        "\n".join(_model_lines(str(encoder), str(probe), rows)) for (encoder, probe), rows in models
    )


def _model_lines(encoder: str, probe: str, rows: pd.DataFrame) -> Iterator[str]:
    pooled = rows[rows["source"] == POOLED]
    rows = pooled if len(pooled) else rows
    rows = rows[rows["rule"] == "count"]
    lengths = pick(rows["length"].unique())
    yield f"{encoder}, read by {probe}; text: {rows['source'].iloc[0]}"[:100]
    yield "Words not recovered, percent [95 % interval] / by chance"
    yield _line("", [length_name(length) for length in lengths])
    whole = rows[(rows["scheme"] == "all") & (rows["tag"] == "whole")]
    yield _line("all words", [_cell(whole, length) for length in lengths])
    recovered = whole.set_index("length")["recovered_fraction"].reindex(lengths)
    if recovered.notna().any():
        cells = [f"{number(100 * value):>5}" for value in recovered]
        yield _line("bits recovered", cells)
    for scheme, title in _SCHEMES.items():
        part = rows[rows["scheme"] == scheme]
        if len(part):
            yield f"by {title}"
            order = part.groupby("tag")["omission_rate"].mean().sort_values(ascending=False)
            for tag in order.index:
                own = part[part["tag"] == tag]
                name = f"  {TAG_NAMES.get(str(tag), str(tag))}"
                yield _line(name, [_cell(own, length) for length in lengths])


def _line(name: str, cells: list[str]) -> str:
    return (f"{name:<{_NAME_WIDTH}} " + "".join(f"{c:<{_CELL_WIDTH}}" for c in cells)).rstrip()


def _cell(rows: pd.DataFrame, length: int) -> str:
    found = rows[rows["length"] == length]
    if not len(found):
        return ""
    row = found.iloc[0]
    ends = interval(row["ci_low"], row["ci_high"], int(row["n_documents"]))
    ends = ends.replace("docs: too few", "docs")
    return f"{number(100 * row['omission_rate']):>5} {ends} / {number(100 * row['chance_rate'], 0)}"
