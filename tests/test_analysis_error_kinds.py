from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selmem.analysis.error_kinds import EDITS, FATES, edit_table, fate_table, find_edits
from selmem.resampling import Resampling
from synthetic_tables import loaded

FEW = Resampling(n_resamples=200, seed=1)


def lists(*rows):
    return pa.array(rows, pa.list_(pa.int32()))


def test_gaps_between_aligned_tokens_become_substitutions_deletions_and_insertions():
    edits = find_edits(
        lists([1, 2, 3, 4, 5], [1, 2, 3], [7, 8]),
        lists([1, 9, 4, 5, 6], [1, 3], [5, 7, 8, 6, 6]),
    )
    assert edits.aligned.tolist() == [1, 0, 0, 1, 1, 1, 0, 1, 1, 1]
    assert edits.substitute.tolist() == [-1, 9, -1, -1, -1, -1, -1, -1, -1, -1]
    assert edits.inserted.tolist() == [1, 0, 3]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 4), min_size=1, max_size=8),
            st.lists(st.integers(0, 4), max_size=8),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_edits_account_for_every_token_of_both_texts(pairs):
    references, others = zip(*pairs, strict=True)
    edits = find_edits(lists(*references), lists(*others))
    n_replaced = (edits.substitute >= 0).sum()
    assert not (edits.aligned & (edits.substitute >= 0)).any()
    assert len(edits.aligned) == sum(map(len, references))
    assert edits.aligned.sum() + n_replaced + edits.inserted.sum() == sum(map(len, others))


@pytest.fixture(scope="module")
def measurement():
    return loaded(n_documents=12, lengths=(16,))


def test_an_oracle_has_no_edits_and_an_empty_reconstruction_only_deletions(measurement):
    oracle = find_edits(measurement.reference_ids, measurement.reference_ids)
    assert (edit_table(measurement, oracle, FEW)[list(EDITS)] == 0).all().all()
    empty = lists(*([[]] * len(measurement.chunks)))
    edits = edit_table(measurement, find_edits(measurement.reference_ids, empty), FEW)
    assert edits[list(EDITS)].to_numpy().tolist() == [[0, 1, 0]]


def test_alignment_agrees_with_the_tables_own(measurement):
    edits = find_edits(measurement.reference_ids, measurement.reconstructed_ids)
    assert (edits.aligned == measurement.tokens["aligned"]).mean() > 0.99


def planted(ids, reconstructed):
    """One chunk of two words, NOUN = tokens 0 and 1, VERB = token 2, repeated in 12 documents."""
    m = loaded(n_documents=12, lengths=(16,))
    n = 12
    chunks = m.chunks.iloc[:n].assign(n_tokens=len(ids), document=np.arange(n))
    words = pd.DataFrame(
        {
            "chunk": np.repeat(np.arange(n), 2),
            "document": np.repeat(np.arange(n), 2),
            "source": pd.Categorical(["news"] * 2 * n),
            "length": 16,
            "cut": False,
            "pos": pd.Categorical(["NOUN", "VERB"] * n),
            "first_position": [0, 2] * n,
            "last_position": [1, 2] * n,
            "omitted_aligned": 1.0,
        }
    )
    return replace(
        m,
        chunks=chunks,
        words=words,
        reference_ids=lists(*([ids] * n)),
        reconstructed_ids=lists(*([reconstructed] * n)),
    )


@pytest.mark.parametrize(
    ("reconstructed", "noun", "verb"),
    [
        ([1, 9, 9], FATES[0], FATES[4]),
        ([9, 2, 9], FATES[1], FATES[4]),
        ([], FATES[5], FATES[5]),
        ([3], FATES[5], None),
        ([8, 8, 3], FATES[4], None),
    ],
)
def test_fates_of_words_whose_reconstruction_is_known(reconstructed, noun, verb):
    m = planted([1, 2, 3], reconstructed)
    kept = 3 in reconstructed
    m = replace(m, words=m.words.assign(omitted_aligned=[1.0, 0.0 if kept else 1.0] * 12))
    table = fate_table(m, find_edits(m.reference_ids, m.reconstructed_ids), FEW).set_index("tag")
    for tag, fate in (("NOUN", noun), ("VERB", verb)):
        if fate is not None:
            assert table.loc[tag, fate] == 1, (tag, fate)
    assert table.loc[:, list(FATES)].sum(axis=1).to_numpy() == pytest.approx(1)


def test_a_replacement_by_another_annotated_word_is_known_by_its_class():
    m = planted([1, 2, 3, 4], [4, 4, 4, 4])
    words = m.words.copy()
    third = words.iloc[::2].assign(first_position=3, last_position=3, omitted_aligned=0.0)
    words = pd.concat([words, third.assign(pos=pd.Categorical(["VERB"] * 12))])
    words["pos"] = words["pos"].astype("category")
    m = replace(m, words=words)
    table = fate_table(m, find_edits(m.reference_ids, m.reconstructed_ids), FEW).set_index("tag")
    assert table.loc["VERB", "replaced, same class"] == 1
    assert table.loc["NOUN", "replaced, no known word"] == 1
