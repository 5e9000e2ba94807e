import importlib.machinery
import logging
import math
import sys
import types

import pytest
import torch
from torch.testing import assert_close

from largest_result import LargestResult
from selmem.probe import selective_scan as ops

LENGTHS = [1, 2, 3, 4, 5, 63]
BATCH, CHANNELS, STATES, WIDTH = 2, 7, 5, 4


def scan_operands(tokens, dtype=torch.float64, seed=0):
    """Return x, dt, A, B, C, D, z, dt_bias and the initial state, all different from zero."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    wide = torch.promote_types(dtype, torch.float32)
    shape = (BATCH, tokens, CHANNELS)
    A = -torch.exp(random(CHANNELS, STATES)).to(wide)
    maps = random(BATCH, tokens, STATES), random(BATCH, tokens, STATES)
    rest = random(CHANNELS).to(wide), random(*shape), random(CHANNELS).to(wide)
    initial = random(BATCH, CHANNELS, STATES).to(wide)
    return [random(*shape), random(*shape), A, *maps, *rest, initial]


def naive_scan(x, dt, A, B, C, D, z, dt_bias, state):
    """Compute one number at a time, from the formula of the paper."""
    y, final = torch.empty_like(x), state.clone()
    for b in range(x.shape[0]):
        for d in range(x.shape[2]):
            h = [float(v) for v in state[b, d]]
            for t in range(x.shape[1]):
                delta = math.log1p(math.exp(float(dt[b, t, d] + dt_bias[d])))
                u = float(x[b, t, d])
                for n in range(A.shape[1]):
                    h[n] = math.exp(delta * float(A[d, n])) * h[n] + delta * float(B[b, t, n]) * u
                out = sum(float(C[b, t, n]) * h[n] for n in range(A.shape[1])) + float(D[d]) * u
                gate = float(z[b, t, d])
                y[b, t, d] = out * gate / (1 + math.exp(-gate))
            final[b, d] = torch.tensor(h, dtype=torch.float64)
    return y, final


def gradients(function, operands):
    leaves = [o.clone().requires_grad_() for o in operands]
    outputs = function(*leaves)
    weights = [torch.linspace(-1, 2, o.numel(), dtype=o.dtype).view(o.shape) for o in outputs]
    loss = sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("tokens", [1, 5, 17])
def test_reference_scan_matches_the_formula(tokens):
    operands = scan_operands(tokens)
    assert_close(ops.selective_scan_ref(*operands), naive_scan(*operands), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_fast_scan_matches_reference(tokens):
    operands = scan_operands(tokens)
    fast = ops.selective_scan(*operands, implementation="torch")
    assert_close(fast, ops.selective_scan_ref(*operands), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_gradients_of_the_fast_scan_match_reference(tokens):
    operands = scan_operands(tokens)
    fast = gradients(lambda *o: ops.selective_scan(*o, implementation="torch"), operands)
    slow = gradients(ops.selective_scan_ref, operands)
    assert len(fast) == 9
    assert_close(fast, slow, rtol=1e-11, atol=1e-11)


def test_gradients_match_finite_differences():
    operands = [o.requires_grad_() for o in scan_operands(tokens=3)]
    torch.autograd.gradcheck(
        lambda *o: ops.selective_scan(*o, implementation="torch"), operands, atol=1e-6
    )


def test_no_initial_state_means_zero():
    *operands, initial = scan_operands(6)
    zero = torch.zeros_like(initial)
    assert_close(ops.selective_scan(*operands), ops.selective_scan(*operands, zero))
    assert_close(ops.selective_scan_ref(*operands), ops.selective_scan_ref(*operands, zero))


def test_gradients_without_an_initial_state_match_reference():
    operands = scan_operands(9)[:-1]
    fast = gradients(lambda *o: ops.selective_scan(*o, implementation="torch"), operands)
    assert_close(fast, gradients(ops.selective_scan_ref, operands), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scan", [ops.selective_scan, ops.selective_scan_ref])
def test_scan_is_linear_in_the_initial_state(scan):
    x, dt, A, B, C, D, z, dt_bias, initial = scan_operands(40)
    y, final = scan(x, dt, A, B, C, D, z, dt_bias, initial)
    y_zero, final_zero = scan(x, dt, A, B, C, D, z, dt_bias)
    elapsed = torch.nn.functional.softplus(dt + dt_bias).cumsum(1)
    kept = torch.exp(elapsed[..., None] * A) * initial[:, None]
    carried = torch.einsum("btn,btdn->btd", C, kept) * torch.nn.functional.silu(z)
    assert_close(y, y_zero + carried, rtol=0, atol=1e-12)
    assert_close(final, final_zero + kept[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cut", [1, 4, 62])
def test_two_scans_in_a_row_equal_one(cut):
    x, dt, A, B, C, D, z, dt_bias, initial = scan_operands(63)
    whole = ops.selective_scan(x, dt, A, B, C, D, z, dt_bias, initial)
    state, parts = initial, []
    for rows in (slice(0, cut), slice(cut, None)):
        tokens = [part[:, rows] for part in (x, dt, B, C, z)]
        y, state = ops.selective_scan(
            tokens[0], tokens[1], A, tokens[2], tokens[3], D, tokens[4], dt_bias, state
        )
        parts.append(y)
    assert_close((torch.cat(parts, dim=1), state), whole, rtol=1e-12, atol=1e-12)


def test_float32_scan_stays_close_to_float64():
    exact = ops.selective_scan_ref(*scan_operands(63))
    rounded = ops.selective_scan(*scan_operands(63, torch.float32), implementation="torch")
    for value, truth in zip(rounded, exact, strict=True):
        assert value.dtype == torch.float32
        assert_close(value.double(), truth, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_keep_a_float32_state(dtype):
    operands = scan_operands(20, dtype)
    fast = ops.selective_scan(*operands, implementation="torch")
    slow = ops.selective_scan_ref(*operands)
    assert [part.dtype for part in fast] == [dtype, torch.float32]
    assert_close(fast[1], slow[1], rtol=1e-5, atol=1e-5)
    assert_close(fast[0], slow[0], rtol=1e-2, atol=1e-2)


def test_gradients_of_half_precision_inputs_come_in_their_dtype():
    grads = gradients(ops.selective_scan, scan_operands(4, torch.bfloat16))
    expected = [o.dtype for o in scan_operands(4, torch.bfloat16)]
    assert [grad.dtype for grad in grads] == expected


def test_autocast_does_not_reach_into_the_scan():
    operands = scan_operands(20, torch.float32)
    plain = ops.selective_scan(*operands), gradients(ops.selective_scan, operands)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = ops.selective_scan(*operands), gradients(ops.selective_scan, operands)
    assert_close(cast, plain, rtol=0, atol=0)


def test_autocast_does_not_reach_into_single_steps():
    x, dt, A, B, C, D, z, dt_bias, initial = scan_operands(1, torch.float32)
    tokens = [part[:, 0] for part in (x, dt, B, C, z)]

    def step(state):
        return ops.selective_state_update(
            state, tokens[0], tokens[1], A, tokens[2], tokens[3], D, tokens[4], dt_bias
        ), state

    plain = step(initial.clone())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(step(initial.clone()), plain, rtol=0, atol=0)


@pytest.mark.parametrize("train", [False, True])
def test_fast_scan_never_holds_all_states(train):
    operands = scan_operands(63)
    with LargestResult() as mode:
        if train:
            gradients(lambda *o: ops.selective_scan(*o, implementation="torch"), operands)
        else:
            ops.selective_scan(*operands, implementation="torch")
    assert mode.largest <= BATCH * 63 * CHANNELS


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_convolution_matches_reference(tokens, start, bias):
    operands = conv_operands(tokens, start, bias)
    fast = ops.causal_conv(*operands, implementation="torch")
    assert_close(fast, ops.causal_conv_ref(*operands), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_gradients_of_the_convolution_match_reference(tokens):
    operands = conv_operands(tokens, start=True, bias=True)
    slow = gradients(ops.causal_conv_ref, operands)
    assert_close(gradients(ops.causal_conv, operands), slow, rtol=1e-12, atol=1e-12)


def test_reference_convolution_matches_torch():
    x, weight, bias, _ = conv_operands(9, start=False, bias=True)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (WIDTH - 1, 0))
    expected = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=CHANNELS)
    y, window = ops.causal_conv_ref(x, weight, bias)
    assert_close(y, torch.nn.functional.silu(expected.transpose(1, 2)))
    assert_close(window, x[:, -WIDTH:].transpose(1, 2))


@pytest.mark.parametrize("tokens", [1, 3, 4, 6])
def test_final_window_holds_the_last_inputs(tokens):
    x, weight, bias, window = conv_operands(tokens, start=True, bias=True)
    _, final = ops.causal_conv(x, weight, bias, window)
    assert_close(final, torch.cat([window, x.transpose(1, 2)], dim=2)[..., -WIDTH:])


def test_oldest_input_of_the_window_reaches_no_output():
    x, weight, bias, window = conv_operands(3, start=True, bias=True)
    changed = window.clone()
    changed[..., 0] += 1
    assert torch.equal(
        ops.causal_conv(x, weight, bias, window)[0], ops.causal_conv(x, weight, bias, changed)[0]
    )


def conv_operands(tokens, start, bias):
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    window = random(BATCH, CHANNELS, WIDTH) if start else None
    return (
        random(BATCH, tokens, CHANNELS),
        random(CHANNELS, WIDTH),
        random(CHANNELS) if bias else None,
        window,
    )


@pytest.mark.parametrize("update", ["selective_state_update", "selective_state_update_ref"])
@pytest.mark.parametrize("layout", ["channels first", "states first"])
def test_single_steps_equal_one_scan(update, layout):
    x, dt, A, B, C, D, z, dt_bias, initial = scan_operands(6)
    y, final = ops.selective_scan_ref(x, dt, A, B, C, D, z, dt_bias, initial)
    state = initial.clone()
    if layout == "states first":
        state = initial.transpose(1, 2).contiguous().transpose(1, 2)
    for t in range(6):
        tokens = [part[:, t] for part in (x, dt, B, C, z)]
        out = getattr(ops, update)(
            state, tokens[0], tokens[1], A, tokens[2], tokens[3], D, tokens[4], dt_bias
        )
        assert_close(out, y[:, t], rtol=1e-12, atol=1e-12)
    assert_close(state, final, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("update", [ops.conv_update, ops.conv_update_ref])
def test_single_convolutions_equal_one_convolution(update):
    x, weight, bias, window = conv_operands(6, start=True, bias=True)
    y, final = ops.causal_conv_ref(x, weight, bias, window)
    for t in range(6):
        assert_close(update(window, x[:, t], weight, bias), y[:, t], rtol=1e-12, atol=1e-12)
    assert_close(window, final, rtol=0, atol=0)


@pytest.fixture
def fresh_choice():
    ops._chosen.cache_clear()
    yield
    ops._chosen.cache_clear()


@pytest.mark.usefixtures("fresh_choice")
def test_choice_is_logged_once(caplog):
    with caplog.at_level(logging.INFO, logger="selmem.probe.selective_scan"):
        for _ in range(3):
            ops.selective_scan(*scan_operands(2))
    assert caplog.messages == ["scan on cpu: torch (automatic)"]


@pytest.mark.usefixtures("fresh_choice")
def test_unknown_implementation_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match="'quick' is unknown; one of"):
        ops.selective_scan(*scan_operands(2), implementation="quick")
    monkeypatch.setenv("SELMEM_SCAN", "quick")
    with pytest.raises(ValueError, match="'quick' is unknown; one of"):
        ops.causal_conv(*conv_operands(2, start=True, bias=True))


@pytest.mark.usefixtures("fresh_choice")
def test_missing_implementation_is_an_error_when_asked_for(monkeypatch):
    monkeypatch.setenv("SELMEM_SCAN", "mamba_ssm")
    with pytest.raises(ImportError, match="'mamba_ssm' was asked for and is not available"):
        ops.selective_scan(*scan_operands(2))


@pytest.fixture
def mamba_ssm_stand_in(monkeypatch, fresh_choice):  # noqa: ARG001
    """Install a module with mamba_ssm's layout, (B, D, T), computing with the reference."""

    def selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):
        assert delta_softplus
        assert return_last_state
        u, delta, B, C, z = (part.transpose(1, 2) for part in (u, delta, B, C, z))
        y, state = ops.selective_scan_ref(u, delta, A, B, C, D, z, delta_bias)
        return y.transpose(1, 2), state

    leaf = "mamba_ssm.ops.selective_scan_interface"
    for name in ("mamba_ssm", "mamba_ssm.ops", leaf):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules[leaf].selective_scan_fn = selective_scan_fn


@pytest.mark.usefixtures("mamba_ssm_stand_in")
def test_mamba_ssm_is_given_its_own_layout():
    operands = scan_operands(5)[:-1]
    through = ops.selective_scan(*operands, implementation="mamba_ssm")
    assert_close(through, ops.selective_scan_ref(*operands))


@pytest.mark.usefixtures("mamba_ssm_stand_in")
def test_mamba_ssm_refuses_an_initial_state():
    with pytest.raises(ValueError, match="takes no initial state"):
        ops.selective_scan(*scan_operands(5), implementation="mamba_ssm")
