"""Claims about the products for GPUs, run by test_gpu_product.py."""

import pytest
import torch
from torch import nn

from selmem.probe.choosing import choose_ref
from selmem.probe.decoding_buffers import Chosen
from selmem.probe.gpu_product import Folded, Product, Scaled, choose_product, fits, product
from selmem.probe.gpu_tiles import ENTER, LEAVE
from triton_runs import DEVICE, poison, to_the_nearest  # noqa: F401, every case runs with them

SHAPES = ((1, 40, 24), (5, 768, 72), (65, 200, 136), (130, 264, 64))


def factors(rows, inner, outer):
    generator = torch.Generator().manual_seed(rows)
    made = [torch.randn(size, inner, generator=generator) for size in (rows, outer)]
    return [part.bfloat16().to(DEVICE) for part in made]


def error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def multiplied(rows, inner, outer, cut, dtype):
    """Return the product, its parts kept, the rows behind it, and what it should add up to."""
    values, weight = factors(rows, inner, outer)
    memory = torch.full((rows + 3, cut.parts, outer), 7.0, device=DEVICE, dtype=dtype)
    product(values, weight, memory[:rows], cut, early=False)
    return memory[:rows], memory[rows:], values.double() @ weight.double().T


@pytest.mark.parametrize(
    "cut", [ENTER, LEAVE, Product(16, 32, 32, 3, 4, 2)], ids=lambda cut: cut.parts
)
@pytest.mark.parametrize(("rows", "inner", "outer"), SHAPES)
def test_parts_add_up_to_the_product_and_nothing_else_is_written(rows, inner, outer, cut):
    parts, behind, expected = multiplied(rows, inner, outer, cut, torch.float32)
    assert error(parts.double().sum(1), expected) < 1e-5
    assert bool((behind == 7).all())


@pytest.mark.parametrize(("rows", "inner", "outer"), SHAPES)
def test_one_part_is_rounded_once(rows, inner, outer):
    values, weight = factors(rows, inner, outer)
    out = torch.empty(rows, outer, device=DEVICE, dtype=torch.bfloat16)
    product(values, weight, out, ENTER, early=False)
    assert error(out, values.double() @ weight.double().T) < 3e-3


def test_each_part_sums_its_share():
    values, weight = factors(5, 512, 24)
    out = torch.empty(5, 2, 24, device=DEVICE)
    product(values, weight, out, LEAVE, early=False)
    for index, share in enumerate((slice(256), slice(256, 512))):
        expected = values[:, share].double() @ weight[:, share].double().T
        assert error(out[:, index], expected) < 1e-5


def test_layers_with_a_bias_or_with_odd_rows_do_not_fit():
    def linear(inner, *, bias=False):
        return nn.Linear(inner, 24, bias=bias, dtype=torch.bfloat16, device=DEVICE)

    assert fits(linear(40))
    assert not fits(linear(40, bias=True))
    assert not fits(linear(20))
    shifted = linear(40)
    memory = torch.zeros(40 * 24 + 1, dtype=torch.bfloat16, device=DEVICE)
    shifted.weight.data = memory[1:].view(24, 40)
    assert not fits(shifted), "not aligned"


@pytest.mark.parametrize("cut", [ENTER, Product(64, 64, 64, 1, 4, 3, gluon=True)])
@pytest.mark.parametrize(("rows", "inner", "outer"), SHAPES)
def test_rows_are_scaled_as_a_norm_scales_them(rows, inner, outer, cut):
    values, weight = factors(rows, inner, outer)
    squares = torch.rand(rows, 7, device=DEVICE) * inner
    out = torch.empty(rows, outer, device=DEVICE, dtype=torch.bfloat16)
    product(values, weight, out, cut, early=False, scaled=Scaled(squares, 0.5))
    scale = (squares.double().sum(1, keepdim=True) / inner + 0.5).rsqrt()
    assert error(out, values.double() @ weight.double().T * scale) < 3e-3


@pytest.mark.parametrize("cut", [Product(64, 32, 64, 1, 4, 3), Product(64, 16, 128, 1, 4, 2)])
@pytest.mark.parametrize("gluon", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "inner", "outer"), SHAPES)
def test_a_product_is_added_to_a_stream(rows, inner, outer, dtype, gluon, cut):
    cut = cut._replace(gluon=gluon)
    values, weight = factors(rows, inner, outer)
    stream = torch.randn(rows + 3, outer).to(DEVICE, dtype)
    behind, before = stream[rows:].clone(), stream[:rows].clone()
    factor = torch.rand(outer, device=DEVICE)
    squares = torch.full((rows, -(-outer // cut.columns)), torch.nan, device=DEVICE)
    out = torch.empty(rows, outer, device=DEVICE, dtype=torch.bfloat16)
    folded = Folded(stream[:rows], factor, squares)
    product(values, weight, out, cut, early=False, folded=folded)
    product_ = (values.double() @ weight.double().T).bfloat16().double()
    assert error(stream[:rows], before.double() + product_) < 3e-3
    assert torch.equal(stream[rows:], behind)
    after = stream[:rows].double()
    assert error(out, after * factor.double()) < 3e-3
    assert error(squares.sum(1), after.square().sum(1)) < 1e-5


def test_the_likeliest_column_is_kept():
    values, weight = factors(70, 200, 136)
    weight[100] = weight[3]  # equals, of two blocks of columns
    values[5] = weight[3]
    kept = []
    for made in range(2):
        token, slot = torch.full((70,), -7, device=DEVICE), torch.ones(1, device=DEVICE).long()
        ended = torch.arange(70, device=DEVICE) == 4
        chosen = Chosen(token, ended, torch.full((3, 80), -7, device=DEVICE), slot, 2)
        if made:
            choose_product(values, weight, Product(64, 32, 64, 1, 4, 2), chosen)
        else:
            choose_ref((values.float() @ weight.float().T).bfloat16(), chosen)
        kept.append(chosen)
    assert int(kept[1].token[5]) == 3
    for ours, expected in zip(kept[1][:4], kept[0][:4], strict=True):
        assert torch.equal(ours, expected)
