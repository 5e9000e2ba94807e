from pathlib import Path

import pytest
import torch

from selmem.encoder import read_state
from selmem.probe import MambaProbe
from selmem.probe.gpu_step import gpu_step
from small_models import small_encoder, token_ids
from triton_runs import needs_triton, run_cases

CASES = Path(__file__).with_name("gpu_step_cases.py")


@needs_triton
def test_gpu_steps_are_right_in_the_interpreter():
    run = run_cases(CASES, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 skipped" in run.stdout  # what only a GPU can do


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_steps_are_right_on_the_gpu():
    run = run_cases(CASES, TRITON_INTERPRET="0")
    assert run.returncode == 0, run.stdout + run.stderr


def test_without_triton_there_is_none(monkeypatch):
    monkeypatch.setenv("SELMEM_SCAN", "torch")
    encoder = small_encoder()
    probe = MambaProbe.from_encoder(encoder).bfloat16()
    state = read_state(encoder, token_ids(1, 3))
    weights = probe.backbone.step_weights()
    assert gpu_step(probe.backbone, weights, state.ssm.dtype) is None
