import torch
from transformers import MambaConfig

from selmem import read_state
from selmem.encoder import MambaEncoder
from selmem.probe import MambaProbe


def small_encoder(seed=0):
    torch.manual_seed(seed)
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)
    return MambaEncoder(config).eval()


def test_generate_and_reconstruct_agree():
    encoder = small_encoder()
    probe = MambaProbe.from_encoder(encoder)
    state = read_state(encoder, torch.arange(1, 13).view(2, 6))
    assert torch.equal(probe.reconstruct(state, 9), probe.generate(state=state, max_length=9))
