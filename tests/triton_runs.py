"""How claims about Triton kernels are run: in processes of their own, on poisoned memory."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import torch

from selmem.probe.triton_runtime import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def assert_right_in_the_interpreter(cases, *, skipped=0):
    printed = _assert_right(cases, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    found = re.search(r"(\d+) skipped", printed)
    assert int(found[1] if found else 0) == skipped, printed


def assert_right_on_the_gpu(cases):
    _assert_right(cases, TRITON_INTERPRET="0")


def _assert_right(cases, **environment):
    run = run_cases(cases, **environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


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


@pytest.fixture(autouse=INTERPRETED)
def to_the_nearest(monkeypatch):
    """Round to bfloat16 as a GPU does; the interpreter cuts off."""
    from triton import language
    from triton.runtime import interpreter

    cut_off = interpreter._convert_float

    def convert(values, have, want, mode):
        if (have, want) != (language.float32, language.bfloat16):
            return cut_off(values, have, want, mode)
        return torch.from_numpy(values.copy()).bfloat16().view(torch.uint16).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", convert)
