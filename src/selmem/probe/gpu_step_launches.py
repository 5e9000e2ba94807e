# SPDX-License-Identifier: Apache-2.0
"""The launches of `gpu_step.py`, and the memory between them.

Dims: B rows, H hidden size, D inner channels, N state size, W convolution width, R rank of dt.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .gpu_product import Folded, Product, Scaled, product
from .gpu_step_kernels import convolve_kernel, norm_kernel, recur_kernel, select_kernel
from .gpu_tiles import Tile, Tiles
from .mamba_backbone import MambaMixer, StepWeights
from .triton_runtime import INTERPRETED, cdiv, launch_options, power_of_2


class Work(NamedTuple):
    """What the kernels of one step hand to each other, in the precision of products.

    Args:
        stream: residual stream, (B, H), in its own precision.
        normed: the stream after a norm, (B, H).
        entered: of in_proj, (B, 2D).
        x: after the convolution, (B, D).
        parts: what blocks of channels add to the output of x_proj, float32, (B, blocks, R + 2N).
        dt: of dt_proj, (B, D).
        maps: B and C, (B, 2N).
        y: of the recurrence, (B, D).
        mixed: of out_proj, (B, H), or float32 parts that add up to it, (B, parts, H).
        squares: of the stream, summed by blocks of columns where norms are folded, (B, blocks).
    """

    stream: Tensor
    normed: Tensor
    entered: Tensor
    x: Tensor
    parts: Tensor
    dt: Tensor
    maps: Tensor
    y: Tensor
    mixed: Tensor
    squares: Tensor


def project(
    values: Tensor,
    linear: nn.Linear,
    out: Tensor,
    cut: Product | None,
    *,
    early: bool,
    scaled: Scaled | None = None,
) -> None:
    """Write what `linear` makes of `values` into `out`, or where `out` has parts, these.

    Args:
        values: (B, K).
        linear: which fits, if it is cut up.
        out: its values.
        cut: of an own product; if None, it is the library's.
        early: whether an own product may start while the kernel before it ends.
        scaled: by what an own product scales rows.
    """
    if cut is not None:
        product(values, linear.weight, out, cut, early=early, scaled=scaled)
    elif linear.bias is None:
        torch.mm(values, linear.weight.t(), out=out)
    else:
        torch.addmm(linear.bias.to(out.dtype), values, linear.weight.t(), out=out)


class Norm:
    """The launch between two layers."""

    def __init__(self, weight: Tensor, eps: float, *, early: bool) -> None:
        self._weight, self._eps, self._early = weight, eps, early

    def folded(self, work: Work) -> tuple[Scaled, Folded]:
        """Return what makes the products after and before it do the work."""
        return Scaled(work.squares, self._eps), Folded(work.stream, self._weight, work.squares)

    def __call__(
        self, source: Tensor, work: Work, token_ids: Tensor | None = None, *, late: bool = False
    ) -> None:
        """Add `source` to the stream, or begin it with embeddings, and norm it."""
        n_rows, hidden = work.normed.shape
        block = power_of_2(hidden)
        # the first kernel of a branch starts when all before it is done
        early = self._early and token_ids is None
        parts = source.shape[1] if source.dim() == 3 else 0
        norm_kernel[(n_rows,)](
            token_ids, source, work.stream, self._weight, work.normed, self._eps,
            HIDDEN=hidden, BLOCK=block, SPLIT=parts, LATE=late,
            **launch_options(max(1, block // 256), early=early),
        )  # fmt: skip


class Layer:
    """The launches between in_proj and out_proj.

    Args:
        mixer: its parameters are read where they are.
        weights: of its steps.
        early: whether a kernel may start while the one before it ends.
    """

    def __init__(self, mixer: MambaMixer, weights: StepWeights, *, early: bool) -> None:
        self.mixer, self._weights, self._early = mixer, weights, early

    def convolve(
        self, work: Work, window: Tensor, turn: Tensor | None, states: Tensor, tiles: Tiles
    ) -> None:
        """From the output of in_proj to x and the parts of x_proj; `window` (B, W, D) advances."""
        mixer, (n_rows, blocks, selected) = self.mixer, work.parts.shape
        tile, row_bytes = tiles.convolve, states[0].numel() * states.element_size()
        bias, (_, width, channels) = mixer.conv1d.bias, window.shape
        convolve_kernel[(cdiv(n_rows, tile.rows), blocks)](
            work.entered, window, turn, self._weights.filters, bias, mixer.x_proj.weight, work.x,
            work.parts, states, n_rows,
            CHANNELS=channels, WIDTH=width, SELECTED=selected, BP=power_of_2(selected),
            BM=tile.rows, BN=tile.channels, BIAS=bias is not None, AHEAD=tile.ahead,
            PREFETCH=int(row_bytes * tiles.prefetch) // 16 * 16,
            INTERPRETED=INTERPRETED, **launch_options(tile.warps, early=self._early),
        )  # fmt: skip

    def select(self, work: Work, tile: Tile) -> None:
        """From the parts of x_proj to dt, B and C."""
        (n_rows, channels), (_, maps) = work.dt.shape, work.maps.shape
        rank = self.mixer.time_step_rank
        select_kernel[(cdiv(n_rows, tile.rows), cdiv(channels, tile.channels) + 1)](
            work.parts, self.mixer.dt_proj.weight, work.dt, work.maps, n_rows,
            CHANNELS=channels, RANK=rank, BK=max(16, power_of_2(rank)), MAPS=maps,
            BC=power_of_2(maps), BLOCKS=work.parts.shape[1], BM=tile.rows, BN=tile.channels,
            AHEAD=tile.ahead, INTERPRETED=INTERPRETED,
            **launch_options(tile.warps, early=self._early),
        )  # fmt: skip

    def recur(self, work: Work, ssm: Tensor, tile: Tile) -> None:
        """Advance the states; y of the recurrence, gated."""
        A, D, dt_bias, _ = self._weights
        n_rows, channels, n_states = ssm.shape
        recur_kernel[(cdiv(channels, tile.channels), cdiv(n_rows, tile.rows))](
            ssm, work.entered, work.x, work.dt, work.maps, A, D, dt_bias, work.y, n_rows,
            CHANNELS=channels, N=n_states, NP=power_of_2(n_states), ROWS=tile.rows,
            BD=tile.channels, AHEAD=tile.ahead, **launch_options(tile.warps, early=self._early),
        )  # fmt: skip
