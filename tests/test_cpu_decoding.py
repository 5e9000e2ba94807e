import pytest
import torch
from torch.testing import assert_close

from selmem.encoder import read_state
from selmem.probe.cpu_decoding import CpuSteps
from selmem.probe.mamba_state import MambaState
from small_models import small_encoder, token_ids

BATCH, TOKENS = 3, 7


def started(dtype=torch.float32, **changes):
    """Return a backbone and the state that it has after a few tokens."""
    encoder = small_encoder(**changes).to(dtype)
    state = read_state(encoder, token_ids(BATCH, 5))
    return encoder.backbone, state


@torch.no_grad()
def hidden_after(step, ids):
    return torch.stack([step(column) for column in ids.T])


@pytest.mark.parametrize(
    "changes",
    [{}, {"use_bias": True, "use_conv_bias": False}, {"conv_kernel": 2, "residual_in_fp32": False}],
    ids=["usual", "biases", "short window"],
)
def test_steps_equal_those_of_the_backbone(changes):
    backbone, state = started(torch.float64, **changes)
    ids, steps, advanced = (
        token_ids(BATCH, TOKENS, seed=1),
        CpuSteps(backbone, state),
        state.clone(),
    )
    found = hidden_after(steps, ids)
    expected = hidden_after(lambda column: backbone.step(column, advanced), ids)
    assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("wide", [True, False], ids=["wide stream", "narrow stream"])
def test_half_precision_weights_keep_a_wide_state(wide):
    backbone, state = started(torch.bfloat16, residual_in_fp32=wide)
    ids, advanced = token_ids(BATCH, TOKENS, seed=1), state.clone()
    found = hidden_after(CpuSteps(backbone, state), ids)
    expected = hidden_after(lambda column: backbone.step(column, advanced), ids)
    assert found.dtype == torch.bfloat16
    error = (found.double() - expected.double()).norm() / expected.double().norm()
    assert error < 2e-2


def test_kept_rows_go_on_as_before():
    backbone, state = started(torch.float64)
    ids, rows = token_ids(BATCH, TOKENS, seed=1), torch.tensor([2, 0])
    whole = hidden_after(CpuSteps(backbone, state), ids)
    steps = CpuSteps(backbone, state)
    first = hidden_after(steps, ids[:, :2])
    steps.keep(rows)
    rest = hidden_after(steps, ids[rows, 2:])
    assert_close(first, whole[:2])
    assert_close(rest, whole[2:, rows])


def test_the_state_is_left_alone_and_may_be_one_row_for_all():
    backbone, state = started()
    one = MambaState(state.conv[:, :1], state.ssm[:, :1])
    shared = one.map(lambda part: part.expand(-1, BATCH, -1, -1))
    before = one.clone()
    ids = token_ids(1, TOKENS, seed=1).expand(BATCH, -1)
    found = hidden_after(CpuSteps(backbone, shared), ids)
    assert_close(found, found[:, :1].expand_as(found))
    assert torch.equal(one.ssm, before.ssm)
    assert torch.equal(one.conv, before.conv)


def test_autocast_has_no_effect():
    backbone, state = started()
    ids = token_ids(BATCH, 2)
    plain = hidden_after(CpuSteps(backbone, state), ids)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hidden_after(CpuSteps(backbone, state), ids), plain)
