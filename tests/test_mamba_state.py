import pytest
import torch
from transformers import DynamicCache

from selmem.probe import MambaState
from small_models import small_config, small_encoder, stock_model, token_ids


def state_after(batch=3, tokens=6):
    return small_encoder()(token_ids(batch, tokens)).state


def same(one, other):
    return torch.equal(one.conv, other.conv) and torch.equal(one.ssm, other.ssm)


def test_state_survives_the_way_through_a_cache():
    state = state_after()
    assert same(MambaState.from_cache(state.to_cache(small_config())), state)


def test_state_survives_saving_without_trust_in_the_file(tmp_path):
    state = state_after()
    state.encoder_fingerprint = "f"
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert same(loaded, state)
    assert loaded.encoder_fingerprint == "f"


def test_cache_holds_a_copy():
    state = state_after()
    kept = state.clone()
    state.to_cache(small_config()).layers[0].recurrent_states[0].zero_()
    assert same(state, kept)


def test_stock_model_continues_from_our_cache():
    stock, ids = stock_model(), token_ids(2, 9)
    state = small_encoder()(ids[:, :8]).state
    with torch.no_grad():
        next_step = stock(ids[:, 8:], cache_params=state.to_cache(stock.config), use_cache=True)
        whole = stock(ids).logits[:, 8:]
    torch.testing.assert_close(next_step.logits, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache", [None, DynamicCache(), DynamicCache(config=small_config())])
def test_empty_cache_is_refused(cache):
    with pytest.raises(ValueError, match="expected the filled cache of a Mamba-1 model"):
        MambaState.from_cache(cache)


def test_shapes_and_dtypes_of_the_empty_state():
    state = MambaState.zeros(small_config(), batch=4, dtype=torch.bfloat16)
    assert state.conv.shape == (3, 4, 48, 4)
    assert state.ssm.shape == (3, 4, 48, 5)
    assert (state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.float32)
    assert state.batch_size == 4
    assert not state.conv.any()
    assert not state.ssm.any()


def test_conditions_keep_their_part_and_zero_the_other():
    state = state_after()
    assert state.keep("state") is state
    assert torch.equal(state.keep("conv").conv, state.conv)
    assert not state.keep("conv").ssm.any()
    assert torch.equal(state.keep("ssm").ssm, state.ssm)
    assert not state.keep("ssm").conv.any()
    with pytest.raises(ValueError, match="expected 'state', 'conv' or 'ssm'"):
        state.keep("none")


def test_rows_are_selected_in_the_order_asked_for():
    state = state_after()
    chosen = state.select(torch.tensor([2, 0, 2]))
    assert torch.equal(chosen.ssm[:, 0], state.ssm[:, 2])
    assert torch.equal(chosen.conv[:, 1], state.conv[:, 0])
    assert chosen.batch_size == 3


def test_fingerprint_travels_with_the_state():
    state = state_after()
    state.encoder_fingerprint = "abc"
    for copy in (state.clone(), state.detach(), state.to("cpu"), state.keep("conv")):
        assert copy.encoder_fingerprint == "abc"
    assert MambaState.from_cache(state.to_cache(small_config()), "abc").encoder_fingerprint == "abc"


def test_a_state_shows_its_shapes_and_not_its_numbers():
    state = MambaState(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 5))
    shapes = "conv=(1, 2, 3, 4) torch.float32, ssm=(1, 2, 3, 5) torch.float32"
    assert repr(state) == f"MambaState({shapes})"
    state.encoder_fingerprint = "ab"
    assert repr(state) == f"MambaState({shapes}, encoder_fingerprint='ab')"
