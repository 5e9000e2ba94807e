"""Claims about the Triton kernels, run by test_triton_scan.py: in the interpreter, and on a GPU."""

import pytest
import torch

from selmem.probe import selective_scan as reference
from selmem.probe import triton_scan
from selmem.probe.triton_runtime import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
LENGTHS = (1, 3, 17) if INTERPRETED else (1, 3, 64, 255, 256, 1000)
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fill what torch.empty returns with NaN: an output that is not written cannot pass."""
    empty = torch.empty

    def filled(*shape, **options):
        values = empty(*shape, **options)
        return values.fill_(float("nan")) if values.is_floating_point() else values

    monkeypatch.setattr(torch, "empty", filled)


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


def scan_inputs(batch, n_tokens, channels, n_states=16, dtype=torch.float32):
    z = normal(batch, n_tokens, 2 * channels, dtype=dtype)[..., channels:]
    selection = normal(batch, n_tokens, 3 + 2 * n_states, dtype=dtype)
    _, b_map, c_map = selection.split([3, n_states, n_states], -1)
    x, dt = normal(batch, n_tokens, channels, dtype=dtype), normal(batch, n_tokens, channels)
    a = -torch.exp(normal(channels, n_states))
    skip, bias = normal(channels), normal(channels) - 3
    state = normal(batch, channels, n_states)
    return x, dt.to(dtype), a, b_map, c_map, skip, z, bias, state


def conv_inputs(batch, n_tokens, channels, width=4, dtype=torch.float32):
    x = normal(batch, n_tokens, 2 * channels, dtype=dtype)[..., :channels]
    window = normal(batch, channels, width, dtype=dtype)
    return x, normal(channels, width), normal(channels), window


def gradients(operation, inputs, dy, dfinal):
    leaves = [value.detach().requires_grad_() for value in inputs]
    y, final = operation(*leaves)
    grads = torch.autograd.grad([y, final], leaves, [dy.to(y.dtype), dfinal.to(final.dtype)])
    return [y.detach(), final.detach(), *grads]


def assert_agree(fast, slow, inputs):
    """Compare outputs and all gradients with a float64 loop, by relative norm."""
    limit = LIMITS[inputs[0].dtype]
    dy = torch.randn_like(inputs[0])
    dfinal = normal(*fast(*inputs)[1].shape)
    found = gradients(fast, inputs, dy, dfinal)
    wide = [value.double() for value in inputs]
    expected = gradients(slow, wide, dy.double(), dfinal.double())
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        error = float((a.double() - b).norm() / b.norm().clamp(min=1e-30))
        assert error < limit, f"output or gradient {index} is off by {error}"


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_scan_equals_float64_loop_with_all_gradients(n_tokens, dtype):
    inputs = scan_inputs(2, n_tokens, 37, dtype=dtype)
    assert_agree(triton_scan.selective_scan, reference.selective_scan_ref, inputs)


@pytest.mark.parametrize("n_states", [1, 8, 12, 32])
def test_scan_takes_any_number_of_states_up_to_32(n_states):
    inputs = scan_inputs(1, 11, 5, n_states)
    assert_agree(triton_scan.selective_scan, reference.selective_scan_ref, inputs)


def test_scan_names_the_most_states_it_holds():
    with pytest.raises(ValueError, match="at most 32 states, not 33"):
        triton_scan.selective_scan(*scan_inputs(1, 2, 3, 33))


def test_scan_without_an_initial_state_starts_from_zero():
    assert_agree(
        triton_scan.selective_scan, reference.selective_scan_ref, scan_inputs(2, 9, 7)[:-1]
    )


def test_a_program_that_takes_several_texts_adds_up_their_gradients(monkeypatch):
    monkeypatch.setattr(triton_scan, "MANY_PROGRAMS", 2)
    inputs = scan_inputs(5, 9, 33)
    assert_agree(triton_scan.selective_scan, reference.selective_scan_ref, inputs)


def test_a_second_run_gives_the_same_bits():
    inputs = scan_inputs(3, 13, 40)
    dy, dfinal = torch.randn_like(inputs[0]), torch.randn_like(inputs[-1])
    first, second = (gradients(triton_scan.selective_scan, inputs, dy, dfinal) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_two_pieces_equal_the_whole():
    x, dt, a, b_map, c_map, skip, z, bias, state = scan_inputs(2, 21, 10)
    y, final = triton_scan.selective_scan(x, dt, a, b_map, c_map, skip, z, bias, state)
    pieces = []
    for part in (slice(0, 8), slice(8, 21)):
        cut = (x[:, part], dt[:, part], a, b_map[:, part], c_map[:, part], skip, z[:, part], bias)
        piece, state = triton_scan.selective_scan(*cut, state)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), y)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_convolution_equals_float64_loop_with_all_gradients(n_tokens, dtype):
    inputs = conv_inputs(2, n_tokens, 37, dtype=dtype)
    assert_agree(triton_scan.causal_conv, reference.causal_conv_ref, inputs)


@pytest.mark.parametrize("given", [2, 3])
def test_convolution_takes_no_bias_and_no_window(given):
    inputs = conv_inputs(2, 70, 9, width=3)[:given]

    def with_none(operation):
        return lambda *parts: operation(*parts, *[None] * (3 - len(parts)))

    fast, slow = with_none(triton_scan.causal_conv), with_none(reference.causal_conv_ref)
    assert_agree(fast, slow, inputs)


def test_one_token_advances_state_and_window_in_place():
    *inputs, state = scan_inputs(3, 1, 37)
    parts = [part[:, 0] if part.dim() == 3 else part for part in inputs]
    wide = state.double()
    y = triton_scan.selective_state_update(state, *parts)
    expected = reference.selective_state_update_ref(wide, *(part.double() for part in parts))
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state.double(), wide, rtol=1e-5, atol=1e-6)
    x, weight, bias, window = conv_inputs(3, 1, 37)
    wide = window.double()
    y = triton_scan.conv_update(window, x[:, 0], weight, bias)
    expected = reference.conv_update_ref(wide, x[:, 0].double(), weight.double(), bias.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(window.double(), wide)
