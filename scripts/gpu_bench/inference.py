"""The encoder alone, and greedy reconstruction."""

import argparse
from typing import Any

from gpu_bench.common import (
    SIZES,
    VOCABULARY,
    milliseconds,
    milliseconds_of_bytes,
    models,
    results,
    say,
    tokens,
)

ENCODE_SHAPES = ((2048, 16), (512, 64), (128, 256), (32, 256))


def encode(_args: argparse.Namespace) -> None:
    """Time the encoder alone, in bfloat16."""
    from selmem.encoder import read_state

    encoder, _ = models("130m")
    table = results["encode"] = {}
    for batch, n_tokens in ENCODE_SHAPES:
        text = tokens(batch, n_tokens)
        spent = milliseconds(lambda text=text: read_state(encoder, text), budget=1.0)
        table[f"B={batch} T={n_tokens}"] = batch * n_tokens / spent * 1e3
        say(f"  B={batch} T={n_tokens}: {batch * n_tokens / spent * 1e3:.0f} tokens/s")


def reconstruct(args: argparse.Namespace) -> None:
    """Time greedy reconstruction in bfloat16, after a check that graphs write what a loop writes.

    Random weights rarely write EOS, so no row ends early.
    """
    from selmem.encoder import read_state

    encoder, probe = models("130m")
    probe = probe.bfloat16().eval()
    check_graphs(encoder, probe)
    table = results["reconstruct"] = {}
    for batch, n_tokens in ((256, 256), (1, 256), (64, 256), (512, 64), (1024, 64)):
        state = read_state(encoder, tokens(batch, 16))
        length = min(64, n_tokens) if args.quick else n_tokens
        spent = milliseconds(lambda s=state, n=length: probe.reconstruct(s, n), 1.0, warmups=2)
        floor = decoding_floor(batch)
        table[f"B={batch}"] = {
            "ms_step": spent / length,
            "floor_ms_step": floor,
            "tokens_s": batch * length / spent * 1e3,
        }
        say(
            f"  B={batch:<5} {spent / length:.3f} ms a step, floor {floor:.3f}; "
            f"{batch * length / spent * 1e3:.0f} tokens/s"
        )


def check_graphs(encoder: Any, probe: Any) -> None:
    """Stop where graphs write other tokens than the same steps launched one by one."""
    from selmem.encoder import read_state
    from selmem.probe.graph_decoding import GraphDecoder

    for batch in (1, 40):
        state = read_state(encoder, tokens(batch, 16))
        written = probe.reconstruct(state, 24)
        expected = GraphDecoder(probe, lambda work: work).decode(state, 24)
        same = float((written == expected).float().mean())
        results.setdefault("reconstruct_agreement", {})[f"B={batch}"] = same
        say(f"  B={batch}: {100 * same:.1f} % of the tokens as without graphs")
        if same < 0.99:
            raise SystemExit("WRONG: with and without graphs the texts differ")


def decoding_floor(batch: int) -> float:
    """Return the least milliseconds of a step: weights read, states read and written, once."""
    hidden, layers = SIZES["130m"]
    channels, states, rank, width = 2 * hidden, 16, hidden // 16, 4
    weights = VOCABULARY * hidden + layers * channels * (3 * hidden + 2 * rank + 2 * states)
    state = layers * channels * (4 * states + 2 * width)
    return milliseconds_of_bytes(2 * weights + 2 * batch * state)
