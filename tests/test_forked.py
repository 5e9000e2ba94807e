"""The same results, in order, whatever the number of processes."""

import os

import pytest

from selmem.forked import forked_map


def test_results_are_in_the_order_of_the_items():
    offset = 10
    assert forked_map(lambda item: item + offset, [3, 1, 2], 2) == [13, 11, 12]
    assert forked_map(lambda item: item, [], 4) == []


def test_copies_do_the_work_and_make_no_copies():
    nested = forked_map(lambda _: forked_map(lambda _: os.getpid(), [1, 2], 2), [1, 2], 2)
    assert os.getpid() not in {one for pair in nested for one in pair}
    assert all(first == second for first, second in nested)
    assert forked_map(lambda _: os.getpid(), [1, 2], 1) == [os.getpid()] * 2


def test_an_error_in_a_copy_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        forked_map(lambda item: 1 / item, [1, 0], 2)
    assert forked_map(abs, [-1, -2], 2) == [1, 2]
