import pytest

from selmem.errors import InputError
from selmem.sampling import pick_chunks

IDS = [str(number) for number in range(300)]


def test_all_chunks_are_taken_below_the_cap():
    assert pick_chunks(["a", "b", "c"], [3, 0, 1], 4, seed=0) == {0: [0, 1, 2], 2: [0]}


def test_the_cap_is_filled_exactly():
    picks = pick_chunks(IDS, [7] * 300, 1000, seed=0)
    assert sum(map(len, picks.values())) == 1000
    assert all(numbers == sorted(set(numbers)) for numbers in picks.values())


def test_the_sample_keeps_the_weight_of_long_documents():
    picks = pick_chunks(IDS, [90] * 30 + [10] * 270, 1080, seed=0)
    from_long = sum(len(numbers) for index, numbers in picks.items() if index < 30)
    assert from_long / 1080 == pytest.approx(0.5, abs=0.06)  # 2,700 of 5,400 chunks


def test_line_aligned_sources_keep_the_same_lines():
    one = pick_chunks(IDS, [1] * 300, 200, seed=3)
    other = pick_chunks(IDS, [1] * 290 + [0] * 10, 200, seed=3)
    assert len(one.keys() & other.keys()) > 190


def test_a_sample_repeats_with_its_seed_and_differs_with_another():
    assert pick_chunks(IDS, [5] * 300, 100, seed=1) == pick_chunks(IDS, [5] * 300, 100, seed=1)
    assert pick_chunks(IDS, [5] * 300, 100, seed=1) != pick_chunks(IDS, [5] * 300, 100, seed=2)


def test_a_cap_below_one_is_refused():
    with pytest.raises(InputError, match="a cap of 0 chunks"):
        pick_chunks(IDS, [1] * 300, 0, seed=0)
