"""Time the paper's training step and its `reconstruct`; run by peers.py with its packages.

The step is that of its training script at B=16, T=256 without the anomaly mode: the encoder in
evaluation mode, gradient checkpointing, a padded text, AdamW, all in float32.
"""

import argparse
import json
import sys
import time
import types

import torch
import torch.nn.functional as F


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=50280)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs=3, default=(16, 256, 1))
    args = parser.parse_args()
    from ouroboros.models import MambaDecoderConfig, MambaDecoderForCausalLM
    from transformers import MambaConfig, MambaForCausalLM

    # its modules import it to score texts, which is not timed here
    sys.modules.setdefault("datasets", types.ModuleType("datasets"))
    shape = {
        "vocab_size": args.vocabulary,
        "hidden_size": args.hidden,
        "num_hidden_layers": args.layers,
    }
    torch.manual_seed(0)
    encoder = MambaForCausalLM(MambaConfig(**shape)).to(args.device).eval()
    decoder = MambaDecoderForCausalLM(MambaDecoderConfig(**shape, use_mambapy=True))
    decoder.to(args.device).train()
    train_batch, *batches = args.batches
    found = train(encoder, decoder, train_batch, args)
    decoder.eval()
    for batch in batches:
        found[f"reconstruct_tokens_s_B={batch}"] = reconstruct(encoder, decoder, batch, args)
    print(json.dumps(found))


def train(encoder, decoder, batch, args) -> dict[str, float]:
    """Return time and memory of a step after one that is not timed."""
    from ouroboros import encode_dataset

    decoder.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-4)
    text = torch.randint(1, args.vocabulary, (batch, args.tokens), device=args.device)

    def step() -> None:
        with torch.no_grad():
            cache = encode_dataset.get_cache_params(text, encoder)
        ids = F.pad(text, (1, 1), value=0)
        output = decoder(input_ids=ids, encoder_cache_params=cache, return_dict=True, labels=ids)
        output.loss.item()
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    seconds = clock(step, args.steps, args.device)
    peak = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    n_tokens = batch * args.tokens
    return {
        "train_ms": seconds * 1e3,
        "train_tokens_s": n_tokens / seconds,
        "train_peak_gb": peak / 1e9,
        "train_peak_mb_token": peak / 1e6 / n_tokens,
    }


def reconstruct(encoder, decoder, batch, args) -> float:
    """Return tokens a second of its `reconstruct` at up to 64 tokens; later ones cost the same."""
    from ouroboros import decoder_utils, encode_dataset

    text = torch.randint(1, args.vocabulary, (batch, 16), device=args.device)
    # a token that it never writes, so that no text ends
    tokenizer = types.SimpleNamespace(bos_token_id=0, eos_token_id=-1)
    length = min(64, args.tokens)

    def work() -> None:
        decoder_utils.reconstruct(decoder, tokenizer, cache, length)

    with torch.no_grad():
        cache = encode_dataset.get_cache_params(text, encoder)
    work()
    return batch * length / clock(work, 1, args.device)


def clock(work, repeats: int, device: str) -> float:
    """Return the seconds of one run."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return (time.perf_counter() - start) / repeats


if __name__ == "__main__":
    main()
