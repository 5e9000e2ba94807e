# SPDX-License-Identifier: Apache-2.0
"""Greedy decoding as a CUDA graph: one launch a token, and rows that have ended stop costing.

The step of one batch size (embedding, layers, output layer, argmax, end-of-text bookkeeping) is
recorded once and replayed. All sizes share one set of buffers, of which a batch takes the first
rows. After every ROUND steps, when they fit a smaller size, the rows that go on move together.
Which these are the host looks up before the last step of the round, so that the device works on
while the host decides and launches. A size is first run twice without a graph, as steps of the text
that is being written, so that recording needs no steps of its own.

On a CPU the same steps run without graphs.

Dims: B rows, S steps, L layers, D inner channels, N state size, W convolution width.
"""

import copy
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choosing import choose
from .decoding_buffers import ROUND, Buffers
from .gpu_step import GpuStep, gpu_step
from .mamba_backbone import StepWeights
from .mamba_state import MambaState

UNRECORDED = 2
# more rows than this gain nothing: their states are all that is read and written
MOST_ROWS = 1024
# of the memory that is free, for buffers; the rest is for what a step makes
MEMORY_SHARE = 0.4

Recorder = Callable[[Callable[[], None]], Callable[[], None]]

_decoders: "weakref.WeakKeyDictionary[nn.Module, GraphDecoder]" = weakref.WeakKeyDictionary()


def graph_decoder(model: Any) -> "GraphDecoder":
    """Return the decoder of a probe, with its present weights.

    It is kept as long as the model, and made anew when its device or precision has changed.

    Args:
        model: with `backbone` and `lm_head`, on a CUDA device.
    """
    decoder = _decoders.get(model)
    if decoder is None or not decoder.fits(model):
        decoder = _decoders[model] = GraphDecoder(model, CudaRecorder(model.device))
    decoder.refresh(model)
    return decoder


def rows_at_a_time(model: Any, rows: int) -> int:
    """Return how many of `rows` the memory of the model's device holds, at most MOST_ROWS."""
    decoder = _decoders.get(model)
    if decoder is not None and decoder.holds(rows):
        return rows
    config = model.config
    per_channel = 4 * config.state_size + 4 * config.conv_kernel
    row = len(model.backbone.layers) * config.intermediate_size * per_channel
    row += 4 * config.vocab_size
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return max(1, min(MOST_ROWS, int(MEMORY_SHARE * free / row)))


class CudaRecorder:
    """Records what a function launches as a CUDA graph and returns what replays it.

    Args:
        device: on which it launches.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record `work`, which runs not at all; whatever it needs must have run before."""
        if not self._graphs:
            # a pool whose graphs are all gone cannot be taken up again
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # other threads may go on using the device
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        with torch.cuda.device(self._stream.device), recording:
            work()
        self._graphs.add(graph)
        return graph.replay


class GraphDecoder:
    """Writes greedily from states, with weights of its own.

    Args:
        model: with `backbone` and `lm_head`.
        record: from a function to one that does the same again, on the same memory.
    """

    def __init__(self, model: Any, record: Recorder) -> None:
        self._record = record
        with _plain_tensors():
            self._take(model)
        self._steps: dict[int, Callable[[], None]] = {}
        self._unrecorded: dict[int, int] = {}
        self._buffers: Buffers | None = None
        self._gpu_step: GpuStep | None = None

    def _take(self, model: Any) -> None:
        self._eos = int(model.config.eos_token_id)
        self._precision = _precision(model)
        self._backbone = copy.deepcopy(model.backbone).requires_grad_(False).eval()
        self._head = model.lm_head.weight.detach().clone().to(self._precision)
        for module in self._backbone.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.to(self._precision)
        self._weights: list[StepWeights] = [
            StepWeights(*(part.clone() for part in layer))
            for layer in model.backbone.step_weights()
        ]
        self._parts = [*_parameters(self._backbone), self._head]
        places = {id(part): place for place, part in enumerate(self._parts)}
        # where the parameters are that `step_weights` takes, in its order
        self._taken: list[int] = []
        for layer, own in zip(self._backbone.layers, self._weights, strict=True):
            mixer = layer.mixer
            taken = (mixer.A_log, mixer.D, mixer.dt_proj.bias, mixer.conv1d.weight)
            self._taken += [places[id(part)] for part in taken]
            self._parts += [own.A, own.D, own.dt_bias, own.filters.unsqueeze(1)]

    def fits(self, model: Any) -> bool:
        """Return whether device, precision and EOS are still those of the model."""
        ours = (self._head.device, self._precision, self._eos)
        return ours == (model.device, _precision(model), model.config.eos_token_id)

    def holds(self, rows: int) -> bool:
        """Return whether there is memory for so many already."""
        return self._buffers is not None and rows <= self._buffers.most

    def refresh(self, model: Any) -> None:
        """Take over the model's present weights, in place."""
        with _plain_tensors():
            theirs = [*_parameters(model.backbone), model.lm_head.weight]
            # as `step_weights` does it, in a few launches for all layers
            _copy(self._parts, theirs + [theirs[place] for place in self._taken])
            A = [own.A for own in self._weights]
            torch._foreach_exp_(A)
            torch._foreach_neg_(A)

    def decode(self, start: MambaState, max_length: int) -> Tensor:
        """Return what the model writes from `start`, int64, (B, at most max_length).

        Args:
            start: state of B rows, left as it is.
            max_length: most tokens of a row; after its EOS, a row is all EOS.
        """
        with _plain_tensors(), self._autocast():
            buffers = self._load(start)
            rows = torch.arange(start.batch_size, device=start.conv.device)
            written = torch.full((len(rows), max_length), self._eos, device=rows.device)
            for position in range(0, max_length, ROUND):
                steps = min(ROUND, max_length - position)
                self._run(buffers, steps)
                recent = buffers.recent[:steps, : len(rows)].T
                if len(rows) == len(written):
                    written[:, position : position + steps] = recent
                else:
                    written[rows, position : position + steps] = recent
                going = buffers.going(len(rows))
                if len(going) == 0:
                    break
                if _size(len(going)) < buffers.size:
                    going = going.to(rows.device)
                    buffers.move(going, _size(len(going)))
                    rows = rows[going]
        return written[:, : _longest(written, self._eos)]

    def _run(self, buffers: Buffers, steps: int) -> None:
        """Do so many steps, and look which rows have ended before the last of them."""
        buffers.slot.zero_()
        size = buffers.size
        for step in range(steps):
            if step == steps - 1:
                buffers.look()
            if size in self._steps:
                self._steps[size]()
                continue
            self._step(buffers)
            self._unrecorded[size] = self._unrecorded.get(size, 0) + 1
            if self._unrecorded[size] == UNRECORDED:
                self._steps[size] = self._record(lambda: self._step(buffers))

    def _step(self, buffers: Buffers) -> None:
        """Write one token in every row that has not ended."""
        state, chosen = buffers.state(), buffers.chosen(self._eos)
        if self._gpu_step is None:
            hidden = self._backbone.step(chosen.token, state, self._weights)
        else:
            hidden = self._gpu_step(chosen.token, state, buffers.turn)
        hidden = hidden.to(self._precision)
        if self._gpu_step is None or not self._gpu_step.choose(hidden, self._head, chosen):
            choose(F.linear(hidden, self._head), chosen)

    def _load(self, start: MambaState) -> Buffers:
        size = _size(start.batch_size)
        if self._buffers is None or self._buffers.most < size:
            self._steps.clear()
            self._unrecorded.clear()
            self._buffers = None
            self._gpu_step = gpu_step(self._backbone, self._weights, start.ssm.dtype)
            channels_last = self._gpu_step is not None
            self._buffers = Buffers(start, size, self._precision, channels_last=channels_last)
        self._buffers.load(start, size, self._eos)
        return self._buffers

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        device = self._head.device.type
        enabled = torch.is_autocast_enabled(device)
        with torch.autocast(device, self._precision, enabled=enabled, cache_enabled=False):
            yield


def _parameters(module: nn.Module) -> Iterator[Tensor]:
    """Yield what `module.parameters()` does, shared ones each time, in a third of the time."""
    for parameter in module._parameters.values():
        if parameter is not None:
            yield parameter
    for child in module._modules.values():
        if child is not None:
            yield from _parameters(child)


def _copy(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Copy all of `theirs` into `ours`; tensors of the same dtypes go in one launch."""
    kinds = defaultdict(list)
    for own, other in zip(ours, theirs, strict=True):
        kinds[own.dtype, other.dtype].append((own, other))
    for pairs in kinds.values():
        torch._foreach_copy_([own for own, _ in pairs], [other for _, other in pairs])


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Make tensors without gradients that nevertheless work outside inference mode."""
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


def _precision(model: Any) -> torch.dtype:
    """Return the dtype of the model's products."""
    device = model.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return model.lm_head.weight.dtype  # type: ignore[no-any-return]


def _size(rows: int) -> int:
    """Return the smallest batch size that holds `rows`: 1, 2, 4, ... with steps of a half above 32.

    Examples:
        >>> [_size(rows) for rows in (1, 3, 33, 65, 200, 256)]
        [1, 4, 48, 96, 256, 256]
    """
    power = 1 << max(0, rows - 1).bit_length()
    three_quarters = power // 4 * 3
    return three_quarters if power > 32 and rows <= three_quarters else power


def _longest(written: Tensor, eos: int) -> int:
    """Return the length of the longest row, its EOS included."""
    if written.numel() == 0:
        return 0
    ends = written == eos
    return int(torch.where(ends.any(1), ends.int().argmax(1) + 1, written.shape[1]).max())
