"""Claims about the step for GPUs, run by test_gpu_step.py."""

import copy

import pytest
import torch

from selmem.encoder import read_state
from selmem.probe import MambaProbe, MambaState, gpu_product, gpu_step, gpu_step_launches, gpu_tiles
from selmem.probe.graph_decoding import CudaRecorder, GraphDecoder
from selmem.probe.triton_runtime import INTERPRETED
from small_models import small_encoder, token_ids
from triton_runs import DEVICE, poison, to_the_nearest  # noqa: F401, every case runs with them

OWN = {f"own {most}": tiles for most, tiles in gpu_tiles.TILES.items()}
# norms within the products, and all kernels ahead
FOLDED = gpu_tiles.MANY._replace(
    convolve=gpu_tiles.Tile(16, 32, 4, ahead=True),
    select=gpu_tiles.Tile(16, 256, 8, ahead=True),
    recur=gpu_tiles.Tile(2, 32, 2, ahead=True),
    enter=gpu_tiles.ENTER._replace(ahead=True),
    leave=gpu_product.Product(64, 16, 64, 1, 4, 4, ahead=True),
    folded=True,
)
OWN["folded"] = FOLDED
OWN["folded, in branches"] = FOLDED._replace(branches=2)
LIBRARY = {f"library {most}": tiles for most, tiles in gpu_tiles.LIBRARY_TILES.items()}
STEPS = 2 if INTERPRETED else 8
SHAPES = (
    (1, {"hidden_size": 40, "state_size": 16, "time_step_rank": 20}),
    (3, {"hidden_size": 24, "state_size": 8, "time_step_rank": 5, "conv_kernel": 3}),
    (17, {"hidden_size": 48, "time_step_rank": 7, "use_bias": True, "use_conv_bias": False}),
    (34, {"hidden_size": 24, "residual_in_fp32": False}),
    (3, {"hidden_size": 96, "state_size": 16}),
    (3, {"hidden_size": 20}),  # too narrow for own products
)


def backbone_and_state(rows, **changes):
    """Return a bfloat16 backbone and a state of `rows` texts."""
    encoder = small_encoder(num_hidden_layers=2, **changes).to(DEVICE)
    state = read_state(encoder, token_ids(rows, 7).to(DEVICE))
    probe = MambaProbe.from_encoder(encoder).to(DEVICE).bfloat16().eval()
    with torch.no_grad():
        return probe.backbone.requires_grad_(False), MambaState(
            state.conv.bfloat16(), state.ssm.clone()
        )


def steps_of(step, state, *more):
    """Return hidden vectors of some steps, and the state after them, as float32."""
    rows = state.batch_size
    with torch.no_grad():
        tokens = [token_ids(rows, 1, seed=s)[:, 0].contiguous().to(DEVICE) for s in range(STEPS)]
        hidden = []
        for token in tokens:
            hidden.append(step(token, state, *more).clone())
            for turn in more:
                turn += 1
        hidden = torch.stack(hidden)
    return [part.float() for part in (hidden, state.conv, state.ssm)]


def gpu_steps(backbone, state, *, turns=False):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELMEM_SCAN", "triton")
        step = gpu_step.gpu_step(backbone, backbone.step_weights(), state.ssm.dtype)
    turn = [torch.zeros(1, dtype=torch.int64, device=DEVICE)] if turns else []
    return steps_of(step, MambaState(state.conv.mT.contiguous().mT, state.ssm.clone()), *turn)


def errors(found, expected):
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize(("rows", "changes"), SHAPES, ids=lambda part: str(part)[:12])
def test_gpu_steps_are_as_near_to_exact_ones_as_plain_steps(rows, changes):
    backbone, state = backbone_and_state(rows, **changes)
    exact = copy.deepcopy(backbone).float()
    expected = steps_of(exact.step, MambaState(state.conv.float(), state.ssm.clone()))
    plain = steps_of(backbone.step, state.clone())
    fast = gpu_steps(backbone, state)
    for ours, theirs in zip(errors(fast, expected), errors(plain, expected), strict=True):
        assert ours < 1.3 * theirs + 1e-3
    assert max(errors(fast, plain)) < 0.02


@pytest.mark.parametrize(("rows", "changes"), SHAPES, ids=lambda part: str(part)[:12])
def test_steps_with_norms_in_the_products_are_as_near(rows, changes, monkeypatch):
    monkeypatch.setattr(gpu_tiles, "TILES", {1000: FOLDED})
    test_gpu_steps_are_as_near_to_exact_ones_as_plain_steps(rows, changes)


@pytest.mark.parametrize("width", [2, 4])
def test_windows_may_be_rings(width):
    backbone, state = backbone_and_state(5, conv_kernel=width)
    shifted = gpu_steps(backbone, state)
    turned = gpu_steps(backbone, state, turns=True)
    turned[1] = turned[1].roll(-STEPS % width, -1)
    for ours, expected in zip(turned, shifted, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs one kernel after the other")
@pytest.mark.parametrize("tiles", OWN.values(), ids=OWN)
def test_early_starts_change_nothing(tiles, monkeypatch):
    backbone, state = backbone_and_state(7, hidden_size=40)
    monkeypatch.setattr(gpu_tiles, "TILES", {1000: tiles})
    early = gpu_steps(backbone, state)
    monkeypatch.setattr(gpu_step, "EARLY", False)
    for ours, expected in zip(early, gpu_steps(backbone, state), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("tiles", {**OWN, **LIBRARY}.values(), ids=[*OWN, *LIBRARY])
def test_every_tile_is_right(tiles, monkeypatch):
    backbone, state = backbone_and_state(5, hidden_size=40)
    plain = steps_of(backbone.step, state.clone())
    monkeypatch.setattr(gpu_tiles, "TILES", {1000: tiles})
    monkeypatch.setattr(gpu_tiles, "LIBRARY_TILES", {1000: tiles._replace(enter=None, leave=None)})
    assert max(errors(gpu_steps(backbone, state), plain)) < 0.02


def in_branches(patch, branches, tiles=gpu_tiles.MANY):
    """Split rows into so many branches, whatever their number."""
    patch.setattr(gpu_tiles, "TILES", {1000: tiles._replace(branches=branches)})


@pytest.mark.parametrize("tiles", [gpu_tiles.MANY, FOLDED], ids=["norms", "folded"])
@pytest.mark.parametrize(("rows", "branches"), [(1, 2), (5, 2), (7, 3)])
def test_branches_change_nothing(rows, branches, tiles, monkeypatch):
    backbone, state = backbone_and_state(rows, hidden_size=40)
    in_branches(monkeypatch, 1, tiles)
    expected = gpu_steps(backbone, state)
    in_branches(monkeypatch, branches, tiles)
    for ours, theirs in zip(gpu_steps(backbone, state), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(not INTERPRETED, reason="launches nothing early")
def test_only_the_first_kernel_of_a_branch_waits_for_all_before(monkeypatch):
    early = []

    def options(_warps, *, early: bool, log=early):
        log.append(early)
        return {"EARLY": False}

    for module in (gpu_step_launches, gpu_product):
        monkeypatch.setattr(module, "launch_options", options)
    monkeypatch.setattr(gpu_step, "may_start_early", lambda _device: True)
    in_branches(monkeypatch, 2)
    backbone, state = backbone_and_state(3, hidden_size=40)
    step = gpu_step.GpuStep(backbone, backbone.step_weights())
    step(torch.ones(3, dtype=torch.int64), MambaState(state.conv.mT.contiguous().mT, state.ssm))
    kernels = 6
    first, second = [False] + [True] * kernels, [True] * kernels
    assert early == [*first, *first, *second, *second]


@pytest.mark.skipif(not INTERPRETED, reason="not every GPU has own products")
@pytest.mark.parametrize(
    ("rows", "most", "own"),
    [(5, 1, True), (5, 0.99, False), (70, 1, True), (70, 0.99, False), (600, 9, False)],
)
def test_large_products_are_left_to_the_library(rows, most, own, monkeypatch):
    limit = "MOST_MULTIPLICATIONS" if rows <= 64 else "MOST_IN_BRANCHES"
    monkeypatch.setattr(gpu_tiles, limit, most * rows * 40 * 160)
    backbone, _ = backbone_and_state(1, hidden_size=40)
    tiles = gpu_step.GpuStep(backbone, backbone.step_weights())._tiles(rows)
    assert (tiles.enter is not None, tiles.leave is not None) == (own, own)
    assert (tiles.branches > 1) == (own and rows > 64)


@pytest.mark.skipif(not INTERPRETED, reason="not every GPU has own products")
@pytest.mark.parametrize(
    ("rows", "branches", "own"),
    [(64, 1, True), (128, 2, True), (256, 4, True), (512, 4, True), (1024, 1, False)],
)
def test_rows_of_768_channels_are_split_as_measured(rows, branches, own):
    backbone, _ = backbone_and_state(1, hidden_size=768)
    tiles = gpu_step.GpuStep(backbone, backbone.step_weights())._tiles(rows)
    assert tiles.branches == branches
    assert (tiles.enter is not None, tiles.leave is not None) == (own, own)


@pytest.mark.skipif(not INTERPRETED, reason="not every GPU has own products")
@pytest.mark.parametrize(
    ("rows", "state_size", "channels"),
    [
        (256, 16, 512),
        (256, 40, 512),
        (256, 41, 256),
        (5, 64, 64),
        (1024, 16, 128),
        (1024, 250, 128),
    ],
)
def test_convolution_has_room_for_what_it_selects(rows, state_size, channels):
    backbone, _ = backbone_and_state(1, state_size=state_size, time_step_rank=48)
    step = gpu_step.GpuStep(backbone, backbone.step_weights())
    assert step._tiles(rows).convolve.channels == channels


def writer(**changes):
    """Return a probe whose output layer is random, and a state of three texts."""
    encoder = small_encoder(eos_token_id=0, num_hidden_layers=1, **changes).to(DEVICE)
    probe = MambaProbe.from_encoder(encoder).to(DEVICE).eval()
    head = torch.randn(probe.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    probe.lm_head.weight = torch.nn.Parameter(head.to(DEVICE))
    return probe, read_state(encoder, token_ids(3, 7).to(DEVICE))


def test_the_decoder_writes_the_same_in_branches(monkeypatch):
    monkeypatch.setenv("SELMEM_SCAN", "triton")
    probe, state = writer(hidden_size=40)
    probe.bfloat16()
    record = (lambda work: work) if INTERPRETED else CudaRecorder(probe.device)
    written = []
    for branches in (1, 2):
        in_branches(monkeypatch, branches)
        written.append(GraphDecoder(probe, record).decode(state, 6))
    assert torch.equal(*written)


def test_the_decoder_writes_the_same_without_logits(monkeypatch):
    monkeypatch.setenv("SELMEM_SCAN", "triton")
    probe, state = writer(hidden_size=40)
    head = probe.bfloat16().lm_head.weight.data
    head[7] = head[50]  # equals, of two blocks of columns
    written = []
    for cut in (None, gpu_product.Product(16, 32, 32, 1, 4, 2)):
        monkeypatch.setattr(gpu_tiles, "TILES", {1000: gpu_tiles.MANY._replace(head=cut)})
        written.append(GraphDecoder(probe, lambda work: work).decode(state, 6))
    assert torch.equal(*written)


@pytest.mark.parametrize(("autocast", "width"), [(False, 4), (True, 4), (False, 3)])
def test_the_decoder_writes_what_plain_steps_write(autocast, width, monkeypatch):
    monkeypatch.setenv("SELMEM_SCAN", "triton")
    probe, state = writer(conv_kernel=width)
    probe = probe if autocast else probe.bfloat16()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
        decoder = GraphDecoder(probe, lambda work: work)
        written = decoder.decode(state, 11)
        assert decoder._gpu_step is not None
        assert (decoder._buffers.turn is None) == (width == 3), "a round has 8 steps"
        plain = GraphDecoder(probe, lambda work: work)
        plain._load = lambda start: plainly(plain, start)
        # a GPU may round a near tie the other way, and then the texts part
        columns = 11 if INTERPRETED else 1
        assert torch.equal(plain.decode(state, 11)[:, :columns], written[:, :columns])


def plainly(decoder, start):
    buffers = GraphDecoder._load(decoder, start)
    decoder._gpu_step = None
    return buffers


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_other_precisions_are_left_to_plain_steps(dtype, monkeypatch):
    monkeypatch.setenv("SELMEM_SCAN", "triton")
    backbone, state = backbone_and_state(1)
    backbone.to(dtype)
    assert gpu_step.gpu_step(backbone, backbone.step_weights(), state.ssm.dtype) is None
