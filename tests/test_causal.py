"""Simulated measurements of the causal experiment, with effects that are known."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest

from selmem.analysis.causal import Cell, causal_table
from selmem.errors import InputError
from selmem.figures.causal import causal_effects
from selmem.resampling import Resampling
from selmem.tables import CHUNKS, WORDS, write_table
from selmem.word_pairs import WordPair

RESAMPLING = Resampling(n_resamples=400)
N_PAIRS, PER_WORD, OTHERS = 60, 8, 40
PAIRS = [
    WordPair(
        first=f"a{i}", second=f"b{i}", pos="NOUN", n_tokens=1 + i % 2, first_count=9, second_count=9
    )
    for i in range(N_PAIRS)
]


def occurrences():
    """Return (chunk id, document, word) of the evaluation text; second words are rarer in it."""
    found = []
    for i, pair in enumerate(PAIRS):
        for word, n in ((pair.first, PER_WORD), (pair.second, PER_WORD // 2)):
            found += [(f"{word}-{k}", f"doc{(i * 7 + k) % 50}", word) for k in range(n)]
    found += [(f"o{i}-{k}", f"doc{k}", f"o{i}") for i in range(OTHERS) for k in range(6)]
    return found


def write_cells(folder, *, seeds=(0, 1), encoder=0.0, reader=0.0, interaction=0.0, match=0.0):
    """Write all measurements; effects are differences in the probability of omission.

    Encoder A is worse than B as a whole, and seed 1 than seed 0; words differ from one another.
    """
    text = occurrences()
    base = {word: b for word, b in zip(dict.fromkeys(w for *_, w in text), _bases(), strict=False)}
    rare_in = {p.first: "A" for p in PAIRS} | {p.second: "B" for p in PAIRS}
    cells = []
    for seed, e, r in product(seeds, "AB", "AB"):
        rng = np.random.default_rng([seed, ord(e), ord(r)])
        rows = []
        for chunk, _, word in text:
            rare_e, rare_r = (rare_in.get(word) == side for side in (e, r))
            p = base[word] + 0.1 * (e == "A") + 0.05 * seed + match / 2 * (e == r)
            p += encoder * rare_e + reader * rare_r + interaction * rare_e * rare_r
            lost = rng.random() < p
            null = 10 + 2.0 * rare_r
            rows.append(
                {
                    "chunk_id": f"pairs/{chunk}/16/0",
                    "word_index": 0,
                    "word": word,
                    "n_tokens": 1,
                    "cut": False,
                    "omitted_aligned": lost,
                    "omitted_forced": lost,
                    "omitted_count": float(lost),
                    "null_bits": null,
                    "recovered_bits": null * (0.1 if lost else 0.9),
                }
            )
        cut = {**rows[0], "word_index": 1, "cut": True}
        out = folder / f"{seed}-{e}{r}"
        write_table(pa.Table.from_pylist([*rows, cut], WORDS), out / "words.parquet", metadata={})
        chunks = [
            {
                "chunk_id": f"pairs/{c}/16/0",
                "doc_id": f"{document}@{i}",
                "source": "pairs",
                "length": 16,
            }
            for i, (c, document, _) in enumerate(text)
        ]
        write_table(pa.Table.from_pylist(chunks, CHUNKS), out / "chunks.parquet", metadata={})
        cells.append(Cell(encoder=e, reader=r, seed=seed, folder=out))
    return cells


def _bases():
    return np.random.default_rng(5).uniform(0.1, 0.4, 2 * N_PAIRS + OTHERS)


def effects(table, outcome="omission_aligned", seed="all", group="all"):
    rows = table[(table["outcome"] == outcome) & (table["seed"] == seed)]
    rows = rows[rows["group"].isin((group, "other words"))]
    return {row["effect"]: row for _, row in rows.iterrows()}


def excludes_zero(row):
    return row["ci_low"] > 0 or row["ci_high"] < 0


def test_encoder_effect_is_found_and_no_other(tmp_path):
    found = effects(causal_table(write_cells(tmp_path, encoder=0.2), PAIRS, RESAMPLING))
    assert found["encoder"]["ci_low"] < 0.2 < found["encoder"]["ci_high"]
    assert excludes_zero(found["encoder"])
    assert found["encoder"]["p_value"] < 0.01
    assert found["encoder"]["document_low"] > 0
    for other in ("reader", "interaction", "match"):
        assert not excludes_zero(found[other]), other


def test_reader_effect_is_not_taken_for_the_encoders(tmp_path):
    found = effects(causal_table(write_cells(tmp_path, reader=0.2), PAIRS, RESAMPLING))
    assert found["reader"]["ci_low"] < 0.2 < found["reader"]["ci_high"]
    assert excludes_zero(found["reader"])
    assert not excludes_zero(found["encoder"])


def test_interaction_is_found(tmp_path):
    found = effects(causal_table(write_cells(tmp_path, interaction=0.4), PAIRS, RESAMPLING))
    assert found["interaction"]["ci_low"] < 0.4 < found["interaction"]["ci_high"]
    assert excludes_zero(found["interaction"])
    assert not excludes_zero(found["match"])
    # what a word loses where it is rare to both counts half for each
    assert found["encoder"]["value"] == pytest.approx(0.2, abs=0.05)


def test_reading_ones_own_corpus_better_shows_at_the_other_words(tmp_path):
    found = effects(causal_table(write_cells(tmp_path, match=-0.2), PAIRS, RESAMPLING))
    assert found["interaction"]["value"] == pytest.approx(-0.2, abs=0.06)
    assert found["match"]["value"] == pytest.approx(-0.2, abs=0.08)
    assert excludes_zero(found["match"])
    assert not excludes_zero(found["encoder"])


def test_what_the_null_probe_needs_is_the_readers_alone(tmp_path):
    table = causal_table(write_cells(tmp_path, encoder=0.2), PAIRS, RESAMPLING)
    null = effects(table, "null_bits")
    assert null["encoder"]["value"] == pytest.approx(0, abs=1e-6)
    assert null["reader"]["value"] == pytest.approx(2, abs=1e-6)
    assert effects(table, "recovered_fraction")["encoder"]["value"] == pytest.approx(
        -0.16, abs=0.04
    )


def test_every_word_weighs_the_same(tmp_path):
    cells = write_cells(tmp_path, seeds=(0,))
    row = effects(causal_table(cells, PAIRS, RESAMPLING))["encoder"]
    base = np.mean(_bases()[: 2 * N_PAIRS]) + 0.05
    means = [row[n] for n in ("both_frequent", "encoder_rare", "reader_rare", "both_rare")]
    assert np.mean(means) == pytest.approx(base, abs=0.02)
    assert row["value"] == pytest.approx((means[1] + means[3] - means[0] - means[2]) / 2)
    assert (row["n_pairs"], row["n_occurrences"]) == (N_PAIRS, N_PAIRS * PER_WORD * 3 // 2)


def test_groups_and_seeds_have_rows_of_their_own(tmp_path):
    table = causal_table(write_cells(tmp_path, encoder=0.2), PAIRS, RESAMPLING)
    assert set(table["group"]) == {"all", "1 token", "2 tokens", "other words"}
    assert set(table["seed"]) == {"all", "0", "1"}
    halves = [effects(table, group=g)["encoder"] for g in ("1 token", "2 tokens")]
    assert [row["n_pairs"] for row in halves] == [N_PAIRS // 2] * 2
    per_seed = [effects(table, seed=s)["encoder"]["value"] for s in ("0", "1")]
    assert np.mean(per_seed) == pytest.approx(effects(table)["encoder"]["value"])


def test_a_pair_of_which_one_word_never_occurs_is_left_out(tmp_path):
    absent = WordPair(
        first="a0", second="never", pos="NOUN", n_tokens=1, first_count=9, second_count=9
    )
    table = causal_table(write_cells(tmp_path), [absent, *PAIRS[1:]], RESAMPLING)
    assert effects(table)["encoder"]["n_pairs"] == N_PAIRS - 1


def test_missing_combinations_and_other_text_are_refused(tmp_path):
    cells = write_cells(tmp_path, seeds=(0,))
    with pytest.raises(InputError, match=r"\(0, 'B', 'B'\) is missing or there twice"):
        causal_table(cells[:3], PAIRS, RESAMPLING)
    words = pa.parquet.read_table(cells[0].folder / "words.parquet")
    write_table(words.slice(1), cells[0].folder / "words.parquet", metadata={})
    with pytest.raises(InputError, match="is not in all measurements with the same words"):
        causal_table(cells, PAIRS, RESAMPLING)


def test_figure_has_a_panel_per_outcome(tmp_path):
    table = causal_table(write_cells(tmp_path, encoder=0.2), PAIRS, RESAMPLING)
    figure = causal_effects(table)
    assert len(figure.axes) == 3
    figure.savefig(tmp_path / "figure.png")
    assert causal_effects(table[table["seed"] == "none"]) is None
