# SPDX-License-Identifier: Apache-2.0
"""One token through a backbone in five or six launches a layer, in bfloat16 on a GPU.

in_proj and out_proj are products of `gpu_product.py` where these are faster, else the library's.
Between and after them come four kernels:
1. `convolve_kernel`: short convolution, and what each block of channels adds to x_proj.
2. `select_kernel`: the sum of these parts, and dt_proj.
3. `recur_kernel`: recurrence and gate.
4. `norm_kernel`: the residual stream, and the norm of the next layer. Or, between layers, none:
   out_proj adds to the stream and multiplies by the weight of the norm, in_proj scales.

Values are rounded where `MambaBackbone.step` rounds them, but for norms without a kernel, which
scale what is rounded already. There are no atomics.

Each of these may start while the one before it ends, and loads what that one does not write.
With own products, many rows are split into branches (`gpu_branches.py`), which go through the
layers side by side; `gpu_tiles.py` holds how many, and how the kernels are cut up.

Dims: B rows, H hidden size, D inner channels, N state size, W convolution width, R rank of dt.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from .decoding_buffers import Chosen
from .gpu_branches import Branches
from .gpu_product import choose_product, fits, fits_weight, product
from .gpu_step_launches import Layer, Norm, Work, project
from .gpu_tiles import Tiles, library_tiles, own_tiles
from .mamba_backbone import MambaBackbone, MambaBlock, StepWeights
from .mamba_state import MambaState
from .selective_scan import implementation
from .triton_runtime import cdiv, may_start_early

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
            Norm(norm.weight, norm.eps, early=early)
            for norm in [block.norm for block in blocks] + [backbone.norm_f]
        ]
        self._layers = [
            Layer(block.mixer, own, early=early) for block, own in zip(blocks, weights, strict=True)
        ]
        linears = [part for own in self._layers for part in (own.mixer.in_proj, own.mixer.out_proj)]
        self._own_products = all(fits(linear) for linear in linears)
        wide = backbone.config.residual_in_fp32
        self._stream_dtype = torch.float32 if wide else self._embeddings.dtype
        self._work: dict[int, Work] = {}
        self._branches = Branches(device)

    def __call__(self, token_ids: Tensor, state: MambaState, turn: Tensor | None = None) -> Tensor:
        """Read one token per row and advance `state` in place.

        Args:
            token_ids: int64, (B,), contiguous.
            state: of B rows, windows bfloat16; in memory, each layer is (B, W, D) and (B, D, N).
            turn: without, windows are shifted; else they are rings, and their oldest tap, at this
                place modulo W, makes room. int64, (1,).

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
                    self._branch(slice(first, first + most), token_ids, state, turn, work, tiles)
                    for first in range(0, n_rows, most)
                ]
            )
        return work.normed

    def choose(self, hidden: Tensor, weight: Tensor, chosen: Chosen) -> bool:
        """Do with the output layer of this weight what `choosing.choose` does, or return False."""
        cut = self._tiles(len(hidden)).head
        if cut is None or not fits_weight(weight):
            return False
        choose_product(hidden, weight, cut, chosen)
        return True

    def _branch(
        self,
        rows: slice,
        token_ids: Tensor,
        state: MambaState,
        turn: Tensor | None,
        work: Work,
        tiles: Tiles,
    ) -> Iterator[None]:
        """Do the same for some of the rows; yields after each layer."""
        work = Work(*(part[rows] for part in work))
        self._norms[0](self._embeddings, work, token_ids[rows])
        parts = zip(self._layers, self._norms[1:], state.conv, state.ssm, strict=True)
        scaled = None
        for layer, norm, window, ssm in parts:
            mixer, states, early = layer.mixer, ssm[rows], self._early
            project(
                work.normed, mixer.in_proj, work.entered, tiles.enter, early=early, scaled=scaled
            )
            layer.convolve(work, window[rows].mT, turn, states, tiles)
            layer.select(work, tiles.select)
            layer.recur(work, states, tiles.recur)
            if tiles.folded and tiles.leave is not None and layer is not self._layers[-1]:
                scaled, folded = norm.folded(work)
                weight = mixer.out_proj.weight
                product(work.y, weight, work.normed, tiles.leave, early=early, folded=folded)
            else:
                project(work.y, mixer.out_proj, work.mixed, tiles.leave, early=early)
                norm(work.mixed, work, late=tiles.folded)
            yield

    def _tiles(self, n_rows: int) -> Tiles:
        """Return how the kernels of a layer are cut up for so many rows."""
        mixer = self._layers[0].mixer
        weights, selected = mixer.in_proj.weight.numel(), mixer.x_proj.weight.shape[0]
        own = own_tiles(n_rows, weights, selected) if self._own_products else None
        return own or library_tiles(n_rows, selected)

    def _workspace(self, n_rows: int, tiles: Tiles) -> Work:
        mixer = self._layers[0].mixer
        channels, hidden = mixer.in_proj.weight.shape[0] // 2, self._embeddings.shape[1]
        selected = mixer.x_proj.weight.shape[0]
        dtype, device = mixer.in_proj.weight.dtype, self._embeddings.device
        half = functools.partial(torch.empty, dtype=dtype, device=device)
        blocks = cdiv(channels, tiles.convolve.channels)
        own = () if tiles.leave is None else (tiles.leave.parts,)
        left = 1 if tiles.leave is None else cdiv(hidden, tiles.leave.columns)
        return Work(
            stream=half(n_rows, hidden, dtype=self._stream_dtype),
            normed=half(n_rows, hidden),
            entered=half(n_rows, 2 * channels),
            x=half(n_rows, channels),
            parts=half(n_rows, blocks, selected, dtype=torch.float32),
            dt=half(n_rows, channels),
            maps=half(n_rows, selected - mixer.time_step_rank),
            y=half(n_rows, channels),
            mixed=half(n_rows, *own, hidden, dtype=torch.float32 if own else dtype),
            squares=half(n_rows, left, dtype=torch.float32),
        )
