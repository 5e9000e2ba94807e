import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel

import selmem.probe
from selmem import read_state
from selmem.encoder import fingerprint
from selmem.probe import MambaProbe, MambaProbeConfig
from selmem.probe.cpu_decoding import CpuSteps
from small_models import VOCABULARY, encoder_like, small_encoder, stock_model, token_ids

LENGTHS = [1, 2, 3, 4, 5, 63]
PROBE_SOURCES = Path(selmem.probe.__file__).parent


def small_probe(condition="state", **config):
    """Return a probe unlike the encoder that it reads, with null constants that are not zero.

    Its layers are made strong, or else it would repeat the token that it has just read, to which
    the tied output layer gives the largest logit.
    """
    probe = MambaProbe.from_encoder(small_encoder(seed=1), condition, **config).eval()
    with torch.no_grad():
        for name, parameter in probe.named_parameters():
            if name.startswith("null_"):
                parameter.normal_()
            if name.endswith("out_proj.weight"):
                parameter.mul_(6)
    return probe


def state_of(texts=3, tokens=6):
    return read_state(small_encoder(), token_ids(texts, tokens))


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("through_cache", [False, True])
def test_probe_with_the_encoders_weights_continues_exactly_like_the_encoder(tokens, through_cache):
    stock = stock_model().double()
    encoder = encoder_like(stock)
    probe = MambaProbe.from_encoder(encoder).double().eval()
    ids = token_ids(2, 7 + tokens)
    with torch.no_grad():
        whole = encoder(ids)
        state = read_state(encoder, ids[:, :7])
        if through_cache:
            state.ssm = state.ssm.float()  # what a stock float32 model would hand over
            state = state.to_cache(stock.config)
        rest = probe(ids[:, 7:], state=state)
    tolerance = 1e-4 if through_cache else 1e-10
    assert_close(rest.logits, whole.logits[:, 7:], rtol=tolerance, atol=tolerance)
    assert_close(rest.state.ssm, whole.state.ssm, rtol=tolerance, atol=tolerance)


def test_probe_output_depends_on_the_state():
    probe, ids = small_probe(), token_ids(1, 4)
    one, other = state_of(1, 6), state_of(1, 7)
    assert (probe(ids, state=one).logits - probe(ids, state=other).logits).abs().max() > 0.01


@pytest.mark.parametrize(
    ("condition", "seen"),
    [("state", {"conv", "ssm"}), ("conv", {"conv"}), ("ssm", {"ssm"}), ("none", set())],
)
def test_condition_decides_which_part_is_seen(condition, seen):
    probe, ids, state = small_probe(condition), token_ids(3, 4), state_of()
    plain = probe(ids, state=state).logits
    for part in ("conv", "ssm"):
        changed = state.clone()
        setattr(changed, part, getattr(changed, part) + 1)
        same = torch.equal(probe(ids, state=changed).logits, plain)
        assert same == (part not in seen), part


def test_conditioned_probe_keeps_its_own_state_whole_while_it_writes():
    probe, ids, state = small_probe("conv"), token_ids(3, 6), state_of()
    whole = probe(ids, state=state).logits
    first = probe(ids[:, :2], state=state)
    second = probe(ids[:, 2:], cache_params=first.state)
    assert_close(torch.cat([first.logits, second.logits], dim=1), whole, rtol=1e-4, atol=1e-5)


def test_null_probe_learns_constants_and_needs_no_state():
    probe = MambaProbe.from_encoder(small_encoder(), "none")
    assert not probe.null_conv.any()
    assert not probe.null_ssm.any()
    assert probe.null_conv.shape == (3, 48, 4)
    assert probe.null_ssm.shape == (3, 48, 5)
    ids, labels = probe.teacher_forcing(token_ids(2, 5))
    probe(ids, labels=labels).loss.backward()
    assert probe.null_ssm.grad.abs().sum() > 0
    # the oldest input of a window reaches no output
    assert probe.null_conv.grad[..., 1:].abs().sum() > 0
    assert not probe.null_conv.grad[..., 0].any()
    assert not hasattr(small_probe("state"), "null_ssm")


def test_null_probe_starts_as_the_encoder_from_zero():
    encoder, ids = small_encoder(), token_ids(2, 5)
    probe = MambaProbe.from_encoder(encoder, "none").eval()
    assert_close(probe(ids).logits, encoder(ids).logits, rtol=1e-5, atol=1e-6)


def test_teacher_forcing_aligns_inputs_and_labels():
    ids, labels = small_probe().teacher_forcing(torch.tensor([[5, 6, 7]]))
    assert ids.tolist() == [[0, 5, 6, 7]]
    assert labels.tolist() == [[5, 6, 7, 0]]


def test_loss_is_the_cross_entropy_of_the_logits_with_nothing_shifted():
    probe, state = small_probe(), state_of()
    ids, labels = probe.teacher_forcing(token_ids(3, 5))
    labels[0, 1] = -100
    out = probe(ids, state=state, labels=labels)
    expected = F.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    assert_close(out.loss, expected)
    training = probe.train()(ids, state=state, labels=labels)
    assert training.logits is None
    assert_close(training.loss, expected)
    assert probe(ids, state=state, labels=labels, return_logits=True).logits is not None
    assert probe(ids, state=state, labels=labels).state is None
    assert probe(ids, state=state, labels=labels, use_cache=True).state is not None


def test_forward_takes_a_mask_without_padding_and_gives_a_tuple_on_request():
    probe, state = small_probe(), state_of()
    input_ids, labels = probe.teacher_forcing(token_ids(3, 6))
    output = probe(input_ids, state=state, labels=labels)
    mask = torch.ones_like(input_ids)
    loss, logits, final = probe(
        input_ids, state=state, labels=labels, attention_mask=mask, return_dict=False
    )
    assert_close((loss, logits), (output.loss, output.logits), rtol=0, atol=0)
    assert torch.equal(final.ssm, output.state.ssm)
    assert type(probe(input_ids, state=state, return_dict=None)) is type(output)
    probe.config.return_dict = False
    assert type(probe(input_ids, state=state)) is tuple
    mask[0, 0] = 0
    with pytest.raises(ValueError, match="padding and an initial state exclude each other"):
        probe(input_ids, state=state, attention_mask=mask)


def test_loss_may_be_divided_by_the_items_of_several_batches():
    probe, state = small_probe(), state_of()
    ids, labels = probe.teacher_forcing(token_ids(3, 5))
    mean = probe(ids, state=state, labels=labels).loss
    shared = probe(ids, state=state, labels=labels, num_items_in_batch=torch.tensor(36)).loss
    assert_close(shared * 2, mean)


def test_gradients_reach_the_state():
    probe, state = small_probe(), state_of()
    state.conv.requires_grad_()
    state.ssm.requires_grad_()
    ids, labels = probe.teacher_forcing(token_ids(3, 5))
    probe.train()(ids, state=state, labels=labels).loss.backward()
    assert state.ssm.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert state.conv.grad[..., 1:].abs().amax(dim=(1, 2, 3)).min() > 0


def test_state_of_another_encoder_is_refused_and_both_are_named():
    probe = small_probe(encoder_fingerprint="1234", encoder_name_or_path="some/mamba")
    state = state_of()
    state.encoder_fingerprint = "abcd"
    with pytest.raises(ValueError, match=r"fingerprint abcd.*some/mamba with fingerprint 1234"):
        probe.reconstruct(state, 3)
    state.encoder_fingerprint = None
    probe.reconstruct(state, 3)


def test_missing_and_misshapen_states_are_refused():
    probe, ids = small_probe(), token_ids(2, 3)
    with pytest.raises(ValueError, match=r"pass state=selmem\.read_state"):
        probe(ids)
    with pytest.raises(ValueError, match=r"expects conv \(3, 2, 48, 4\)"):
        probe(ids, state=state_of(3))
    other = read_state(small_encoder(state_size=6), ids)
    with pytest.raises(ValueError, match=r"and 5 values in ssm"):
        probe(ids, state=other)
    with pytest.raises(ValueError, match="there is no state to start from"):
        small_probe("none").reconstruct(None, 3)
    with pytest.raises(ValueError, match="expected input_ids or inputs_embeds"):
        probe(state=state_of())


def test_probe_records_its_encoder():
    encoder = small_encoder()
    encoder.config.name_or_path, encoder.revision = "some/mamba", "0123abc"
    encoder.fingerprint = fingerprint(encoder)
    config = MambaProbe.from_encoder(encoder, "ssm", tokenizer_hash="77").config
    assert config.encoder_name_or_path == "some/mamba"
    assert config.encoder_revision == "0123abc"
    assert config.encoder_fingerprint == encoder.fingerprint
    assert (config.condition, config.tokenizer_hash) == ("ssm", "77")


def test_probe_of_an_encoder_copies_its_weights():
    encoder = small_encoder()
    probe = MambaProbe.from_encoder(encoder)
    assert fingerprint(probe) == fingerprint(encoder)
    assert probe.lm_head.weight is probe.backbone.embeddings.weight
    with torch.no_grad():
        probe.backbone.norm_f.weight.zero_()
    assert encoder.backbone.norm_f.weight.abs().min() > 0


def test_probe_of_a_stock_model_and_of_random_weights():
    stock = stock_model()
    assert fingerprint(MambaProbe.from_encoder(stock)) == fingerprint(stock)
    control = MambaProbe.from_encoder(stock, random_init=True)
    assert fingerprint(control) != fingerprint(stock)
    assert control.config.hidden_size == stock.config.hidden_size


def with_early_ends(texts=5, max_length=12):
    """Return a probe and a state whose rows end at different positions, some never."""
    state = state_of(texts)
    for eos in range(VOCABULARY):
        probe = small_probe(eos_token_id=eos, pad_token_id=eos)
        written = probe.reconstruct(state, max_length)
        lengths = (written != eos).sum(1)
        if len(set(lengths.tolist())) >= 3 and lengths.min() < max_length == lengths.max():
            return probe, state, written
    raise AssertionError("no end-of-text token makes rows end early")


def test_reconstruction_is_the_argmax_of_the_forward_pass():
    probe, state, written = with_early_ends()
    eos = probe.config.eos_token_id
    forced = probe(probe.teacher_forcing(written)[0][:, :-1], state=state).logits.argmax(-1)
    ended = (written == eos).cumsum(1) - (written == eos).long() > 0
    assert torch.equal(written[~ended], forced[~ended])
    assert (written[ended] == eos).all()


def test_generate_and_reconstruct_agree():
    probe, state, written = with_early_ends()
    assert torch.equal(probe.generate(state=state, max_length=12), written)
    assert torch.equal(probe.generate(state=state, max_new_tokens=12, do_sample=False), written)


def test_reconstruction_stops_when_every_row_has_ended():
    probe, state, written = with_early_ends()
    ended = (written == probe.config.eos_token_id).any(1).nonzero().flatten()
    alone = probe.reconstruct(state.select(ended), 12)
    assert alone.shape[1] < 12
    assert torch.equal(alone, written[ended, : alone.shape[1]])


def test_ended_rows_leave_the_batch(monkeypatch):
    probe, state, written = with_early_ends()
    rows = []
    step = CpuSteps.__call__
    monkeypatch.setattr(
        CpuSteps, "__call__", lambda steps, ids: rows.append(len(ids)) or step(steps, ids)
    )
    probe.reconstruct(state, 12)
    eos = written == probe.config.eos_token_id
    going = [int((~eos[:, :t].any(1)).sum()) for t in range(12)]
    assert rows == going
    assert rows[-1] < rows[0]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_reconstruction_does_not_depend_on_the_batch(batch_size):
    probe, state, written = with_early_ends()
    assert torch.equal(probe.reconstruct(state, 12, batch_size=batch_size), written)


def test_reconstruction_leaves_the_state_alone():
    probe, state = small_probe(), state_of()
    kept = state.clone()
    probe.reconstruct(state, 4)
    assert torch.equal(state.ssm, kept.ssm)
    assert torch.equal(state.conv, kept.conv)


def test_half_precision_probe_writes_what_it_generates():
    probe, state = small_probe().bfloat16(), state_of()
    written = probe.reconstruct(state, 6)
    assert torch.equal(probe.generate(state=state, max_length=6), written)


def test_null_probe_writes_one_text_for_all():
    written = small_probe("none").reconstruct(state_of(3), 5)
    assert written.shape[0] == 3
    assert (written == written[0]).all()


def test_reconstruction_reads_half_precision_states():
    probe, state = small_probe(), state_of()
    state.conv = state.conv.bfloat16()
    assert probe.reconstruct(state, 4).shape == (3, 4)


@torch.no_grad()
def test_beam_search_finds_the_most_probable_pair():
    probe, state = small_probe(), state_of(2)
    found = probe.generate(state=state, max_length=2, num_beams=VOCABULARY)
    for row in range(2):
        every = state.select(torch.full((VOCABULARY,), row))
        pairs = torch.stack([torch.zeros(VOCABULARY).long(), torch.arange(VOCABULARY)], dim=1)
        steps = probe(pairs, state=every).logits.log_softmax(-1)
        scores = steps[0, 0, :, None] + steps[:, 1]
        scores[0] = -torch.inf  # a text that ends at once has no second token
        best = divmod(int(scores.argmax()), VOCABULARY)
        assert found[row].tolist() == list(best)


@torch.no_grad()
def test_beams_carry_their_own_states():
    probe, state, _ = with_early_ends()
    found = probe.generate(
        state=state,
        max_length=6,
        num_beams=4,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    ids, labels = probe.teacher_forcing(found.sequences)
    steps = probe(ids, state=state).logits.log_softmax(-1).gather(2, labels[..., None]).squeeze(2)
    eos = labels == probe.config.eos_token_id
    written = (eos.cumsum(1) - eos.long() == 0) & (torch.arange(labels.shape[1]) < ids.shape[1] - 1)
    assert_close(found.sequences_scores, (steps * written).sum(1), rtol=1e-4, atol=1e-4)


def test_sampling_returns_several_texts_per_state():
    probe, state = small_probe(), state_of(2)
    torch.manual_seed(0)
    sampled = probe.generate(
        state=state, max_length=5, do_sample=True, num_return_sequences=3, min_new_tokens=5
    )
    assert sampled.shape == (6, 5)
    assert len({tuple(row.tolist()) for row in sampled}) > 2
    likeliest = probe.generate(
        state=state, max_length=5, do_sample=True, top_k=1, num_return_sequences=2
    )
    greedy = probe.reconstruct(state, 5).repeat_interleave(2, dim=0)
    assert torch.equal(likeliest, greedy)


def test_generation_continues_a_prompt():
    probe, state = small_probe(), state_of(2)
    greedy = probe.reconstruct(state, 6)
    prompt = probe.teacher_forcing(greedy)[0][:, :4]
    assert torch.equal(probe.generate(prompt, state=state, max_length=7)[:, 1:], greedy)
    by_name = probe.generate(input_ids=prompt, state=state, max_length=7)
    assert torch.equal(by_name[:, 1:], greedy)


def test_generation_refuses_masks_that_it_cannot_obey():
    probe, state, mask = small_probe(), state_of(2), torch.tensor([[0, 1, 1], [1, 1, 1]])
    with pytest.raises(ValueError, match="padding and an initial state exclude each other"):
        probe.generate(input_ids=token_ids(2, 3), attention_mask=mask, state=state, max_length=7)
    with pytest.raises(ValueError, match="mask came without input_ids; give the mask to selmem"):
        probe.generate(state=state, attention_mask=mask, max_length=7)


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_generation_says_what_it_does_not_return(name):
    asked = {"return_dict_in_generate": True, "max_length": 3, name: True}
    with pytest.raises(ValueError, match=f"{name}=True came, .* hooks on probe.backbone.layers"):
        small_probe().generate(state=state_of(2), **asked)


def test_configuration_is_validated():
    with pytest.raises(ValueError, match="condition is 'all', expected one of"):
        MambaProbeConfig(condition="all")
    with pytest.raises(ValueError, match="max_chunk_tokens is 0"):
        MambaProbeConfig(max_chunk_tokens=0)
    config = MambaProbeConfig(hidden_size=100, expand=3)
    assert (config.intermediate_size, config.time_step_rank) == (300, 7)


def test_probe_survives_saving_and_loading(tmp_path):
    probe = small_probe("none", max_chunk_tokens=64, training={"seed": 3, "tokens": 10})
    probe.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is MambaProbe
    assert loaded.config.training == {"seed": 3, "tokens": 10}
    assert loaded.config.max_chunk_tokens == 64
    assert_close(dict(loaded.state_dict()), dict(probe.state_dict()), rtol=0, atol=0)
    assert loaded.lm_head.weight is loaded.backbone.embeddings.weight
    assert type(AutoConfig.from_pretrained(tmp_path)) is MambaProbeConfig


def test_parameters_missing_from_a_checkpoint_are_initialised(tmp_path):
    probe = small_probe("none")
    probe.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = (
        "A_log",
        ".D",
        "dt_proj.bias",
        "conv1d.weight",
        "norm_f.weight",
        "null_ssm",
        "null_conv",
    )
    kept = {name: value for name, value in weights.items() if not name.endswith(lost)}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = MambaProbe.from_pretrained(tmp_path)
    mixer = loaded.backbone.layers[0].mixer
    assert_close(mixer.A_log, torch.arange(1, 6).log().expand(48, 5))
    steps = F.softplus(mixer.dt_proj.bias)
    assert 1e-4 <= steps.min() < steps.max() <= 0.1 + 1e-6
    assert torch.equal(mixer.D, torch.ones(48))
    assert torch.equal(loaded.backbone.norm_f.weight, torch.ones(24))
    assert not loaded.null_ssm.any()
    assert not loaded.null_conv.any()
    assert 0 < mixer.conv1d.weight.abs().max() <= 0.5
    assert torch.equal(mixer.in_proj.weight, probe.backbone.layers[0].mixer.in_proj.weight)


def test_random_weights_are_those_of_the_papers_initialisation():
    torch.manual_seed(0)
    config = MambaProbeConfig(
        hidden_size=24, num_hidden_layers=4, vocab_size=9, rescale_prenorm_residual=True
    )
    mixer = MambaProbe(config).backbone.layers[2].mixer
    assert_close(mixer.A_log.exp(), torch.arange(1.0, 17).expand(48, 16))
    assert not mixer.conv1d.bias.any()
    bound = (6 / ((1 + 5) * 48)) ** 0.5
    assert 0.8 * bound / 2 < mixer.out_proj.weight.abs().max() <= bound / 2
    constant = MambaProbeConfig(hidden_size=24, time_step_init_scheme="constant", vocab_size=9)
    assert_close(
        MambaProbe(constant).backbone.layers[0].mixer.dt_proj.weight, torch.full((48, 2), 2**-0.5)
    )


def run_without_selmem(code, tmp_path):
    """Run `code` in a fresh interpreter that cannot import selmem."""
    guard = """
        import sys

        class NoSelmem:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "selmem":
                    raise ModuleNotFoundError(f"No module named {name!r}")

        sys.meta_path.insert(0, NoSelmem())
    """
    program = textwrap.dedent(guard) + textwrap.dedent(code)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-I", "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_probe_folder_loads_where_selmem_is_not_installed(tmp_path):
    stock, probe, ids = stock_model(), small_probe(), token_ids(2, 6)
    stock.save_pretrained(tmp_path / "stock")
    probe.save_pretrained(tmp_path / "probe")
    code = """
        import json
        import torch
        from transformers import AutoModel, MambaForCausalLM
        probe = AutoModel.from_pretrained("probe", trust_remote_code=True).eval()
        assert type(probe).__module__.startswith("transformers_modules"), type(probe)
        stock = MambaForCausalLM.from_pretrained("stock").eval()
        ids = torch.tensor(json.load(open("ids.json")))
        with torch.no_grad():
            cache = stock(ids, use_cache=True).cache_params
        print(probe.reconstruct(cache, 5).tolist())
        print(probe.generate(state=cache, max_length=5).tolist())
        inputs, labels = probe.teacher_forcing(ids)
        probe.train()(inputs, state=cache, labels=labels).loss.backward()
    """
    (tmp_path / "ids.json").write_text(json.dumps(ids.tolist()))
    run = run_without_selmem(code, tmp_path)
    assert run.returncode == 0, run.stderr
    expected = probe.reconstruct(read_state(stock, ids), 5).tolist()
    assert [json.loads(line) for line in run.stdout.splitlines()] == [expected, expected]


def test_saved_folder_holds_every_module_that_its_code_imports(tmp_path):
    small_probe().save_pretrained(tmp_path)
    copied = {path.name for path in tmp_path.glob("*.py")}
    source = {path.name for path in PROBE_SOURCES.glob("*.py")} - {"__init__.py"}
    assert copied == source
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_mamba_probe.MambaProbeConfig",
        "AutoModel": "modeling_mamba_probe.MambaProbe",
    }


def test_importing_selmem_stays_light():
    code = (
        "import sys, selmem; "
        "print([m for m in ('datasets', 'evaluate', 'spacy', 'gradio', 'matplotlib', 'pandas', "
        "'scipy.stats', 'selmem.probe.triton_scan') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
