import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from study_stand_in import token_counts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import study_readme_tables as tables


def committed(**kept):
    return SimpleNamespace(table=kept.get, family=kept.get)


def again(run, length, values, outcome="recovered_fraction"):
    return [
        {"run": run, "length": length, "outcome": outcome, "value": a, "value_again": b}
        for a, b in values
    ]


RERUNS = pd.DataFrame(
    again("1m-again", 64, [(0.1, 0.15), (0.2, 0.22), (0.5, 0.6)])
    + again("1m-again", 16, [(0.1, 0.9)])
    + again("1m-again", 64, [(0.1, 0.9)], outcome="omission_rate")
    + again("1m-seed1", 64, [(0.1, 0.9)])
)


def test_the_shift_is_the_median_over_the_cells_of_one_run_and_length():
    assert tables.shift(committed(reruns=RERUNS), "1m-again", 64) == "5.0"


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.3, 0.4, 0.5], "1.00"), ([0.5, 0.4, 0.3], "-1.00"), ([0.3, 0.5, 0.4], "0.50")],
)
def test_agreement_in_rank_does_not_see_the_level(values, expected):
    cells = pd.DataFrame(again("1m-again", 64, zip([0.1, 0.2, 0.9], values, strict=True)))
    assert tables.rank_agreement(committed(reruns=cells), "1m-again", 64) == expected


def test_a_loss_is_compared_within_one_size_scheme_and_rule():
    rows = [
        ("4m", 64, "count", "ner", "ORG", 0.8),
        ("4m", 64, "count", "ner", "O", 0.6),
        ("4m", 16, "count", "ner", "ORG", 0.1),
        ("1m", 64, "count", "ner", "ORG", 0.1),
        ("4m", 64, "aligned", "ner", "ORG", 0.1),
        ("4m", 64, "count", "pos", "O", 0.1),
    ]
    names = ["size", "length", "rule", "scheme", "tag", "recovered_fraction"]
    omission = pd.DataFrame(rows, columns=names)
    assert tables.loss_ratio(committed(omission=omission), "ner", "ORG", "O", "4m") == "0.50"


@pytest.mark.parametrize(
    ("bits_of_4m", "holds"),
    [({64: 1.9, 256: 3.4}, True), ({64: 2.2, 256: 3.4}, False), ({64: 1.9, 256: 3.7}, False)],
)
def test_the_order_of_sizes_holds_where_fewest_tokens_beat_most_of_the_smaller(bits_of_4m, holds):
    rows = [("1m", 64, 2.4, 2.3), ("1m", 64, 2.3, 2.1), ("1m", 256, 3.7, 3.6)]
    rows += [("4m", n, bits, bits - 0.5) for n, bits in bits_of_4m.items()]
    found = pd.DataFrame(rows, columns=["size", "length", "bits", "bits_after"])
    nulls = found.assign(kind="null probe", bits=9.0, bits_after=0.1)
    table = pd.concat([found.assign(kind="probe"), nulls])
    assert tables.order_holds(committed(convergence=table)) == holds


def test_one_size_alone_has_no_order():
    row = {"kind": "probe", "size": "1m", "length": 64, "bits": 2.0, "bits_after": 1.9}
    assert not tables.order_holds(committed(convergence=pd.DataFrame([row])))


def test_token_counts_stand_by_length_with_the_corpus_first_and_each_number_in_its_cell():
    made = token_counts()
    rows = tables.token_count_table(committed(token_counts=made))
    assert [row.split(" | ")[:2] for row in rows[2:4]] == [
        ["| count in the corpus", "16 tokens"],
        ["| count in the Pile", "16 tokens"],
    ]
    assert len(rows) == 2 + 3 * 2
    own = made[(made["length"] == 64) & (made["predictor"] == "count in the Pile")]
    own = own.set_index(["outcome", "adjusted_for"])
    cells = [own.loc["omission_aligned", ""], own.loc["omission_aligned", "other count"]]
    cells.append(own.loc["recovered_fraction", ""])
    shown = [f"{row.correlation:+.2f} [{row.ci_low:+.2f}, {row.ci_high:+.2f}]" for row in cells]
    assert rows[5].split(" | ")[2:5] == shown
    assert rows[0].split(" | ")[2:5] == ["omission", "omission, other held", "share recovered"]
