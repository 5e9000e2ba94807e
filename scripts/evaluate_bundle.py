"""Score an encoder's probe and null probe on held-out text: forced, and written out greedily.

    python scripts/evaluate_bundle.py --encoder mamba-tiny --probe mamba-tiny-probe \
        --null-probe mamba-tiny-null-probe --corpus corpus --out evaluation.json

Time: under a minute on a GPU; 15 minutes on two cores with --tokens 8192.

`in_place` is the share of tokens that the probe writes at their own position, decoding greedily up
to T + 16 tokens; `forced` the share it gets right when it is told the true prefix; bits are per
token of the text.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from selmem.corpus_store import TokenReader, open_store
from selmem.encoder import MambaEncoder, load_encoder
from selmem.probe import MambaProbe
from selmem.probe_loading import load_probe
from selmem.runs.objectives import Autocast, HeldOut, Reconstruction, score_held_out
from selmem.runs.schedules import Batch, held_out_batches
from selmem.tables import write_text

EXTRA_TOKENS = 16  # decoded beyond the text, so that its length is not given away


def in_place(
    probe: MambaProbe, objective: Reconstruction, batch: Batch, reader: TokenReader, rows: int
) -> dict[str, float]:
    """Return the shares of tokens in place, of whole texts, and of texts ended where they end."""
    right, whole, ended = 0.0, 0.0, 0.0
    for begin in range(0, len(batch.starts), rows):
        windows = reader.read(batch.starts[begin : begin + rows], batch.length)
        written = objective.write(probe, windows, batch.length + EXTRA_TOKENS)
        hits = written[:, : batch.length] == windows
        right += hits.double().mean(1).sum().item()
        whole += hits.all(1).sum().item()
        eos = probe.config.eos_token_id
        ended += (hits.all(1) & (written[:, batch.length] == eos)).sum().item()
    n_texts = len(batch.starts)
    return {"in_place": right / n_texts, "whole": whole / n_texts, "exact": ended / n_texts}


def forced(
    probe: MambaProbe, encoder: MambaEncoder | None, batches: list[Batch], reader: TokenReader
) -> dict[int, HeldOut]:
    """Return the teacher-forced scores per length."""
    objective = Reconstruction(encoder, Autocast(probe.device, bf16=False))
    return score_held_out(probe, objective, batches, reader, tokens_per_forward=16_384)


def main() -> None:
    """Score, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--null-probe")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus store")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--tokens", type=int, default=131_072, help="per length")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    store = open_store(args.corpus)
    reader = TokenReader(store, args.device)
    encoder = load_encoder(args.encoder, device=args.device)
    probe = load_probe(args.probe, device=args.device)
    batches = held_out_batches(store, args.lengths, tokens=args.tokens)
    scores = forced(probe, encoder, batches, reader)
    nulls = {}
    if args.null_probe:
        nulls = forced(load_probe(args.null_probe, device=args.device), None, batches, reader)
    objective = Reconstruction(encoder, Autocast(probe.device, bf16=False))
    results = {}
    print(
        f"{'T':>4} {'texts':>6} {'in place':>9} {'forced':>7} {'bits':>6} {'null':>6} {'exact':>6}"
    )
    for batch in batches:
        score, null = scores[batch.length], nulls.get(batch.length)
        greedy = in_place(probe, objective, batch, reader, rows=max(1, 65_536 // batch.length))
        results[batch.length] = {
            "n_texts": len(batch.starts),
            **greedy,
            "probe": asdict(score),
            "null": asdict(null) if null else None,
        }
        print(
            f"{batch.length:>4} {len(batch.starts):>6} {greedy['in_place']:>9.4f} "
            f"{score.accuracy:>7.4f} {score.bits:>6.3f} "
            f"{null.bits if null else float('nan'):>6.3f} {greedy['exact']:>6.4f}",
            flush=True,
        )
    write_text(
        args.out,
        json.dumps({"corpus": store.content_hash, "lengths": results}, indent=2) + "\n",
    )


if __name__ == "__main__":
    main()
