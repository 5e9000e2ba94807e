"""Write the README's tables of results, and its section on the study, from committed tables.

    python scripts/readme_tables.py            # rewrites README.md and hub_cards/findings.md
    python scripts/readme_tables.py OUT        # into another folder

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, the study's section between
`<!-- study -->` and `<!-- end study -->`; there is none while nothing of the study is committed.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from study_figures import Committed
from study_readme import render

from selmem.tables import WHOLE_TEXT, read_table, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "results"
AFTER_STUDY = "## Where the truth is known\n"
STUDY = re.compile(r"<!-- study -->\n.*?<!-- end study -->\n\n", flags=re.DOTALL)


def bundle_table() -> list[str]:
    """Return what the bundled probe reaches on held-out text, a row a length."""
    lengths = json.loads((RESULTS / "bundle.json").read_text())["lengths"]
    return [
        "| T | in place | forced | bits, probe | bits, null probe |",
        "|---|---|---|---|---|",
        *(
            f"| {length} | {row['in_place']:.3f} | {row['probe']['accuracy']:.3f} "
            f"| {row['probe']['bits']:.2f} | {row['null']['bits']:.2f} |"
            for length, row in lengths.items()
        ),
    ]


def speed_table() -> list[str]:
    """Return tokens a second at the 130M shape on a GPU, ours beside others'."""
    bench = json.loads((RESULTS / "bench_gpu.json").read_text())
    paper, encode = bench["paper"], bench["encode"]
    stock = bench["encode_stock"]["transformers + mamba-ssm"]["tokens_s"]
    ours = bench["train_130m"]["B=128 T=256"]
    rows = [
        (
            f"training step, 128 texts of 256 tokens ({ours['peak_mb_token']:.2f} MB a token)",
            ours["tokens_s"],
            paper["train_tokens_s"],
            f"the paper's code, 16 texts ({paper['train_peak_mb_token']:.1f} MB a token)",
        ),
        (
            "training, two GPUs",
            bench["two_gpus"]["2"]["tokens_s"],
            bench["two_gpus"]["1"]["tokens_s"],
            "one GPU",
        ),
        *(
            (
                f"reconstruction, {batch.partition('=')[2]} at a time",
                bench["reconstruct"][batch]["tokens_s"],
                paper[f"reconstruct_tokens_s_{batch}"],
                "the paper's code",
            )
            for batch in ("B=256", "B=1")
        ),
        *(
            (
                f"encoding, {shape.partition('T=')[2]} tokens",
                encode[shape],
                stock[shape],
                "transformers with mamba-ssm",
            )
            for shape in ("B=2048 T=16", "B=512 T=64", "B=128 T=256")
        ),
    ]
    return [
        "| | selmem, tokens/s | others, tokens/s | | ratio |",
        "|---|---|---|---|---|",
        *(f"| {what} | {a:,.0f} | {b:,.0f} | {who} | {a / b:.1f} |" for what, a, b, who in rows),
    ]


def trial_table() -> list[str]:
    """Return the verdicts at 64 tokens, or on whole texts where a claim has only those."""
    rows = read_table(RESULTS / "trial" / "verdicts.parquet").to_pylist()
    tested = [row for row in rows if row["verdict"] != "not measured"]
    at_64 = {row["claim"]: row for row in tested if row["length"] == 64}
    whole = {row["claim"]: row for row in tested if row["length"] == WHOLE_TEXT}
    chosen = whole | at_64
    return [
        "| claim | by the paper's measure | by bits not recovered [95 %] | verdict |",
        "|---|---|---|---|",
        *(_claim(chosen[name]) for name in dict.fromkeys(row["claim"] for row in tested)),
    ]


def channel_table() -> list[str]:
    """Return what was measured where it is known what was lost, a row an erasure probability."""
    result = json.loads((RESULTS / "channel" / "channel.json").read_text())
    names = ("erased", "intact", "other")
    return [
        "| erased | bits recovered: erased words | intact words | other tokens "
        "| omitted: erased words | intact words | other tokens |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {100 * float(p):.0f} % | "
            + " | ".join(_mean(groups.get(name), "recovered_bits", 1, ".2f") for name in names)
            + " | "
            + " | ".join(_mean(groups.get(name), "omission", 100, ".1f", " %") for name in names)
            + " |"
            for p, groups in result["rows"].items()
        ),
    ]


def _mean(row: dict[str, float] | None, key: str, scale: int, form: str, unit: str = "") -> str:
    return "" if row is None else f"{scale * row[key]:{form}}{unit}"


def _claim(row: dict[str, Any]) -> str:
    """Return differences in points, or correlations."""
    scale, unit = (1, ".2f") if "correlation" in row["measure"] else (100, ".1f")
    names = ("ours_paper_rule", "ours_controlled", "ci_low", "ci_high")
    rule, controlled, low, high = (f"{scale * row[name]:+{unit}}" for name in names)
    return f"| {row['statement']} | {rule} | {controlled} [{low}, {high}] | {row['verdict']} |"


def with_tables(text: str) -> str:
    """Return `text` with its tables made again."""
    tables = {
        "bundle": bundle_table(),
        "trial": trial_table(),
        "channel": channel_table(),
        "speed": speed_table(),
    }
    for name, rows in tables.items():
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", flags=re.DOTALL)
        table = "".join(f"{row}\n" for row in rows)
        text, n_found = marked.subn(lambda m, table=table: m[1] + table + m[2], text)
        if n_found != 1:
            raise SystemExit(f"README.md has {n_found} places for the table {name}, expected one")
    return text


def with_study(text: str, section: str) -> str:
    """Return the README with the study's section in its place, or without it where it is empty."""
    text = STUDY.sub("", text)
    if not section:
        return text
    before, heading, after = text.partition(AFTER_STUDY)
    if not heading:
        raise SystemExit(
            f"README.md has no heading {AFTER_STUDY.strip()!r} to put the study before"
        )
    return f"{before}<!-- study -->\n{section}<!-- end study -->\n\n{heading}{after}"


def texts(root: Path = ROOT) -> dict[str, str]:
    """Return the README, and the findings where the study is committed, by path below `root`."""
    committed = Committed(root)
    study = render(committed) if committed.study.is_dir() else {"section": "", "findings": ""}
    readme = with_study((ROOT / "README.md").read_text(encoding="utf-8"), "")
    found = {"README.md": with_study(with_tables(readme), study["section"])}
    if study["findings"]:
        found["hub_cards/findings.md"] = study["findings"] + "\n"
    return found


def main() -> None:
    """Read the argument and write the texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=ROOT)
    out = parser.parse_args().out
    for path, text in texts().items():
        write_text(out / path, text)


if __name__ == "__main__":
    main()
