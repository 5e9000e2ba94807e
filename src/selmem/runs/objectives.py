"""What a run minimises, and how well a model does on held-out windows."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import log
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from selmem.channel import ErasureChannel
from selmem.corpus_store import TokenReader
from selmem.encoder import MambaEncoder, read_state
from selmem.probe.linear_cross_entropy import forced_statistics
from selmem.probe.mamba_state import MambaState
from selmem.probe.modeling_mamba_probe import MambaProbe
from selmem.runs.schedules import Batch


@dataclass(frozen=True)
class HeldOut:
    """Teacher-forced scores on the held-out windows of one length.

    Args:
        bits: mean bits per token of the text, the end-of-text token not included.
        accuracy: share of these tokens that are the model's first guess.
        eos_bits: mean bits of the end-of-text token after the text; 0 where there is none.
        n_tokens: tokens scored.
    """

    bits: float
    accuracy: float
    eos_bits: float
    n_tokens: int


class Objective(Protocol):
    """A loss on windows of tokens."""

    def loss(self, model: nn.Module, windows: Tensor) -> Tensor:
        """Return the mean loss in nats per predicted token, for windows (B, T)."""

    def forced(self, model: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return nats (B, K) and hits (B, K) of the text's tokens, and nats of its end (B,)."""


class Autocast:
    """Matrix products in bfloat16, or everything as it is stored."""

    def __init__(self, device: torch.device, bf16: bool) -> None:
        self._device, self._bf16 = device.type, bf16

    def __call__(self) -> AbstractContextManager[None]:
        """Return the context for one forward pass."""
        return torch.autocast(self._device, torch.bfloat16, enabled=self._bf16)


class LanguageModelling:
    """Next-token prediction within a window."""

    def __init__(self, autocast: Autocast) -> None:
        self._autocast = autocast

    def loss(self, model: nn.Module, windows: Tensor) -> Tensor:
        """Return the mean loss in nats per predicted token, for windows (B, T)."""
        with self._autocast():
            output = model(windows[:, :-1], labels=windows[:, 1:])
        return output.loss  # type: ignore[no-any-return]

    def forced(self, model: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return nats and hits of all tokens but the first (B, T - 1), and zeros (B,)."""
        encoder, labels = cast(MambaEncoder, model), windows[:, 1:]
        with torch.no_grad(), self._autocast():
            hidden, _ = encoder.backbone(windows[:, :-1])
            nats, best, _ = forced_statistics(hidden, encoder.lm_head.weight, labels)
        return nats, best == labels, nats.new_zeros(len(nats))


class Reconstruction:
    """Writing back a window from the state that a frozen encoder had after it.

    Args:
        encoder: reads the windows; None for a null probe, which needs no state.
        autocast: precision of both models.
        channel: what becomes of a window before the encoder reads it; none if None.
    """

    def __init__(
        self,
        encoder: MambaEncoder | None,
        autocast: Autocast,
        *,
        channel: ErasureChannel | None = None,
    ) -> None:
        self._encoder = encoder
        self._autocast = autocast
        self._channel = channel

    def loss(self, model: nn.Module, windows: Tensor) -> Tensor:
        """Return the mean loss in nats per token, end of text included, for windows (B, T)."""
        read, target = self._transmit(windows)
        with self._autocast():
            state = self._state(read)
            input_ids, labels = _probe_of(model).teacher_forcing(target)
            output = model(input_ids, state=state, labels=labels)
        return output.loss  # type: ignore[no-any-return]

    def forced(self, model: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return nats and hits of the text's tokens (B, T), and nats of its end (B,)."""
        probe = _probe_of(model)
        read, target = self._transmit(windows)
        input_ids, labels = probe.teacher_forcing(target)
        with torch.no_grad(), self._autocast():
            state = probe.initial_state(self._state(read), len(windows))
            hidden, _ = probe.backbone(input_ids, state)
            nats, best, _ = forced_statistics(hidden, probe.lm_head.weight, labels)
        return nats[:, :-1], (best == labels)[:, :-1], nats[:, -1]

    def write(self, probe: MambaProbe, windows: Tensor, max_length: int) -> Tensor:
        """Return what the probe writes greedily from the states of `windows`, (B, max_length)."""
        read, _ = self._transmit(windows)
        with torch.no_grad():
            with self._autocast():
                state = probe.initial_state(self._state(read), len(windows))
            written = probe.reconstruct(state, max_length)
        eos = probe.config.eos_token_id or 0
        return nn.functional.pad(written, (0, max_length - written.shape[1]), value=eos)

    def _transmit(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the encoder reads and what is to be written."""
        if self._channel is None:
            return windows, windows
        sent = self._channel(windows)
        return sent.read, sent.target

    def _state(self, read: Tensor) -> MambaState | None:
        return None if self._encoder is None else read_state(self._encoder, read)


def score_held_out(
    model: nn.Module,
    objective: Objective,
    batches: list[Batch],
    reader: TokenReader,
    *,
    tokens_per_forward: int,
    rank: int = 0,
    world_size: int = 1,
) -> dict[int, HeldOut]:
    """Return the scores per length; several processes each take a share of the windows.

    Args:
        model: not wrapped for distributed training.
        objective: what the model was trained for.
        batches: one entry per length.
        reader: of the store that the batches point into.
        tokens_per_forward: tokens at a time.
        rank: number of this process.
        world_size: number of processes.
    """
    model.eval()
    scores = {}
    for batch in batches:
        share = batch.share(rank, world_size)
        rows = max(1, tokens_per_forward // batch.length)
        totals = torch.zeros(5, dtype=torch.float64, device=next(model.parameters()).device)
        for begin in range(0, len(share.starts), rows):
            windows = reader.read(share.starts[begin : begin + rows], batch.length)
            totals += _sums(objective, model, windows)
        if world_size > 1:
            dist.all_reduce(totals)
        scores[batch.length] = _held_out(totals.tolist())
    return scores


def mean_bits(scores: Mapping[int, HeldOut]) -> float:
    """Return the mean over lengths of the bits per token: what the best checkpoint is chosen by."""
    return sum(score.bits for score in scores.values()) / len(scores)


def _sums(objective: Objective, model: nn.Module, windows: Tensor) -> Tensor:
    nats, hits, end = (part.double() for part in objective.forced(model, windows))
    counts = nats.new_tensor([nats.numel(), len(nats)])
    return torch.cat([torch.stack([nats.sum(), hits.sum(), end.sum()]), counts])


def _held_out(totals: list[float]) -> HeldOut:
    nats, hits, end, n_tokens, n_windows = totals
    return HeldOut(
        bits=nats / n_tokens / log(2),
        accuracy=hits / n_tokens,
        eos_bits=end / n_windows / log(2),
        n_tokens=int(n_tokens),
    )


def _probe_of(model: nn.Module) -> MambaProbe:
    """Return the probe itself, also where it is wrapped for distributed training."""
    return cast(MambaProbe, getattr(model, "module", model))
