# SPDX-License-Identifier: Apache-2.0
"""Products of few rows on a GPU with a tensor memory accelerator, such as an H200.

They may start while the kernel before them ends, and let the one after them do so. Measured in
place of both products of `gpu_step.py`, in microseconds for a token of 24 layers with 768 hidden
and 1,536 inner channels, graph replays on an H200 with torch 2.11 and triton 3.6, all rows in one
branch:

| rows | library | these |
|---|---|---|
| 1 | 509 | 388 |
| 64 | 624 | 497 |
| 256 | 872 | 792 |
| 512 | 1,320 | 1,401 |
| 1,024 | 2,449 | 2,741 |

In branches they gain at 512 rows too (`gpu_branches.py`). For other widths nothing was measured.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .decoding_buffers import Chosen
from .gluon_kernels import gluon_product_kernel
from .gpu_product_kernels import likeliest_kernel, product_kernel, settle_kernel
from .triton_runtime import (
    GLUON,
    INTERPRETED,
    cdiv,
    launch_options,
    may_start_early,
    on_its_device,
    power_of_2,
)

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:
    TensorDescriptor = None
try:
    from triton.experimental.gluon.language import NVMMASharedLayout, bfloat16
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
except ImportError:
    GluonDescriptor = None


class Product(NamedTuple):
    """How a product is cut up, for programs and within one.

    Args:
        rows: of a program.
        columns: of a program.
        factors: that a program loads at once.
        parts: that are summed apart.
        warps: of a program.
        stages: loads that are under way at once.
        ahead: whether the next kernel may start before this one waits.
        gluon: whether the kernel is `gluon_product_kernel`, where that runs. For bfloat16, of one
            part, 64 rows and 4 warps.
    """

    rows: int
    columns: int
    factors: int
    parts: int
    warps: int
    stages: int
    ahead: bool = False
    gluon: bool = False


class Scaled(NamedTuple):
    """What scales the rows of a product: a norm whose weight its factors have already.

    Args:
        squares: sums of squares that add up to those of a row, float32, (B, blocks).
        eps: of the norm.
    """

    squares: Tensor
    eps: float


class Folded(NamedTuple):
    """What a product is added to and what becomes of the sum, for the norm that follows.

    Args:
        stream: residual stream, (B, N), updated.
        weight: of the norm, (N,).
        squares: gets the sums of squares of blocks of columns, float32, (B, blocks).
    """

    stream: Tensor
    weight: Tensor
    squares: Tensor


def fits(linear: nn.Linear) -> bool:
    """Return whether `product` can take the place of `linear`: the device, and 16-byte rows."""
    return linear.bias is None and fits_weight(linear.weight)


def fits_weight(weight: Tensor) -> bool:
    """Return the same of a layer without bias."""
    if TensorDescriptor is None or not weight.is_contiguous():
        return False
    aligned = weight.data_ptr() % 16 == 0 and weight.shape[1] * weight.element_size() % 16 == 0
    return aligned and (INTERPRETED or _is_hopper(weight.device))


def _is_hopper(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def product(
    values: Tensor, weight: Tensor, out: Tensor, cut: Product, *, early: bool,
    scaled: Scaled | None = None, folded: Folded | None = None,
) -> None:  # fmt: skip
    """Write `values @ weight.T`, summed in float32.

    Args:
        values: (B, K), contiguous, 16-byte aligned.
        weight: of a layer that `fits`, of the same dtype, (N, K).
        out: (B, N), or what `cut.parts` parts of the sum come to, (B, parts, N); contiguous.
        cut: how it is cut up.
        early: whether this may start while the kernel before it ends.
        scaled: by what rows are scaled.
        folded: a stream to which the product, rounded, is added; `out` gets the sum times a weight.
            For one part.
    """
    (n_rows, inner), outer = values.shape, len(weight)
    scales = 0 if scaled is None else scaled.squares.shape[1]
    grid = cdiv(outer, cut.columns), cdiv(n_rows, cut.rows), cut.parts
    more = out, *(scaled or (None, 0.0)), *(folded or (None, None, None)), n_rows
    options: dict[str, Any] = {
        "INNER": inner, "OUTER": outer, "BM": cut.rows, "BN": cut.columns, "BK": cut.factors,
        "SCALES": scales, "SP": power_of_2(max(4, scales)), "AHEAD": cut.ahead,
    } | launch_options(cut.warps, early=early)  # fmt: skip
    in_gluon = cut.gluon and GLUON
    blocks = _blocks(values, weight, cut, gluon=in_gluon)
    if in_gluon:
        gluon_product_kernel[grid](*blocks, *more, STAGES=cut.stages, **options)
    else:
        product_kernel[grid](
            *blocks, *more, SPLIT=cut.parts,
            INTERPRETED=INTERPRETED, num_stages=cut.stages, **options,
        )  # fmt: skip


def _blocks(values: Tensor, weight: Tensor, cut: Product, *, gluon: bool = False) -> list[Any]:
    """Return what a kernel loads blocks of both factors by."""
    shapes = (values, [cut.rows, cut.factors]), (weight, [cut.columns, cut.factors])
    if not gluon:
        return [TensorDescriptor.from_tensor(factor, shape) for factor, shape in shapes]
    layouts = [NVMMASharedLayout.get_default_for(shape, bfloat16) for _, shape in shapes]
    return [
        GluonDescriptor.from_tensor(factor, shape, layout)
        for (factor, shape), layout in zip(shapes, layouts, strict=True)
    ]


@on_its_device
def choose_product(values: Tensor, weight: Tensor, cut: Product, chosen: Chosen) -> None:
    """Do with `values @ weight.T` what `choosing.choose` does, without writing it.

    Args:
        values: (B, K), contiguous, 16-byte aligned.
        weight: of the same dtype, one that fits, (V, K).
        cut: of one part.
        chosen: where.
    """
    token, ended, recent, slot, eos = chosen
    (n_rows, inner), outer = values.shape, len(weight)
    blocks = cdiv(outer, cut.columns)
    best = torch.empty(n_rows, blocks, device=values.device)
    place = torch.empty(n_rows, blocks, device=values.device, dtype=torch.int32)
    likeliest_kernel[(cdiv(n_rows, cut.rows), blocks)](
        *_blocks(values, weight, cut), best, place, slot, n_rows,
        INNER=inner, OUTER=outer, BM=cut.rows, BN=cut.columns, BK=cut.factors, BLOCKS=blocks,
        INTERPRETED=INTERPRETED, num_stages=cut.stages, num_warps=cut.warps,
    )  # fmt: skip
    settle_kernel[(n_rows,)](
        best, place, token, ended.view(torch.uint8), recent, slot, recent.stride(0),
        EOS=eos, OUTER=outer, BLOCKS=blocks, BP=power_of_2(blocks),
        **launch_options(2, early=may_start_early(values.device)),
    )  # fmt: skip
