"""What the models say about a batch of chunks: forced bits, controls, greedy reconstruction.

Every model reads [EOS] + chunk and is asked for chunk + [EOS]; the encoder too, from a zero state,
so that its bits (base bits) are for the same tokens after the same input.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selmem.encoder import MambaEncoder, read_state
from selmem.probe import MambaProbe, MambaState
from selmem.probe.linear_cross_entropy import forced_statistics

EXTRA_TOKENS = 16  # decoded beyond the chunk's length, so that the length is not given away

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a run; all on one device.

    Attributes:
        encoder: whose states are read.
        probe: the one that is measured.
        null_probe: reads no state.
        others: further probes, by the name of their column.
        precision: of matrix products.
    """

    encoder: MambaEncoder
    probe: MambaProbe
    null_probe: MambaProbe | None
    others: Mapping[str, MambaProbe]
    precision: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return torch.device(self.probe.device)

    def autocast(self) -> torch.autocast:
        """Return the context in which matrix products have the wanted precision."""
        reduced = self.precision != torch.float32
        return torch.autocast(self.device.type, dtype=self.precision, enabled=reduced)

    def state(self, token_ids: Tensor, n_tokens: Tensor | None = None) -> MambaState:
        """Return the encoder's state after each text, (B, T); of row i the first n_tokens[i]."""
        mask = None
        if n_tokens is not None and bool((n_tokens < token_ids.shape[1]).any()):
            token_ids, mask = to_left_padding(token_ids, n_tokens)
        with self.autocast():
            return read_state(self.encoder, token_ids, mask)


def to_left_padding(token_ids: Tensor, n_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return texts with what follows them moved in front, and the mask of their own tokens.

    Args:
        token_ids: (B, T).
        n_tokens: (B,), at most T.

    >>> ids, mask = to_left_padding(torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1]))
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    """
    place = torch.arange(token_ids.shape[1], device=token_ids.device)
    n_padding = token_ids.shape[1] - n_tokens.to(token_ids.device)[:, None]
    return token_ids.gather(1, (place - n_padding) % len(place)), (place >= n_padding).long()


@torch.no_grad()
def score_batch(
    models: Models,
    token_ids: Tensor,
    *,
    n_tokens: Tensor | None = None,
    donors: Tensor | None,
    means: MambaState | None,
) -> Arrays:
    """Return the results of one batch as arrays whose first axis is the chunk.

    Texts may differ in length: then what follows them must be EOS, and what the arrays hold behind
    their EOS, or in a reconstruction behind n_tokens + `EXTRA_TOKENS`, says nothing about them.

    Args:
        models: see `Models`.
        token_ids: int64, (B, T).
        n_tokens: tokens of each text, (B,); T for all if None.
        donors: for the test-time controls, chunks of other documents, (B, T).
        means: likewise the mean state, one row.

    Returns:
        probe_bits, null_bits, base_bits, confidence (float32) and argmax, null_argmax (int32), all
        (B, T + 1) with EOS after the text; reconstruction (B, up to T + 16) int32, filled up with
        EOS; for every control probe_bits_<control> (B, T + 1). What was not measured is absent.
    """
    token_ids = token_ids.to(models.device)
    inputs, labels = models.probe.teacher_forcing(token_ids)
    state = models.state(token_ids, n_tokens)
    arrays: Arrays = {}
    with models.autocast():
        forced = _forced(models.probe, models.probe.initial_state(state), inputs, labels)
        arrays["probe_bits"], arrays["argmax"], arrays["confidence"] = forced
        arrays["base_bits"], _, _ = _forced(models.encoder, None, inputs, labels)
        if models.null_probe is not None:
            start = models.null_probe.initial_state(None, len(token_ids))
            bits, argmax, _ = _forced(models.null_probe, start, inputs, labels)
            arrays["null_bits"], arrays["null_argmax"] = bits, argmax
        for name, probe in models.others.items():
            start = probe.initial_state(state, len(token_ids))
            arrays[f"probe_bits_{name}"], _, _ = _forced(probe, start, inputs, labels)
        if donors is not None:
            for name, changed in controlled_states(state, models.state(donors), means):
                start = models.probe.initial_state(changed)
                bits, _, _ = _forced(models.probe, start, inputs, labels)
                arrays[f"probe_bits_{name}"] = bits
        written = models.probe.reconstruct(state, token_ids.shape[1] + EXTRA_TOKENS)
    arrays["reconstruction"] = written.cpu().numpy().astype(np.int32)
    return arrays


def controlled_states(
    state: MambaState, donor: MambaState, means: MambaState | None
) -> Iterator[tuple[str, MambaState]]:
    """Yield the test-time controls: their names, and the state with parts exchanged.

    Args:
        state: of B chunks.
        donor: of as many chunks of other documents.
        means: of one row, the mean over chunks of the same length; without it, no mean controls.
    """
    yield "other_state", donor
    yield "other_conv", replace(state, conv=donor.conv)
    yield "other_ssm", replace(state, ssm=donor.ssm)
    for layer in range(len(state.conv)):
        yield f"other_layer_{layer}", _with_layer(state, donor, layer)
        if means is not None:
            yield f"mean_layer_{layer}", _with_layer(state, means, layer)


def _with_layer(state: MambaState, other: MambaState, layer: int) -> MambaState:
    conv, ssm = state.conv.clone(), state.ssm.clone()
    conv[layer], ssm[layer] = other.conv[layer], other.ssm[layer]
    return replace(state, conv=conv, ssm=ssm)


def _forced(
    model: MambaProbe | MambaEncoder, start: MambaState | None, inputs: Tensor, labels: Tensor
) -> tuple[npt.NDArray[np.generic], ...]:
    """Return bits, best guess and its probability, each (B, T + 1)."""
    hidden, _ = model.backbone(inputs, start)
    nats, argmax, confidence = forced_statistics(hidden, model.lm_head.weight, labels)
    if not bool(torch.isfinite(nats).all()):
        raise ArithmeticError(f"{type(model).__name__} gave bits that are no numbers")
    bits = (nats / math.log(2)).float()
    return (
        bits.cpu().numpy(),
        argmax.cpu().numpy().astype(np.int32),
        confidence.float().cpu().numpy(),
    )


@torch.no_grad()
def sum_states(models: Models, token_ids: Tensor) -> MambaState:
    """Return the sum of the states after the texts (B, T), as one row in float64 on the CPU."""
    state = models.state(token_ids.to(models.device))
    return state.map(lambda part: part.double().sum(1, keepdim=True).cpu())


def until_eos(token_ids: list[int], eos: int) -> list[int]:
    """Return what stands before the first EOS.

    >>> until_eos([5, 7, 0, 0], eos=0), until_eos([5, 7], eos=0)
    ([5, 7], [5, 7])
    """
    return token_ids[: token_ids.index(eos)] if eos in token_ids else token_ids
