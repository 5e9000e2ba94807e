"""Stand in for a checkpoint of state-spaces where none can be had: its shapes, random weights.

    python scripts/dry_encoder.py SIZE OUT         SIZE: 130m 370m 790m 1.4b

Encoder, probe and null probe of the whole shape are built without memory, and counted. OUT gets an
encoder of the true width and vocabulary with two layers of random weights, and the bundled
tokenizer, for commands to run on. Time: 7 seconds of processor time for 1.4b.
"""

import argparse
from pathlib import Path

import torch
from speed import STATE_SPACES
from transformers import MambaConfig

from selmem import bundled_path
from selmem.encoder import MambaEncoder
from selmem.probe import MambaProbe, MambaState
from selmem.tokenization import load_tokenizer

LAYERS = 2


def configuration(size: str, layers: int | None = None) -> MambaConfig:
    """Return the configuration of a size, or of its first layers."""
    shape = STATE_SPACES[size]
    return MambaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers if layers is None else layers,
        name_or_path=f"state-spaces/mamba-{size}-hf",
    )


def describe(size: str) -> str:
    """Return the numbers of the whole shape, after building it on the meta device."""
    with torch.device("meta"):
        encoder = MambaEncoder(configuration(size))
        probe = MambaProbe.from_encoder(encoder)
        null = MambaProbe.from_encoder(encoder, "none")
        state = probe.initial_state(MambaState.zeros(encoder.config, 1))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (encoder, probe, null)]
    return (
        f"{size}: {sizes[0]:,} parameters, as the probe has ({sizes[1]:,}); "
        f"{len(state.conv)} layers, a state of {state.conv.numel() + state.ssm.numel():,} numbers, "
        f"which the null probe learns too ({sizes[2]:,})"
    )


def main() -> None:
    """Print the numbers and write the small stand-in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=STATE_SPACES)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    print(describe(args.size))
    if not (args.out / "config.json").exists():
        torch.manual_seed(0)
        MambaEncoder(configuration(args.size, LAYERS)).bfloat16().save_pretrained(args.out)
        load_tokenizer(bundled_path("mamba-tiny")).save_pretrained(args.out)


if __name__ == "__main__":
    main()
