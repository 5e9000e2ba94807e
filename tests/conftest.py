import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# real data that developers keep beside the checkout; a user has only the repository
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture
def shared_data():
    """Return a function from a relative path to the shared data; it skips where they are absent."""

    def path(relative):
        found = SHARED / "data" / relative
        if not found.exists():
            pytest.skip(f"{relative} is not beside this checkout")
        return found

    return path
