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

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .gpu_product_kernels import product_kernel
from .triton_runtime import INTERPRETED, cdiv, launch_options

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:
    TensorDescriptor = None


# of in_proj, at the most that was measured to gain, 768 to 2 * 1,536 channels: 256 rows in one
# branch, 512 in all branches together
MOST_MULTIPLICATIONS = 256 * 768 * 3072
MOST_IN_BRANCHES = 512 * 768 * 3072


class Product(NamedTuple):
    """How a product is cut up, for programs and within one.

    Args:
        rows: of a program.
        columns: of a program.
        factors: that a program loads at once.
        parts: that are summed apart.
        warps: of a program.
        stages: loads that are under way at once.
    """

    rows: int
    columns: int
    factors: int
    parts: int
    warps: int
    stages: int


def fits(linear: nn.Linear) -> bool:
    """Return whether `product` can take the place of `linear`: the device, and 16-byte rows."""
    weight = linear.weight
    if TensorDescriptor is None or linear.bias is not None or not weight.is_contiguous():
        return False
    aligned = weight.data_ptr() % 16 == 0 and weight.shape[1] * weight.element_size() % 16 == 0
    return aligned and (INTERPRETED or _is_hopper(weight.device))


def _is_hopper(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def product(values: Tensor, weight: Tensor, out: Tensor, cut: Product, *, early: bool) -> None:
    """Write `values @ weight.T`, summed in float32.

    Args:
        values: (B, K), contiguous, 16-byte aligned.
        weight: of a layer that `fits`, of the same dtype, (N, K).
        out: (B, N), or what `cut.parts` parts of the sum come to, (B, parts, N); contiguous.
        cut: how it is cut up.
        early: whether this may start while the kernel before it ends.
    """
    (n_rows, inner), outer = values.shape, len(weight)
    grid = cdiv(outer, cut.columns), cdiv(n_rows, cut.rows), cut.parts
    product_kernel[grid](
        TensorDescriptor.from_tensor(values, [cut.rows, cut.factors]),
        TensorDescriptor.from_tensor(weight, [cut.columns, cut.factors]),
        out, n_rows,
        INNER=inner, OUTER=outer, BM=cut.rows, BN=cut.columns, BK=cut.factors, SPLIT=cut.parts,
        INTERPRETED=INTERPRETED, num_stages=cut.stages, **launch_options(cut.warps, early=early),
    )  # fmt: skip
