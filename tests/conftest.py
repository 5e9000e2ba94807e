import os
from collections import Counter
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# real data that developers keep beside the checkout; a user has only the repository
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_collection_modifyitems(items):
    """Put the files with the largest share of slow tests first, then those with most tests.

    Processes that take a file at a time then do not end up waiting for a long one.
    """
    n_tests = Counter(item.path for item in items)
    n_slow = Counter(item.path for item in items if _is_slow(item))
    items.sort(key=lambda item: (-n_slow[item.path] / n_tests[item.path], -n_tests[item.path]))


def _is_slow(item):
    return any(item.get_closest_marker(name) for name in ("slow", "browser"))


@pytest.fixture
def shared_data():
    """Return a function from a relative path to the shared data; it skips where they are absent."""

    def path(relative):
        found = SHARED / "data" / relative
        if not found.exists():
            pytest.skip(f"{relative} is not beside this checkout")
        return found

    return path


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Tiny models as training would leave them; what changes a folder takes a copy."""
    from tiny_release import make_release

    return make_release(tmp_path_factory.mktemp("release"))
