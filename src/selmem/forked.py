"""The same function on many inputs, in copies of this process that share its memory."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_work: tuple[Callable[[Any], Any], Sequence[Any]] | None = None  # of the copies


def forked_map(function: Callable[[T], R], items: Sequence[T], workers: int) -> list[R]:
    """Return the function's result for every item, in order.

    Args:
        function: of one item; it must not use a GPU. Its result is sent between processes, itself
            and the items are not.
        items: any number.
        workers: processes, copies of this one (POSIX); 1 is this one. Copies make no copies.
    """
    global _work
    n_processes = min(workers, len(items))
    if n_processes < 2 or _work is not None:
        return [function(item) for item in items]
    _work = function, items
    try:
        with _quiet(), get_context("fork").Pool(n_processes) as pool:
            return pool.map(_one, range(len(items)), chunksize=1)
    finally:
        _work = None


def _one(index: int) -> Any:
    assert _work is not None
    function, items = _work
    return function(items[index])


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Python's warning that other threads are not copied: no function here needs them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        yield
