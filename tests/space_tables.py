"""Small published tables of one probe, as `hub_cards/tables` holds them."""

import pyarrow as pa

from selmem.tables import OMISSION, write_table

PROBE = "selmem/mamba-tiny-probe"
_RATES = {"NOUN": 0.5, "DET": 0.25, "whole": 0.4, "without_last_4": 0.45}


def omission_row(tag, length, rule, *, scheme="pos", source="news"):
    rate = _RATES[tag]
    return {
        "encoder": "selmem/mamba-tiny",
        "probe": PROBE,
        "source": source,
        "length": length,
        "scheme": scheme,
        "tag": tag,
        "rule": rule,
        "n_words": 1234 if tag == "NOUN" else 321,
        "n_documents": 12,
        "omission_rate": rate,
        "ci_low": rate - 0.1,
        "ci_high": rate + 0.1,
        "chance_rate": 0.9,
        "retained_over_chance": 1 - rate / 0.9,
        "recovered_fraction": 0.5,
        "tokens_per_word": 1.5,
    }


def write_tables(folder):
    """Write omission, positions and verdicts of two sources: news (16, 64) and maths (16)."""
    rows = [
        omission_row(tag, length, rule, source=source)
        for source, length in (("news", 16), ("news", 64), ("maths", 16))
        for rule in ("count", "aligned", "forced")
        for tag in ("DET", "NOUN")
    ]
    rows += [
        omission_row(tag, length, "aligned", scheme="all")
        for tag in ("whole", "without_last_4")
        for length in (16, 64)
    ]
    tables = {
        "omission": pa.Table.from_pylist(rows, OMISSION),
        "positions": pa.Table.from_pylist(_positions()),
        "verdicts": pa.Table.from_pylist([_verdict(64), _verdict(0)]),
    }
    for name, table in tables.items():
        write_table(table, folder / "mamba-tiny-probe" / f"{name}.parquet", metadata={})
    return folder


def _positions():
    return [
        {
            "encoder": "selmem/mamba-tiny",
            "probe": PROBE,
            "source": "news",
            "length": 64,
            "scale": scale,
            "position": i,
            **{
                f"{name}_omission_rate{end}": 0.5 + 0.01 * i
                for name in ("forced", "aligned")
                for end in ("", "_low", "_high")
            },
        }
        for scale in ("relative", "absolute")
        for i in range(16)
    ]


def _verdict(length):
    return {
        "claim": "numbers",
        "statement": "Numbers are lost <more>.",
        "length": length,
        "paper": "51 %",
        "ours_paper_rule": 0.04,
        "ours_controlled": float("nan"),
        "ci_low": -0.01,
        "ci_high": 0.09,
        "verdict": "undecided",
        "encoder": "selmem/mamba-tiny",
        "probe": PROBE,
    }
