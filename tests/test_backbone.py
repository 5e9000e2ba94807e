import pytest
import torch
from torch.testing import assert_close
from transformers import MambaConfig, MambaForCausalLM

from selmem.encoder import MambaEncoder
from selmem.probe import MambaProbe, MambaProbeConfig, MambaState
from small_models import encoder_like, small_config, stock_model, token_ids

LENGTHS = [1, 2, 3, 4, 5, 63]
# hidden size and number of layers of the published state-spaces checkpoints
PUBLISHED = {
    "130m": (768, 24),
    "370m": (1024, 48),
    "790m": (1536, 48),
    "1.4b": (2048, 48),
    "2.8b": (2560, 64),
}


def both(**changes):
    stock = stock_model(**changes)
    return stock, encoder_like(stock)


def naive_mixer(weights, hidden, window, state):
    """Run one mixer over (T, H) for one text, token by token, as the paper writes it."""
    inner, rank = weights["dt_proj.weight"].shape
    states = weights["A_log"].shape[1]
    outputs = []
    for h in hidden:
        xz = weights["in_proj.weight"] @ h
        window = torch.cat([window[:, 1:], xz[:inner, None]], dim=1)
        mixed = (window * weights["conv1d.weight"][:, 0]).sum(1) + weights["conv1d.bias"]
        u = mixed * torch.sigmoid(mixed)
        dt_B_C = weights["x_proj.weight"] @ u
        raw = weights["dt_proj.weight"] @ dt_B_C[:rank] + weights["dt_proj.bias"]
        delta = torch.log1p(torch.exp(raw))[:, None]
        B, C = dt_B_C[rank : rank + states], dt_B_C[rank + states :]
        state = torch.exp(-delta * torch.exp(weights["A_log"])) * state + delta * B * u[:, None]
        y = state @ C + weights["D"] * u
        z = xz[inner:]
        outputs.append(weights["out_proj.weight"] @ (y * z * torch.sigmoid(z)))
    return torch.stack(outputs), window, state


def naive_norm(hidden, weight, eps=1e-5):
    return hidden / torch.sqrt((hidden**2).mean(-1, keepdim=True) + eps) * weight


def naive_backbone(weights, ids, conv, ssm):
    """Return hidden (T, H), conv (L, D, W) and ssm (L, D, N) of one text."""
    hidden = weights["backbone.embeddings.weight"][ids]
    windows, states = [], []
    for layer in range(conv.shape[0]):
        start = f"backbone.layers.{layer}."
        mixer = {n[len(start) + 6 :]: w for n, w in weights.items() if n.startswith(start)}
        normed = naive_norm(hidden, weights[start + "norm.weight"])
        mixed, window, state = naive_mixer(mixer, normed, conv[layer], ssm[layer])
        hidden = hidden + mixed
        windows.append(window)
        states.append(state)
    hidden = naive_norm(hidden, weights["backbone.norm_f.weight"])
    return hidden, torch.stack(windows), torch.stack(states)


def random_state(config, batch, seed=3):
    generator = torch.Generator().manual_seed(seed)
    empty = MambaState.zeros(config, batch, dtype=torch.float64)
    return empty.map(lambda part: torch.randn(part.shape, generator=generator).double())


@pytest.mark.parametrize("tokens", LENGTHS)
def test_backbone_matches_a_naive_float64_loop(tokens):
    encoder = both()[1].double()
    ids, state = token_ids(2, tokens), random_state(encoder.config, 2)
    hidden, final = encoder.backbone(ids, state)
    weights = dict(encoder.named_parameters())
    for row in range(2):
        naive = naive_backbone(weights, ids[row], state.conv[:, row], state.ssm[:, row])
        ours = hidden[row], final.conv[:, row], final.ssm[:, row]
        assert_close(ours, naive, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_gradients_match_a_naive_float64_loop(tokens):
    encoder = both(num_hidden_layers=2)[1].double()
    ids, state = token_ids(1, tokens), random_state(encoder.config, 1)
    leaves = [*encoder.parameters(), state.conv.requires_grad_(), state.ssm.requires_grad_()]

    def gradients(hidden, conv, ssm):
        loss = (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum()
        loss = loss + (conv**2).sum() + (ssm**2).sum()
        return torch.autograd.grad(loss, leaves, allow_unused=True)

    hidden, final = encoder.backbone(ids, state)
    ours = gradients(hidden, final.conv, final.ssm)
    weights = dict(encoder.named_parameters())
    naive = naive_backbone(weights, ids[0], state.conv[:, 0], state.ssm[:, 0])
    # the oldest input of the window is used by neither
    assert all(grad is not None for grad in ours)
    assert_close(ours, gradients(*naive), rtol=1e-8, atol=1e-9)


def test_the_gradient_of_a_state_is_put_together_once():
    encoder = both()[1]
    state = MambaState.zeros(encoder.config, 2).map(torch.Tensor.requires_grad_)
    hidden, _ = encoder.backbone(token_ids(2, 3), state)
    leaves, leading = (state.conv, state.ssm), []
    seen, coming = set(), [hidden.grad_fn]
    while coming:
        node = coming.pop()
        if node in seen:
            continue
        seen.add(node)
        after = [following for following, _ in node.next_functions if following is not None]
        if any(getattr(one, "variable", None) is leaf for one in after for leaf in leaves):
            leading.append(node.name())
        coming += after
    assert set(leading) == {"UnbindBackward0"}
    assert len(leading) == 2


@pytest.mark.parametrize("tokens", LENGTHS)
def test_outputs_and_state_match_stock_transformers(tokens):
    stock, encoder = both()
    ids = token_ids(3, tokens)
    with torch.no_grad():
        theirs = stock(ids, use_cache=True, output_hidden_states=True)
        ours = encoder(ids)
        hidden, _ = encoder.backbone(ids)
    assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-5)
    assert_close(hidden, theirs.hidden_states[-1], rtol=1e-4, atol=1e-5)
    cached = MambaState.from_cache(theirs.cache_params)
    assert_close(ours.state.conv, cached.conv, rtol=1e-4, atol=1e-5)
    assert_close(ours.state.ssm, cached.ssm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 4, 63])
@pytest.mark.parametrize("use_bias", [False, True])
def test_gradients_match_stock_transformers(tokens, use_bias):
    stock, encoder = both(use_bias=use_bias)
    ids = token_ids(2, tokens)
    stock(ids, use_cache=False).logits.square().mean().backward()
    encoder(ids).logits.square().mean().backward()
    theirs = {name: p.grad for name, p in stock.named_parameters()}
    ours = {name: p.grad for name, p in encoder.named_parameters()}
    assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_continuation_matches_stock_single_steps():
    stock, encoder = both()
    ids = token_ids(2, 12)
    with torch.no_grad():
        cache = stock(ids[:, :7], use_cache=True).cache_params
        state = MambaState.from_cache(cache)
        ours = encoder(ids[:, 7:], state)
        steps = [
            stock(ids[:, t : t + 1], cache_params=cache, use_cache=True).logits
            for t in range(7, 12)
        ]
    assert_close(ours.logits, torch.cat(steps, dim=1), rtol=1e-4, atol=1e-5)
    assert_close(ours.state.ssm, MambaState.from_cache(cache).ssm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 30, 62])
def test_split_forward_equals_full_forward(cut):
    encoder = both()[1].double()
    ids = token_ids(2, 63)
    hidden, state = encoder.backbone(ids)
    first, middle = encoder.backbone(ids[:, :cut])
    second, final = encoder.backbone(ids[:, cut:], middle)
    assert_close(torch.cat([first, second], dim=1), hidden, rtol=1e-10, atol=1e-11)
    assert_close((final.conv, final.ssm), (state.conv, state.ssm), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("use_bias", [False, True])
def test_left_padded_texts_end_in_exactly_their_own_state(use_bias):
    encoder = both(use_bias=use_bias)[1].double()
    lengths = [1, 2, 3, 9]
    padded, mask = torch.zeros(4, 9, dtype=torch.long), torch.zeros(4, 9, dtype=torch.long)
    texts = [token_ids(1, n, seed=n) for n in lengths]
    for row, text in enumerate(texts):
        padded[row, -text.shape[1] :], mask[row, -text.shape[1] :] = text[0], 1
    hidden, state = encoder.backbone(padded, None, mask)
    for row, text in enumerate(texts):
        alone, own = encoder.backbone(text)
        assert_close(hidden[row, -text.shape[1] :], alone[0], rtol=0, atol=1e-13)
        assert_close(state.conv[:, row], own.conv[:, 0], rtol=0, atol=1e-13)
        assert_close(state.ssm[:, row], own.ssm[:, 0], rtol=0, atol=1e-13)


def test_left_padding_matches_stock_transformers():
    stock, encoder = both()
    ids, mask = token_ids(2, 8), torch.ones(2, 8, dtype=torch.long)
    mask[0, :5] = 0
    with torch.no_grad():
        theirs = stock(ids, attention_mask=mask, use_cache=True)
        ours = encoder(ids, attention_mask=mask)
    assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-5)
    cached = MambaState.from_cache(theirs.cache_params)
    assert_close(ours.state.ssm, cached.ssm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask", [[1, 1, 0], [0, 1, 0], [1, 0, 1]])
def test_right_padding_is_refused(mask):
    with pytest.raises(ValueError, match="padding_side='left'"):
        both()[1].backbone(token_ids(1, 3), None, torch.tensor([mask]))


def test_padding_after_an_initial_state_is_refused():
    encoder = both()[1]
    _, state = encoder.backbone(token_ids(2, 3))
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    with pytest.raises(ValueError, match="padding and an initial state exclude each other"):
        encoder.backbone(token_ids(2, 3), state, mask)


def test_single_steps_equal_one_forward():
    encoder = both()[1].double()
    ids, state = token_ids(2, 8), random_state(encoder.config, 2)
    hidden, final = encoder.backbone(ids, state)
    with torch.no_grad():
        for t in range(8):
            step = encoder.backbone.step(ids[:, t], state)
            assert_close(step, hidden[:, t].detach(), rtol=1e-10, atol=1e-11)
    assert_close((state.conv, state.ssm), (final.conv.detach(), final.ssm.detach()))


def test_embeddings_may_be_given_instead_of_ids():
    encoder = both()[1]
    ids = token_ids(2, 5)
    embeds = encoder.backbone.embeddings(ids)
    assert torch.equal(encoder(inputs_embeds=embeds).logits, encoder(ids).logits)


def test_gradient_checkpointing_changes_no_gradient():
    encoder, ids = both()[1].train(), token_ids(2, 9)

    def gradients():
        encoder.zero_grad()
        encoder(ids[:, :-1], labels=ids[:, 1:]).loss.backward()
        return [p.grad.clone() for p in encoder.parameters()]

    plain = gradients()
    encoder.gradient_checkpointing_enable()
    assert encoder.backbone.layers[0].gradient_checkpointing
    assert_close(gradients(), plain, rtol=1e-6, atol=1e-7)


def test_bf16_autocast_keeps_the_state_in_float32_and_the_answer_close():
    encoder, ids = both()[1], token_ids(2, 20)
    with torch.no_grad():
        exact = encoder(ids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = encoder(ids)
    assert rounded.state.ssm.dtype == torch.float32
    assert rounded.logits.dtype == torch.float32
    error = (rounded.logits - exact.logits).abs().max() / exact.logits.abs().max()
    assert 0 < error < 0.05


def test_other_activations_are_refused():
    with pytest.raises(ValueError, match="hidden_act is 'relu'; only 'silu'"):
        MambaEncoder(small_config(hidden_act="relu"))


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_at_the_published_shapes_are_those_of_stock_transformers(size):
    hidden, layers = PUBLISHED[size]
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "vocab_size": 50280}
    with torch.device("meta"):
        stock = MambaForCausalLM(MambaConfig(**shape))
        encoder = MambaEncoder(MambaConfig(**shape))
        probe = MambaProbe(MambaProbeConfig(**shape))
    assert shapes(encoder) == shapes(stock)
    assert shapes(probe) == shapes(stock)
