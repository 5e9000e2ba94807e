import numpy as np
import pytest

from selmem.corpus_store import Windows
from selmem.errors import InputError
from selmem.runs.schedules import BatchSchedule


def windows_of(length, sizes=(50, 3, 70)):
    counts = np.maximum(np.array(sizes) - length + 1, 0)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return Windows(length, first[counts > 0], np.cumsum(counts[counts > 0]))


def schedule(weights=(1.0, 3.0), seed=0, tokens_per_batch=64):
    return BatchSchedule(
        [windows_of(4), windows_of(16)], weights, tokens_per_batch=tokens_per_batch, seed=seed
    )


def test_a_batch_follows_from_seed_and_step_alone():
    forwards = [schedule().batch(step) for step in range(20)]
    backwards = [schedule().batch(step) for step in reversed(range(20))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.length == other.length
        assert one.starts.tolist() == other.starts.tolist()
    assert any(
        schedule(seed=1).batch(step).starts.tolist() != forwards[step].starts.tolist()
        for step in range(20)
    )


def test_every_batch_has_one_length_and_the_same_number_of_tokens():
    for step in range(20):
        batch = schedule().batch(step)
        assert batch.length * len(batch.starts) == 64


def test_lengths_get_the_share_of_batches_that_their_weights_say():
    drawn = [schedule().batch(step).length for step in range(2000)]
    assert np.mean(np.array(drawn) == 16) == pytest.approx(0.75, abs=0.03)
    assert {schedule(weights=(1.0, 0.0)).batch(step).length for step in range(50)} == {4}


def test_all_windows_are_drawn_equally_often():
    counts = np.zeros(123)
    one = BatchSchedule([windows_of(4)], [1.0], tokens_per_batch=4000, seed=0)
    for step in range(100):
        counts += np.bincount(one.batch(step).starts, minlength=123)
    valid = np.array([*range(47), *range(53, 120)])
    assert counts.sum() == counts[valid].sum()
    assert counts[valid] == pytest.approx(counts[valid].mean(), rel=0.2)


def test_shares_of_a_batch_make_up_the_batch():
    batch = schedule(tokens_per_batch=100).batch(3)
    shares = [batch.share(index, 3).starts for index in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == sorted(batch.starts.tolist())


@pytest.mark.parametrize(
    ("weights", "tokens_per_batch", "message"),
    [
        ((1.0,), 64, "one weight for each of the 2 lengths"),
        ((1.0, -1.0), 64, "none negative"),
        ((0.0, 0.0), 64, "not all zero"),
        ((1.0, 1.0), 8, "a batch of 8 tokens holds no window of 16"),
    ],
)
def test_a_mix_that_cannot_be_drawn_is_refused(weights, tokens_per_batch, message):
    with pytest.raises(InputError, match=message):
        schedule(weights, tokens_per_batch=tokens_per_batch)


def test_a_length_that_no_document_reaches_is_refused():
    with pytest.raises(InputError, match=r"windows of \[200\] tokens"):
        BatchSchedule([windows_of(200)], [1.0], tokens_per_batch=400, seed=0)
