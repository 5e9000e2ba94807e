"""Time transformers' own Mamba as an encoder; run by peers.py, with or without mamba-ssm."""

import importlib.metadata
import json
import sys

import torch
from transformers import MambaConfig, MambaForCausalLM

from gpu_bench.common import DEVICE, SIZES, VOCABULARY, milliseconds, tokens
from gpu_bench.inference import ENCODE_SHAPES


def version(package: str) -> str | None:
    """Return the version of an installed package that can be imported, or None."""
    try:
        __import__(package)
        return importlib.metadata.version(package)
    except Exception as error:
        print(f"  {package} cannot be imported: {error!r}", file=sys.stderr)
        return None


def main() -> None:
    """Print one line of JSON."""
    hidden, layers = SIZES["130m"]
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers)
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = MambaForCausalLM(config).bfloat16().eval()
    found = {"packages": {name: version(name) for name in ("mamba_ssm", "causal_conv1d")}}
    fast = found["packages"]["mamba_ssm"] is not None
    rates = found["tokens_s"] = {}
    for batch, n_tokens in ENCODE_SHAPES:
        # without the kernels it takes the tokens one by one, and much memory
        rows = batch if fast else max(1, batch // 8)
        text = tokens(rows, n_tokens)
        with torch.no_grad():
            spent = milliseconds(lambda text=text: model.backbone(text, use_cache=True), 1.0)
        rates[f"B={batch} T={n_tokens}"] = rows * n_tokens / spent * 1e3
    print(json.dumps(found))


if __name__ == "__main__":
    main()
