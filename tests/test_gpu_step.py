from pathlib import Path

import pytest
import torch

from selmem.encoder import read_state
from selmem.probe import MambaProbe
from selmem.probe.gpu_step import gpu_step
from small_models import small_encoder, token_ids
from triton_runs import assert_right_in_the_interpreter, assert_right_on_the_gpu, needs_triton

CASES = Path(__file__).with_name("gpu_step_cases.py")


@needs_triton
def test_gpu_steps_are_right_in_the_interpreter():
    assert_right_in_the_interpreter(CASES, skipped=7)  # early starts, of seven tiles


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_steps_are_right_on_the_gpu():
    assert_right_on_the_gpu(CASES)


def test_without_triton_there_is_none(monkeypatch):
    monkeypatch.setenv("SELMEM_SCAN", "torch")
    encoder = small_encoder()
    probe = MambaProbe.from_encoder(encoder).bfloat16()
    state = read_state(encoder, token_ids(1, 3))
    weights = probe.backbone.step_weights()
    assert gpu_step(probe.backbone, weights, state.ssm.dtype) is None
