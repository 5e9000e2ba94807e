from pathlib import Path

import pytest
import torch
from torch import nn

from selmem.probe import gpu_product
from triton_runs import needs_triton, run_cases

CASES = Path(__file__).with_name("gpu_product_cases.py")


@needs_triton
def test_products_are_right_in_the_interpreter():
    run = run_cases(CASES, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and gpu_product._is_hopper(torch.device("cuda"))),
    reason="needs a Hopper GPU",
)
def test_products_are_right_on_the_gpu():
    run = run_cases(CASES, TRITON_INTERPRET="0")
    assert run.returncode == 0, run.stdout + run.stderr


def test_on_a_cpu_the_products_are_the_librarys():
    assert not gpu_product.fits(nn.Linear(40, 24, bias=False))
