# SPDX-License-Identifier: Apache-2.0
"""One token through a backbone in six launches a layer, for decoding in bfloat16 on a GPU.

in_proj and out_proj are products of `gpu_product.py` where these are faster, else the library's.
Between and after them come four kernels:
1. `convolve_kernel`: short convolution, and what each block of channels adds to x_proj.
2. `select_kernel`: the sum of these parts, and dt_proj.
3. `recur_kernel`: recurrence and gate.
4. `norm_kernel`: the residual stream, and the norm of the next layer.

Values are rounded where `MambaBackbone.step` rounds them. There are no atomics.

Each of these may start while the one before it ends, and loads what that one does not write.
With own products, many rows are split into branches (`gpu_branches.py`), which go through the
layers side by side; `gpu_tiles.py` holds how many, and how the kernels are cut up.

Dims: B rows, H hidden size, D inner channels, N state size, W convolution width, R rank of dt.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .gpu_branches import Branches
from .gpu_product import Product, fits, product
from .gpu_step_kernels import convolve_kernel, norm_kernel, recur_kernel, select_kernel
from .gpu_tiles import Tile, Tiles, library_tiles, own_tiles
from .mamba_backbone import MambaBackbone, MambaBlock, MambaMixer, StepWeights
from .mamba_state import MambaState
from .selective_scan import implementation
from .triton_runtime import INTERPRETED, cdiv, launch_options, may_start_early, power_of_2

# whether a kernel may start while the one before it ends
EARLY = True


def gpu_step(
    backbone: MambaBackbone, weights: Sequence[StepWeights], state_dtype: torch.dtype
) -> "GpuStep | None":
    """Return what advances states by a token as `backbone.step` does, or None if it cannot.

    Args:
        backbone: whose linear layers are in the precision of products.
        weights: of the steps of each layer.
        state_dtype: of the recurrent states.
    """
    linear = cast(MambaBlock, backbone.layers[0]).mixer.in_proj.weight
    device = linear.device
    if linear.dtype != torch.bfloat16 or state_dtype != torch.float32:
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return None
    return GpuStep(backbone, weights) if implementation(None, device) == "triton" else None


class GpuStep:
    """Advances states of a backbone by one token; it keeps the memory that it works in.

    Args:
        backbone: its parameters are read where they are.
        weights: of the steps of each layer, likewise.
    """

    def __init__(self, backbone: MambaBackbone, weights: Sequence[StepWeights]) -> None:
        blocks = [cast(MambaBlock, layer) for layer in backbone.layers]
        self._embeddings = backbone.embeddings.weight
        device = self._embeddings.device
        self._early = early = EARLY and may_start_early(device)
        self._norms = [
            _Norm(norm.weight, norm.eps, early=early)
            for norm in [block.norm for block in blocks] + [backbone.norm_f]
        ]
        self._layers = [
            _Layer(block.mixer, own, early=early)
            for block, own in zip(blocks, weights, strict=True)
        ]
        linears = [part for own in self._layers for part in (own.mixer.in_proj, own.mixer.out_proj)]
        self._own_products = all(fits(linear) for linear in linears)
        wide = backbone.config.residual_in_fp32
        self._stream_dtype = torch.float32 if wide else self._embeddings.dtype
        self._work: dict[int, _Work] = {}
        self._branches = Branches(device)

    def __call__(self, token_ids: Tensor, state: MambaState) -> Tensor:
        """Read one token per row and advance `state` in place.

        Args:
            token_ids: int64, (B,), contiguous.
            state: of B rows, windows bfloat16; in memory, each layer is (B, W, D) and (B, D, N).

        Returns:
            hidden vectors after the final norm, bfloat16, (B, H); a later call overwrites them.
        """
        n_rows = len(token_ids)
        tiles = self._tiles(n_rows)
        if n_rows not in self._work:
            self._work[n_rows] = self._workspace(n_rows, tiles)
        work, most = self._work[n_rows], cdiv(n_rows, tiles.branches)
        with torch.cuda.device_of(token_ids):  # type: ignore[no-untyped-call]
            self._branches.run(
                [
                    self._branch(slice(first, first + most), token_ids, state, work, tiles)
                    for first in range(0, n_rows, most)
                ]
            )
        return work.normed

    def _branch(
        self, rows: slice, token_ids: Tensor, state: MambaState, work: "_Work", tiles: Tiles
    ) -> Iterator[None]:
        """Do the same for some of the rows; yields after each layer."""
        work = _Work(*(part[rows] for part in work))
        self._norms[0](self._embeddings, work, token_ids[rows])
        parts = zip(self._layers, self._norms[1:], state.conv, state.ssm, strict=True)
        for layer, norm, window, ssm in parts:
            self._project(work.normed, layer.mixer.in_proj, work.entered, tiles.enter)
            layer.convolve(work, window[rows].mT, tiles.convolve)
            layer.select(work, tiles.select)
            layer.recur(work, ssm[rows], tiles.recur)
            self._project(work.y, layer.mixer.out_proj, work.mixed, tiles.leave)
            norm(work.mixed, work)
            yield

    def _tiles(self, n_rows: int) -> Tiles:
        """Return how the kernels of a layer are cut up for so many rows."""
        weights = self._layers[0].mixer.in_proj.weight.numel()
        own = own_tiles(n_rows, weights) if self._own_products else None
        return own or library_tiles(n_rows)

    def _project(self, values: Tensor, linear: nn.Linear, out: Tensor, cut: Product | None) -> None:
        """Write what `linear` makes of `values` into `out`, or where `out` has parts, these."""
        if cut is None:
            project(values, linear, out)
        else:
            product(values, linear.weight, out, cut, early=self._early)

    def _workspace(self, n_rows: int, tiles: Tiles) -> "_Work":
        mixer = self._layers[0].mixer
        channels, hidden = mixer.in_proj.weight.shape[0] // 2, self._embeddings.shape[1]
        selected = mixer.x_proj.weight.shape[0]
        dtype, device = mixer.in_proj.weight.dtype, self._embeddings.device
        half = functools.partial(torch.empty, dtype=dtype, device=device)
        parts = () if tiles.leave is None else (tiles.leave.parts,)
        return _Work(
            stream=half(n_rows, hidden, dtype=self._stream_dtype),
            normed=half(n_rows, hidden),
            entered=half(n_rows, 2 * channels),
            x=half(n_rows, channels),
            parts=half(
                n_rows, cdiv(channels, tiles.convolve.channels), selected, dtype=torch.float32
            ),
            dt=half(n_rows, channels),
            maps=half(n_rows, selected - mixer.time_step_rank),
            y=half(n_rows, channels),
            mixed=half(n_rows, *parts, hidden, dtype=torch.float32 if parts else dtype),
        )


class _Work(NamedTuple):
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


def project(values: Tensor, linear: nn.Linear, out: Tensor) -> None:
    """Write what `linear` makes of `values` into `out`."""
    if linear.bias is None:
        torch.mm(values, linear.weight.t(), out=out)
    else:
        torch.addmm(linear.bias.to(out.dtype), values, linear.weight.t(), out=out)


class _Norm:
    """The launch between two layers."""

    def __init__(self, weight: Tensor, eps: float, *, early: bool) -> None:
        self._weight, self._eps, self._early = weight, eps, early

    def __call__(self, source: Tensor, work: _Work, token_ids: Tensor | None = None) -> None:
        """Add `source` to the stream, or begin it with embeddings, and norm it."""
        n_rows, hidden = work.normed.shape
        block = power_of_2(hidden)
        # the first kernel of a branch starts when all before it is done
        early = self._early and token_ids is None
        parts = source.shape[1] if source.dim() == 3 else 0
        norm_kernel[(n_rows,)](
            token_ids, source, work.stream, self._weight, work.normed, self._eps,
            HIDDEN=hidden, BLOCK=block, SPLIT=parts,
            **launch_options(max(1, block // 256), early=early),
        )  # fmt: skip


class _Layer:
    """The launches between in_proj and out_proj.

    Args:
        mixer: its parameters are read where they are.
        weights: of its steps.
        early: whether a kernel may start while the one before it ends.
    """

    def __init__(self, mixer: MambaMixer, weights: StepWeights, *, early: bool) -> None:
        self.mixer, self._weights, self._early = mixer, weights, early

    def convolve(self, work: _Work, window: Tensor, tile: Tile) -> None:
        """From the output of in_proj to x and the parts of x_proj; `window` (B, W, D) advances."""
        mixer, (n_rows, blocks, selected) = self.mixer, work.parts.shape
        bias, (_, width, channels) = mixer.conv1d.bias, window.shape
        convolve_kernel[(cdiv(n_rows, tile.rows), blocks)](
            work.entered, window, self._weights.filters, bias, mixer.x_proj.weight, work.x,
            work.parts, n_rows,
            CHANNELS=channels, WIDTH=width, SELECTED=selected, BP=power_of_2(selected),
            BM=tile.rows, BN=tile.channels, BIAS=bias is not None, AHEAD=tile.ahead,
            INTERPRETED=INTERPRETED, **launch_options(tile.warps, early=self._early),
        )  # fmt: skip

    def select(self, work: _Work, tile: Tile) -> None:
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

    def recur(self, work: _Work, ssm: Tensor, tile: Tile) -> None:
        """Advance the states; y of the recurrence, gated."""
        A, D, dt_bias, _ = self._weights
        n_rows, channels, n_states = ssm.shape
        recur_kernel[(cdiv(channels, tile.channels), cdiv(n_rows, tile.rows))](
            ssm, work.entered, work.x, work.dt, work.maps, A, D, dt_bias, work.y, n_rows,
            CHANNELS=channels, N=n_states, NP=power_of_2(n_states), ROWS=tile.rows,
            BD=tile.channels, **launch_options(tile.warps, early=self._early),
        )  # fmt: skip
