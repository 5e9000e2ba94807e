import pytest
import torch

from selmem.encoder import read_state
from selmem.probe import MambaProbe, MambaState
from selmem.probe.choosing import choose_ref
from selmem.probe.decoding_buffers import Chosen
from selmem.probe.graph_decoding import ROUND, GraphDecoder, _size
from small_models import VOCABULARY, small_encoder, token_ids

EOS = 0


class Recordings:
    """Stands for CUDA graphs: what is recorded runs again, and is counted."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, work):
        self.recorded += 1

        def replay():
            self.replayed += 1
            work()

        return replay


def writer():
    """Return an encoder, and a probe whose texts differ and end at different places."""
    encoder = small_encoder(eos_token_id=EOS)
    probe = MambaProbe.from_encoder(encoder).eval()
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(probe.lm_head.weight.shape, generator=generator)
    probe.lm_head.weight = torch.nn.Parameter(output)
    return encoder, probe


@pytest.mark.parametrize("rows", [1, 2, 5, 40])
@pytest.mark.parametrize("max_length", [1, ROUND, 2 * ROUND + 3, 40])
def test_decoder_writes_what_the_plain_loop_writes(rows, max_length):
    encoder, probe = writer()
    state = read_state(encoder, token_ids(rows, 7))
    expected = probe.reconstruct(state, max_length)
    before = state.clone()
    written = GraphDecoder(probe, Recordings()).decode(state, max_length)
    assert torch.equal(written, expected)
    assert torch.equal(state.ssm, before.ssm)
    assert torch.equal(state.conv, before.conv)


def test_rows_end_at_different_steps_in_these_tests():
    encoder, probe = writer()
    written = probe.reconstruct(read_state(encoder, token_ids(40, 7)), 40)
    lengths = (written != EOS).sum(1)
    assert len(set(lengths.tolist())) > 5


def test_a_second_call_replays_what_the_first_recorded():
    encoder, probe = writer()
    recordings = Recordings()
    decoder = GraphDecoder(probe, recordings)
    state = read_state(encoder, token_ids(4, 7))
    first = decoder.decode(state, 12)
    recorded, replayed = recordings.recorded, recordings.replayed
    assert torch.equal(decoder.decode(state, 12), first)
    assert recordings.recorded == recorded
    assert recordings.replayed >= replayed + 8


def test_ended_rows_leave_the_batch():
    encoder, probe = writer()
    decoder = GraphDecoder(probe, Recordings())
    sizes = []
    step = decoder._step
    decoder._step = lambda buffers: sizes.append(buffers.size) or step(buffers)
    decoder.decode(read_state(encoder, token_ids(40, 7)), 40)
    assert sizes[0] == 48
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 48


def test_rows_that_end_after_the_look_have_ended_when_rows_move():
    probe = writer()[1]
    decoder = GraphDecoder(probe, Recordings())
    buffers = decoder._load(MambaState.zeros(probe.config, 5))
    buffers.ended[:2] = True
    buffers.look()
    buffers.ended[3] = True
    going = buffers.going(5)
    assert going.tolist() == [2, 3, 4]
    buffers.move(going, 4)
    assert buffers.ended.tolist() == [False, True, False] + [True] * (buffers.most - 3)


def test_the_host_looks_before_the_last_step_of_a_round():
    encoder, probe = writer()
    decoder, log = GraphDecoder(probe, lambda work: work), []
    step = decoder._step
    decoder._step = lambda buffers: log.append("step") or step(buffers)
    buffers = decoder._load(read_state(encoder, token_ids(4, 7)))
    look = buffers.look
    buffers.look = lambda: log.append("look") or look()
    decoder._run(buffers, ROUND)
    assert log == ["step"] * (ROUND - 1) + ["look", "step"]


def test_a_larger_batch_after_a_smaller_one_is_right():
    encoder, probe = writer()
    decoder = GraphDecoder(probe, Recordings())
    for rows in (3, 20, 6):
        state = read_state(encoder, token_ids(rows, 7, seed=rows))
        assert torch.equal(decoder.decode(state, 20), probe.reconstruct(state, 20))


def test_changed_weights_are_taken_over():
    encoder, probe = writer()
    decoder = GraphDecoder(probe, Recordings())
    state = read_state(encoder, token_ids(4, 7))
    before = decoder.decode(state, 12)
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    expected = probe.reconstruct(state, 12)
    assert not torch.equal(expected, before)
    decoder.refresh(probe)
    assert torch.equal(decoder.decode(state, 12), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_taken_over_are_those_of_steps(dtype):
    _, probe = writer()
    probe = probe.to(dtype)
    decoder = GraphDecoder(probe, Recordings())
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.mul_(1.3)
    decoder.refresh(probe)
    for ours, expected in zip(decoder._weights, probe.backbone.step_weights(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_under_autocast_products_are_in_half_precision():
    encoder, probe = writer()
    state = read_state(encoder, token_ids(4, 7))
    # windows are kept in the precision of the products
    state.conv = state.conv.bfloat16().float()
    plain = GraphDecoder(probe, Recordings())
    with torch.autocast("cpu", torch.bfloat16):
        assert not plain.fits(probe)
        decoder = GraphDecoder(probe, Recordings())
        assert decoder.fits(probe)
        written = decoder.decode(state, 12)
        assert torch.equal(written, probe.reconstruct(state, 12))
    assert plain.fits(probe)
    assert decoder._backbone.layers[0].mixer.in_proj.weight.dtype == torch.bfloat16


def test_results_may_enter_a_graph_of_gradients_after_inference_mode():
    encoder, probe = writer()
    with torch.inference_mode():
        state = read_state(encoder, token_ids(2, 7))
        written = GraphDecoder(probe, Recordings()).decode(state, 5)
    assert not written.is_inference()


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_nothing_to_write(shape):
    encoder, probe = writer()
    rows, max_length = shape
    state = MambaState.zeros(encoder.config, rows)
    assert GraphDecoder(probe, Recordings()).decode(state, max_length).numel() == 0


def test_sizes_hold_their_rows():
    for rows in range(1, 1100):
        assert rows <= _size(rows) < max(2, 2 * rows)
        assert _size(_size(rows)) == _size(rows)


def test_choice_keeps_ended_rows_at_eos():
    logits = torch.zeros(3, VOCABULARY)
    logits[0, 5] = logits[1, 6] = logits[2, EOS] = 1
    token, slot = torch.full((3,), 9), torch.tensor([1])
    ended, recent = torch.tensor([False, True, False]), torch.full((2, 4), -1)
    choose_ref(logits, Chosen(token, ended, recent, slot, EOS))
    assert token.tolist() == [5, EOS, EOS]
    assert ended.tolist() == [False, True, True]
    assert recent.tolist() == [[-1] * 4, [5, EOS, EOS, -1]]
    assert slot.tolist() == [2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_graphs_on_the_gpu_write_what_the_plain_loop_writes():
    encoder, probe = (model.cuda() for model in writer())
    for rows in (1, 40, 40, 3):
        state = read_state(encoder, token_ids(rows, 7).cuda())
        expected = probe._reconstruct(state.clone(), 40)
        assert torch.equal(probe.reconstruct(state, 40), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [1, 40, 300])
def test_graphs_in_half_precision_write_what_the_same_steps_write_without_graphs(rows):
    encoder, probe = (model.cuda() for model in writer())
    probe = probe.bfloat16()
    state = read_state(encoder, token_ids(rows, 7).cuda())
    decoder = GraphDecoder(probe, lambda work: work)
    expected = decoder.decode(state, 24)
    assert (decoder._gpu_step is not None) == torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    for _ in range(2):
        assert torch.equal(probe.reconstruct(state, 24), expected)
