"""Claims about the Triton kernels, run by test_triton_scan.py: in the interpreter, and on a GPU."""

import pytest
import torch

from selmem.encoder import read_state
from selmem.probe import (
    MambaProbe,
    choosing,
    decoding_buffers,
    residual_norm,
    triton_cross_entropy,
    triton_norm,
    triton_scan,
    triton_step,
)
from selmem.probe import selective_scan as reference
from selmem.probe.triton_runtime import INTERPRETED
from small_models import small_encoder, token_ids
from triton_runs import poison  # noqa: F401, every case runs with it

DEVICE = "cpu" if INTERPRETED else "cuda"
LENGTHS = (1, 3, 17) if INTERPRETED else (1, 3, 64, 255, 256, 1000)
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


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


def assert_agree(fast, slow, inputs, limit=None):
    """Compare outputs and all gradients with a float64 loop, by relative norm."""
    limit = limit or LIMITS[inputs[0].dtype]
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


def test_without_gradients_no_states_are_saved(monkeypatch):
    saved = []
    forward = triton_scan.scan_forward
    monkeypatch.setattr(
        triton_scan,
        "scan_forward",
        lambda *operands, save: saved.append(save) or forward(*operands, save),
    )
    inputs = [value.requires_grad_() for value in scan_inputs(1, 9, 5)]
    with torch.no_grad():
        quiet = triton_scan.selective_scan(*inputs)
    loud = triton_scan.selective_scan(*inputs)
    assert saved == [False, True]
    assert all(torch.equal(a, b) for a, b in zip(quiet, loud, strict=True))


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


@pytest.mark.parametrize("hidden", [7, 300])
@pytest.mark.parametrize("stream", LIMITS)
@pytest.mark.parametrize("dtype", LIMITS)
def test_norm_of_a_sum_equals_float64_with_all_gradients(dtype, stream, hidden):
    inputs = (normal(2, 5, hidden, dtype=dtype), normal(2, 5, hidden, dtype=stream), normal(hidden))

    def fast(*parts):
        return triton_norm.add_norm(*parts, 1e-5, dtype)

    def slow(*parts):
        return residual_norm.add_norm_ref(*parts, 1e-5, torch.float64)

    assert_agree(fast, slow, inputs, limit=max(LIMITS[dtype], LIMITS[stream]))


@pytest.mark.parametrize("unused", ["normed", "sum"])
def test_norm_of_a_sum_takes_a_gradient_for_one_of_its_outputs(unused):
    inputs = (normal(30, 9), normal(30, 9), normal(9))
    grads = []
    for operation in (triton_norm.add_norm, residual_norm.add_norm_ref):
        leaves = [value.detach().requires_grad_() for value in inputs]
        normed, total = operation(*leaves, 1e-5, torch.float32)
        kept = total if unused == "normed" else normed
        kept.square().sum().backward()
        grads.append([torch.zeros_like(p) if p.grad is None else p.grad for p in leaves])
    for fast, slow in zip(*grads, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


def test_weight_gradients_of_programs_with_many_rows_add_up(monkeypatch):
    monkeypatch.setattr(triton_norm, "PROGRAMS", 3)
    inputs = (normal(2, 10, 40), normal(2, 10, 40), normal(40))
    fast, slow = (
        lambda *parts, operation=operation: operation(*parts, 1e-5, parts[0].dtype)
        for operation in (triton_norm.add_norm, residual_norm.add_norm_ref)
    )
    assert_agree(fast, slow, inputs)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("vocabulary", [3, 200, 4100])
def test_cross_entropy_and_its_gradient_equal_float64(vocabulary, dtype):
    logits = (5 * normal(6, vocabulary)).to(dtype)
    labels = torch.randint(0, vocabulary, (6,), device=DEVICE)
    labels[2] = -100
    wide = logits.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(wide, labels, reduction="none")
    expected.sum().backward()
    losses = triton_cross_entropy.cross_entropy_(logits, labels, -100)
    limit = {"rtol": LIMITS[dtype], "atol": LIMITS[dtype] / 10}
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.double(), wide.grad, **limit)
    assert not logits[2].any()


def test_cross_entropy_of_extreme_logits_is_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], device=DEVICE)
    losses = triton_cross_entropy.cross_entropy_(logits, torch.tensor([1, 2], device=DEVICE), -100)
    torch.testing.assert_close(losses, torch.tensor([2e4, 1.0986123], device=DEVICE))


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_a_probe_learns_the_same_as_with_plain_operations(autocast, monkeypatch):
    encoder = small_encoder().to(DEVICE)
    probe = MambaProbe.from_encoder(encoder).to(DEVICE).train()
    text = token_ids(2, 6).to(DEVICE)
    results = []
    for implementation in ("torch", "triton"):
        monkeypatch.setenv("SELMEM_SCAN", implementation)
        probe.zero_grad()
        state = read_state(encoder, text)
        input_ids, labels = probe.teacher_forcing(text)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
            loss = probe(input_ids, state=state, labels=labels).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in probe.parameters())])
    for plain, fast in zip(*results, strict=True):
        error = float((plain - fast).norm() / plain.norm())
        assert error < (0.08 if autocast else 1e-4), error


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("vocabulary", [3, 5000])
def test_the_largest_logit_is_chosen_and_ended_rows_stay_ended(vocabulary, dtype):
    logits = normal(6, vocabulary, dtype=dtype)
    logits[1] = logits[1].min()
    logits[3, 2] = logits.max() + 1
    results = []
    for choose in (choosing.choose_ref, triton_step.choose):
        token = torch.full((6,), -7, device=DEVICE)
        ended = torch.arange(6, device=DEVICE) == 4
        recent = torch.full((3, 8), -7, device=DEVICE)
        slot = torch.tensor([1], device=DEVICE)
        choose(logits, decoding_buffers.Chosen(token, ended, recent, slot, 2))
        results.append((token, ended, recent, slot))
    for plain, fast in zip(*results, strict=True):
        assert torch.equal(plain, fast)


def test_a_step_of_the_backbone_equals_plain_operations(monkeypatch):
    encoder = small_encoder().to(DEVICE)
    results = []
    for implementation in ("torch", "triton"):
        monkeypatch.setenv("SELMEM_SCAN", implementation)
        state = read_state(encoder, token_ids(3, 5).to(DEVICE))
        with torch.no_grad():
            hidden = encoder.backbone.step(token_ids(3, 1)[:, 0].to(DEVICE), state)
        results.append((hidden, state.conv, state.ssm))
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
