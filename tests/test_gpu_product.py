from pathlib import Path

import pytest
import torch
from torch import nn

from selmem.probe import gpu_product
from triton_runs import assert_right_in_the_interpreter, assert_right_on_the_gpu, needs_triton

CASES = Path(__file__).with_name("gpu_product_cases.py")


@needs_triton
def test_products_are_right_in_the_interpreter():
    assert_right_in_the_interpreter(CASES)


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and gpu_product._is_hopper(torch.device("cuda"))),
    reason="needs a Hopper GPU",
)
def test_products_are_right_on_the_gpu():
    assert_right_on_the_gpu(CASES)


def test_on_a_cpu_the_products_are_the_librarys():
    assert not gpu_product.fits(nn.Linear(40, 24, bias=False))
