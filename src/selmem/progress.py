"""Progress bars of other libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)


@contextmanager
def no_transformers_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for every file that it reads or writes, meanwhile."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()
