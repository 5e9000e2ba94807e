"""How much of a text comes back when the encoder had read only its first tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selmem.chunks import Chunk, TokenizedDocument, cut_chunk
from selmem.encoder import read_state
from selmem.measurement.matching import Matched, match_chunks
from selmem.measurement.scoring import EXTRA_TOKENS, Models, until_eos
from selmem.probe import MambaState
from selmem.probe.linear_cross_entropy import forced_statistics
from selmem.space.models import LoadedModels
from selmem.space.records import LengthPoint, WordRecord

SHORTEST = 4  # tokens
CLEARLY = 1.25  # times as long; closer points would stand on each other


def prefix_lengths(n_tokens: int) -> list[int]:
    """Return the powers of two from 4 on that are clearly shorter than the text.

    >>> prefix_lengths(64), prefix_lengths(65), prefix_lengths(80), prefix_lengths(4)
    ([4, 8, 16, 32], [4, 8, 16, 32], [4, 8, 16, 32, 64], [])
    """
    lengths = (SHORTEST * 2**i for i in range(n_tokens.bit_length()))
    return [length for length in lengths if length * CLEARLY <= n_tokens]


def prefix_points(
    loaded: LoadedModels,
    tokenized: TokenizedDocument,
    n_tokens: int,
    tokens: Sequence[dict[str, Any]],
) -> list[LengthPoint]:
    """Return what is written back of every beginning of the text that is shorter than it.

    Args:
        loaded: the models.
        tokenized: the text.
        n_tokens: how many of its tokens were read.
        tokens: rows of the table `tokens`; their null bits hold for every beginning.
    """
    lengths = prefix_lengths(n_tokens)
    if not lengths:
        return []
    chunks = [cut_chunk(tokenized, loaded.tokenizer, length, 0) for length in lengths]
    states = _states(loaded.models, chunks)
    with torch.no_grad():
        bits, argmax = _forced(loaded.models, states, torch.tensor([chunks[-1].token_ids]))
        written = loaded.models.probe.reconstruct(states, lengths[-1] + EXTRA_TOKENS).tolist()
    points = []
    for row, chunk in enumerate(chunks):
        ids = written[row][: chunk.length + EXTRA_TOKENS]
        [matched] = match_chunks(
            [chunk],
            [until_eos(ids, loaded.tokenizer.eos_token_id)],
            [argmax[row, : chunk.length]],
            loaded.tokenizer,
            chance_draws=0,
        )
        probe_bits = float(bits[row, : chunk.length].sum(dtype=np.float64))
        null_bits = _sum([token["null_bits"] for token in tokens[: chunk.length]])
        points.append(_point(chunk, matched, probe_bits, null_bits))
    return points


def whole_text_point(
    n_tokens: int, words: Sequence[WordRecord], summary: dict[str, Any]
) -> LengthPoint:
    """Return the point of the whole text from what was already found."""
    omitted = [word.omitted_aligned for word in words if not word.cut]
    null_bits, recovered = summary["null_bits"], summary["recovered_bits"]
    return LengthPoint(
        tokens=n_tokens,
        n_words=len(omitted),
        retained=_retained(omitted),
        recovered_fraction=round(recovered / null_bits, 4) if null_bits else None,
    )


@torch.no_grad()
def _states(models: Models, chunks: Sequence[Chunk]) -> MambaState:
    """Return the state after each chunk; the shorter ones are padded on the left."""
    longest = max(chunk.length for chunk in chunks)
    ids = torch.zeros((len(chunks), longest), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, chunk in enumerate(chunks):
        ids[row, longest - chunk.length :] = torch.tensor(chunk.token_ids)
        mask[row, longest - chunk.length :] = 1
    return read_state(models.encoder, ids, attention_mask=mask)


def _forced(
    models: Models, states: MambaState, token_ids: Tensor
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return bits and best guess of each token of the longest text from every state, (B, T + 1)."""
    inputs, labels = models.probe.teacher_forcing(token_ids.expand(states.conv.shape[1], -1))
    hidden, _ = models.probe.backbone(inputs, models.probe.initial_state(states))
    nats, argmax, _ = forced_statistics(hidden, models.probe.lm_head.weight, labels)
    return (nats / np.log(2)).float().numpy(), argmax.numpy().astype(np.int32)


def _point(
    chunk: Chunk, matched: Matched, probe_bits: float, null_bits: float | None
) -> LengthPoint:
    omitted = [
        bool(omitted)
        for omitted, word in zip(matched.omitted_aligned, chunk.words, strict=True)
        if not word.cut
    ]
    return LengthPoint(
        tokens=chunk.length,
        n_words=len(omitted),
        retained=_retained(omitted),
        recovered_fraction=round(1 - probe_bits / null_bits, 4) if null_bits else None,
    )


def _retained(omitted: Sequence[bool]) -> float | None:
    return round(1 - sum(omitted) / len(omitted), 4) if omitted else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
