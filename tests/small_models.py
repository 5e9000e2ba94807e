"""Tiny random Mambas for tests, with every parameter moved off its initial value."""

import torch
from transformers import MambaConfig, MambaForCausalLM

from selmem.encoder import MambaEncoder

VOCABULARY = 61


def small_config(**changes):
    shape = {"hidden_size": 24, "num_hidden_layers": 3, "state_size": 5, "vocab_size": VOCABULARY}
    return MambaConfig(**{**shape, **changes})


def stock_model(seed=0, **changes):
    torch.manual_seed(seed)
    model = MambaForCausalLM(small_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def encoder_like(stock):
    """Return our encoder with the weights of a stock model."""
    encoder = MambaEncoder(stock.config).to(stock.dtype).eval()
    encoder.load_state_dict(stock.state_dict())
    return encoder


def small_encoder(seed=0, **changes):
    return encoder_like(stock_model(seed, **changes))


def token_ids(batch, tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (batch, tokens), generator=generator)
