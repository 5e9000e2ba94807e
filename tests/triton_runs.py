"""How claims about Triton kernels are run: in processes of their own, on poisoned memory."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def run_cases(cases, **environment):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(cases)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fill what torch.empty returns with NaN: an output that is not written cannot pass."""
    empty = torch.empty

    def filled(*shape, **options):
        values = empty(*shape, **options)
        return values.fill_(float("nan")) if values.is_floating_point() else values

    monkeypatch.setattr(torch, "empty", filled)
