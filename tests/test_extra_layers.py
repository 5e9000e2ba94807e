import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel

from selmem import read_state
from selmem.probe import MambaProbe, MambaProbeConfig
from selmem.probe.graph_decoding import GraphDecoder
from small_models import VOCABULARY, small_encoder, token_ids

LAYERS, EXTRA = 3, 2


def state_of(texts=3, tokens=6):
    return read_state(small_encoder(), token_ids(texts, tokens))


def deep_probe(condition="state", **config):
    """Return a probe as training would leave it: no layer of it is an identity."""
    probe = MambaProbe.from_encoder(small_encoder(), condition, extra_layers=EXTRA, **config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        # the tied output layer would repeat the token that was just read
        probe.lm_head.weight = torch.nn.Parameter(
            torch.randn(probe.lm_head.weight.shape, generator=generator)
        )
    return probe.eval()


@pytest.mark.parametrize("condition", ["state", "ssm", "none"])
@pytest.mark.parametrize("half", [False, True])
def test_extra_layers_change_nothing_before_training(condition, half):
    encoder = small_encoder(residual_in_fp32=not half)
    flat = MambaProbe.from_encoder(encoder, condition).eval()
    deep = MambaProbe.from_encoder(encoder, condition, extra_layers=EXTRA).eval()
    ids, state = token_ids(3, 5), state_of()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        one, other = (probe(ids, state=state).logits for probe in (flat, deep))
    assert len(deep.backbone.layers) == LAYERS + EXTRA
    assert torch.equal(one, other)
    assert torch.equal(flat.reconstruct(state, 8), deep.reconstruct(state, 8))


def test_extra_layers_start_as_identities_in_a_random_probe_too():
    deep = MambaProbe.from_encoder(small_encoder(), extra_layers=EXTRA, random_init=True)
    silent = [not layer.mixer.out_proj.weight.any() for layer in deep.backbone.layers]
    assert silent == [False] * LAYERS + [True] * EXTRA


def test_extra_layers_learn():
    deep = MambaProbe.from_encoder(small_encoder(), extra_layers=EXTRA).train()
    optimizer = torch.optim.SGD(deep.parameters(), 0.1)
    ids, labels = deep.teacher_forcing(token_ids(3, 6))
    for _ in range(2):
        optimizer.zero_grad()
        deep(ids, state=state_of(), labels=labels).loss.backward()
        optimizer.step()
    for layer in deep.backbone.layers[LAYERS:]:
        assert all(parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize("condition", ["state", "conv", "none"])
def test_state_enters_only_the_layers_of_the_encoder(condition):
    deep = deep_probe(condition)
    start = deep.initial_state(state_of(), 3)
    assert start.conv.shape[0] == start.ssm.shape[0] == LAYERS + EXTRA
    assert start.conv[:LAYERS].any()
    assert not start.conv[LAYERS:].any()
    assert not start.ssm[LAYERS:].any()
    if condition == "none":
        assert deep.null_ssm.shape[0] == deep.null_conv.shape[0] == LAYERS


def test_state_of_all_layers_is_refused():
    deep = deep_probe()
    own = deep(token_ids(3, 4), state=state_of()).state
    with pytest.raises(ValueError, match=f"expects conv \\({LAYERS}, "):
        deep(token_ids(3, 4), state=own)


def test_probe_continues_its_own_state_of_all_layers():
    deep, ids, state = deep_probe(), token_ids(3, 6), state_of()
    whole = deep(ids, state=state).logits
    first = deep(ids[:, :2], state=state)
    second = deep(ids[:, 2:], cache_params=first.state)
    assert_close(torch.cat([first.logits, second.logits], dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", ["state", "none"])
def test_every_way_of_decoding_writes_the_same(condition):
    deep, state = deep_probe(condition), state_of(5)
    written = deep.reconstruct(state, 20)
    assert torch.equal(deep.generate(state=state, max_length=20), written)
    start = deep.initial_state(state)
    graphed = GraphDecoder(deep, lambda work: work).decode(start, 20)
    assert torch.equal(graphed, written)
    ids, _ = deep.teacher_forcing(written)
    forced = deep(ids, state=state).logits[:, :-1].argmax(-1)
    before_end = (written == 0).cumsum(1) - (written == 0).long() == 0
    assert torch.equal(forced[before_end], written[before_end])
    assert len(written.unique()) > 2


@pytest.mark.parametrize("condition", ["state", "none"])
def test_deep_probe_survives_saving_and_loading(condition, tmp_path):
    deep = deep_probe(condition)
    deep.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.config.extra_layers == EXTRA
    ids, state = token_ids(3, 5), state_of()
    assert torch.equal(loaded(ids, state=state).logits, deep(ids, state=state).logits)
    assert loaded.backbone.layers[-1].mixer.out_proj.weight.any()


def test_number_of_extra_layers_must_not_be_negative():
    with pytest.raises(ValueError, match="extra_layers is -1"):
        MambaProbeConfig(vocab_size=VOCABULARY, extra_layers=-1)
