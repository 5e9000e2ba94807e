"""Token counts of two corpora against what is lost, where it is known which of them acts."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from selmem.errors import InputError
from selmem.frequency import count
from selmem.resampling import Resampling
from selmem.tables import read_table
from selmem.tokenization import tokenizer_hash
from small_tokenizers import TEXT, byte_level

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import study_measures
import study_token_counts as counts

N_TYPES, N_TOKENS = 400, 12_000
KEY = ["predictor", "outcome", "adjusted_for"]
FORM = "other count, characters, leading space"


def two_counts(rng):
    """Return types whose counts are alike, neither made from the other."""
    common = rng.normal(size=N_TYPES)
    types = {name: common + 0.5 * rng.normal(size=N_TYPES) for name in (counts.CORPUS, counts.PILE)}
    form = {"characters": rng.integers(1, 9, N_TYPES), "leading space": rng.integers(0, 2, N_TYPES)}
    return pd.DataFrame(types | form).astype(float)


def measured(types, cause, rng):
    """Return tokens whose loss follows a column of the types.

    Where it is high, tokens are omitted less and cost more bits, of which less is recovered.
    """
    ids = np.concatenate([np.tile(np.arange(N_TYPES), 10), rng.integers(0, N_TYPES, 8000)])
    rank = stats.rankdata(types[cause])[ids] / N_TYPES
    null = 4 + 8 * rank + rng.normal(size=N_TOKENS)
    share = 0.9 - 0.5 * rank + rng.uniform(-0.1, 0.1, N_TOKENS)
    document = rng.integers(0, 40, N_TOKENS)
    tokens = {
        "token_id": ids,
        "length": 64,
        "document": document,
        "unaligned": (rng.random(N_TOKENS) < 0.9 - 0.8 * rank).astype(float),
        "null_bits": null,
        "recovered_bits": null * share,
    }
    source = pd.Categorical.from_codes(document % 2, ["code", "news"])
    return SimpleNamespace(tokens=pd.DataFrame(tokens).assign(source=source))


def correlated(cause):
    rng = np.random.default_rng(0)
    types = two_counts(rng)
    table = counts.correlation_table(measured(types, cause, rng), types, Resampling(n_resamples=30))
    return types, table.set_index(KEY)


@pytest.mark.parametrize("cause", [counts.CORPUS, counts.PILE])
def test_of_two_like_counts_only_the_one_that_acts_is_left_with_the_other_held_fixed(cause):
    other = counts.OTHERS[cause]
    _, table = correlated(cause)
    for outcome, sign in {"omission_aligned": -1, "null_bits": 1, "recovered_fraction": -1}.items():
        value = sign * table["correlation"].xs(outcome, level="outcome")
        assert value[cause, ""] > value[other, ""] > 0.6
        for held in (counts.OTHER, FORM):
            assert value[cause, held] > 0.6
            assert abs(value[other, held]) < 0.15
    row = table.loc[cause, "omission_aligned", ""]
    assert row["ci_low"] < row["correlation"] < row["ci_high"] < 0
    assert (row["n_points"], row["n_documents"]) == (N_TYPES, 40)


def test_what_the_form_of_a_token_does_is_taken_from_no_count():
    rng = np.random.default_rng(1)
    types = two_counts(rng)
    types["characters"] = np.round(10 - 2 * types[counts.CORPUS])
    rows = measured(types, "characters", rng)
    table = counts.correlation_table(rows, types, Resampling(n_resamples=2)).set_index(KEY)
    value = table["correlation"].xs("null_bits", level="outcome")[counts.CORPUS]
    assert value[counts.OTHER] < -0.6
    assert abs(value[FORM]) < 0.15


def test_the_two_counts_are_correlated_once_and_every_row_is_there_once():
    types, table = correlated(counts.CORPUS)
    expected = stats.spearmanr(types[counts.CORPUS], types[counts.PILE]).statistic
    found = table.loc[counts.CORPUS, counts.PILE, ""]
    assert found["correlation"] == pytest.approx(expected, abs=1e-9)
    assert len(table) == 1 + 2 * len(counts.OUTCOMES) * 3
    assert table.index.is_unique


@pytest.fixture
def work(tmp_path):
    """Return a working folder with the counts of a short text, and one of the Pile."""
    tokenizer = byte_level(nfc=True)
    tokenizer.save_pretrained(tmp_path / counts.TOKENIZER)
    (tmp_path / "text.txt").write_text(TEXT * 3)
    count([f"text={tmp_path / 'text.txt'}"], tmp_path / counts.TOKENIZER, tmp_path / counts.COUNTS)
    np.save(tmp_path / counts.PILE_COUNTS, np.arange(len(tokenizer), dtype=np.int64) % 7)
    folder = tmp_path / "measured" / counts.NEOX
    folder.mkdir(parents=True)
    (folder / "run.json").touch()
    return tmp_path, tokenizer


def test_counts_are_per_million_with_half_an_occurrence_for_unseen_tokens(work):
    folder, tokenizer = work
    pile = folder / counts.PILE_COUNTS
    types = counts.token_types(folder, pile, tokenizer_hash(tokenizer))
    total = np.load(pile).sum()
    expected = np.log10(np.array([0.5, 1, 2]) / total * 1e6)
    assert types[counts.PILE].iloc[:3].to_list() == pytest.approx(expected)
    [word, *_] = tokenizer(" the")["input_ids"]
    text = tokenizer.decode([word])
    assert text.startswith(" ")
    assert types.loc[word, counts.FORM].to_list() == [len(text), 1]
    seen = types[counts.CORPUS] > types[counts.CORPUS].min()
    assert seen[word]
    assert set(tokenizer(TEXT)["input_ids"]) == set(types.index[seen])


def test_counts_of_another_tokenizer_are_refused(work):
    folder, tokenizer = work
    pile, own = folder / counts.PILE_COUNTS, tokenizer_hash(tokenizer)
    with pytest.raises(InputError, match="measured/4m-neox is of tokenizer 0123"):
        counts.token_types(folder, pile, "0123")
    np.save(pile, np.load(pile)[1:])
    with pytest.raises(InputError, match=f"counts {len(tokenizer) - 1} tokens, the tokenizer has"):
        counts.token_types(folder, pile, own)


def run(monkeypatch, folder, measurement=None):
    pile = str(folder / counts.PILE_COUNTS)
    monkeypatch.setattr(sys, "argv", ["study_token_counts.py", str(folder), pile])
    monkeypatch.setattr(counts, "load_measurement", lambda _: measurement)
    counts.main()


def test_the_table_is_written_where_it_is_collected(work, monkeypatch):
    folder, tokenizer = work
    rng = np.random.default_rng(0)
    tokens = measured(two_counts(rng), counts.PILE, rng).tokens.query("token_id < 300")
    made = SimpleNamespace(tokens=tokens, tokenizer_hash=tokenizer_hash(tokenizer))
    monkeypatch.setattr(counts, "N_RESAMPLES", 5)
    run(monkeypatch, folder, made)
    [planned] = study_measures.token_counts(study_measures.Text([], 1, 1, folder))
    assert set(read_table(folder / planned.mark)["length"].to_pylist()) == {64}
    assert all((folder / path).exists() for path in planned.files)


@pytest.mark.parametrize("path", [counts.COUNTS, counts.PILE_COUNTS, "measured/4m-neox/run.json"])
def test_what_is_missing_is_named(work, monkeypatch, path):
    folder, _ = work
    (folder / path).unlink()
    with pytest.raises(SystemExit, match=f"not there: {folder / path}$"):
        run(monkeypatch, folder)


def test_the_comparison_is_planned_only_where_the_piles_counts_are(tmp_path):
    text = study_measures.Text(["a=b"], 1, 1, tmp_path)
    assert "comparisons/token_counts" not in {run.out for run in study_measures.report(text)}
    (tmp_path / counts.PILE_COUNTS).touch()
    [planned] = [r for r in study_measures.report(text) if r.out == "comparisons/token_counts"]
    assert planned.arguments() == [".", counts.PILE_COUNTS]
    made = {run.mark for run in study_measures.measure(text)}
    own = {counts.COUNTS, counts.PILE_COUNTS, f"{counts.TOKENIZER}/tokenizer.json"}
    assert set(planned.inputs) - own <= made
