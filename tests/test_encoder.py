import json
import logging
import pickle
import shutil

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaForCausalLM

from selmem import checkpoint
from selmem.encoder import fingerprint, load_encoder, read_state
from selmem.errors import InputError
from small_models import small_encoder, stock_model, token_ids

EMBEDDING = "backbone.embeddings.weight"


@pytest.fixture
def stock():
    return stock_model(vocab_size=64)


@pytest.fixture
def stock_folder(stock, tmp_path):
    stock.save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


def write_original(stock, folder, **config):
    """Write what mamba_ssm writes: its own names, the output layer too, a smaller vocabulary."""
    folder.mkdir()
    ssm = {"d_state": stock.config.state_size}
    raw = {
        "d_model": stock.config.hidden_size,
        "n_layer": stock.config.num_hidden_layers,
        "vocab_size": stock.config.vocab_size - 3,
        "ssm_cfg": ssm,
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
    }
    (folder / "config.json").write_text(json.dumps({**raw, **config}))
    weights = {n.replace("embeddings", "embedding"): w for n, w in stock.state_dict().items()}
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def rewrite(folder, change):
    """Apply `change` to the dictionary of weights in a safetensors folder."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_both_formats_give_the_same_encoder(stock, stock_folder, tmp_path, caplog):
    ids = token_ids(2, 7)
    theirs = stock(ids).logits
    with caplog.at_level(logging.INFO, logger="selmem.checkpoint"):
        original = load_encoder(write_original(stock, tmp_path / "original"))
    assert any("pytorch_model.bin with weights_only=True" in m for m in caplog.messages)
    ours = load_encoder(stock_folder)
    assert original.config.vocab_size == 64
    assert_close(ours(ids).logits, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(original(ids).logits, ours(ids).logits)
    assert original.fingerprint == ours.fingerprint == fingerprint(stock)


def test_loaded_encoder_is_frozen_and_in_eval_mode(stock_folder):
    encoder = load_encoder(stock_folder)
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.lm_head.weight is encoder.backbone.embeddings.weight
    assert encoder.config.name_or_path == str(stock_folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fingerprint_survives_rounding(stock_folder, tmp_path, dtype):
    exact = load_encoder(stock_folder)
    assert load_encoder(stock_folder, dtype=dtype).fingerprint == exact.fingerprint
    MambaForCausalLM.from_pretrained(stock_folder, dtype=dtype).save_pretrained(tmp_path / "half")
    assert load_encoder(tmp_path / "half").fingerprint == exact.fingerprint


def test_fingerprint_sees_one_flipped_sign(stock):
    before = fingerprint(stock)
    with torch.no_grad():
        stock.backbone.layers[1].mixer.D[3] *= -1
    assert fingerprint(stock) != before


def test_half_precision_keeps_the_exponents_in_float32(stock_folder):
    encoder = load_encoder(stock_folder, dtype=torch.bfloat16)
    mixer = encoder.backbone.layers[0].mixer
    assert mixer.in_proj.weight.dtype == torch.bfloat16
    assert mixer.A_log.dtype == mixer.D.dtype == mixer.dt_proj.bias.dtype == torch.float32
    state = read_state(encoder, token_ids(2, 9))
    exact = read_state(load_encoder(stock_folder), token_ids(2, 9))
    assert (state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.float32)
    assert_close(state.ssm, exact.ssm, rtol=0.1, atol=0.02)


def test_default_dtype_is_float32_whatever_is_stored(stock_folder, tmp_path):
    MambaForCausalLM.from_pretrained(stock_folder, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "half"
    )
    encoder = load_encoder(tmp_path / "half")
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_sharded_weights_are_read(stock, tmp_path):
    stock.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert load_encoder(tmp_path / "shards").fingerprint == fingerprint(stock)


def test_missing_shard_is_named(stock, tmp_path):
    stock.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    lost = sorted((tmp_path / "shards").glob("*.safetensors"))[-1]
    lost.unlink()
    with pytest.raises(InputError, match=rf"index\.json names {lost.name}, which is not in"):
        load_encoder(tmp_path / "shards")


def test_files_that_the_checkpoint_does_not_name_are_not_read(stock, stock_folder):
    save_file({"lm_head.weight": torch.zeros(2, 2)}, stock_folder / "optimizer.safetensors")
    assert load_encoder(stock_folder).fingerprint == fingerprint(stock)


def test_saved_encoder_loads_in_stock_transformers(tmp_path):
    encoder, ids = small_encoder(), token_ids(2, 6)
    encoder.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("mamba", ["MambaForCausalLM"])
    stock = MambaForCausalLM.from_pretrained(tmp_path).eval()
    assert_close(stock(ids).logits, encoder(ids).logits, rtol=1e-4, atol=1e-5)
    assert load_encoder(tmp_path).fingerprint == fingerprint(encoder)


def test_loss_is_that_of_the_next_tokens():
    encoder, ids = small_encoder(), token_ids(2, 9)
    labels = ids[:, 1:].clone()
    labels[0, 2] = -100
    out = encoder(ids[:, :-1], labels=labels)
    expected = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    assert_close(out.loss, expected)
    assert encoder.train()(ids[:, :-1], labels=labels).logits is None


def damage(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def nan_weight(weights):
    weights["backbone.layers.1.mixer.D"][0] = float("nan")


def infinite_weight(weights):
    weights[EMBEDDING][0, 0] = float("inf")


@pytest.mark.parametrize("change", [nan_weight, infinite_weight])
def test_weights_that_are_no_numbers_are_refused(stock_folder, change):
    rewrite(stock_folder, change)
    with pytest.raises(InputError, match=r"backbone\..* holds NaN or infinity"):
        load_encoder(stock_folder)


def test_truncated_safetensors_are_refused_by_name(stock_folder):
    damage(stock_folder, "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is damaged or cut short"):
        load_encoder(stock_folder)


def test_truncated_pickle_is_refused_by_name(stock, tmp_path):
    folder = write_original(stock, tmp_path / "original")
    damage(folder, "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is damaged"):
        load_encoder(folder)


class _Payload:
    def __reduce__(self):
        return print, ("this must never run",)


def test_pickle_that_would_run_code_is_refused(stock, tmp_path, capsys):
    folder = write_original(stock, tmp_path / "original")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _Payload()}))
    with pytest.raises(InputError, match="holds more than tensors"):
        load_encoder(folder)
    torch.save({"weight": _Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        load_encoder(folder)
    assert "never run" not in capsys.readouterr().out


def test_pickled_weights_in_the_stock_format_are_not_read(stock, stock_folder):
    (stock_folder / "model.safetensors").unlink()
    torch.save(stock.state_dict(), stock_folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are not read"):
        load_encoder(stock_folder)


def test_original_format_in_safetensors_is_read_and_preferred(stock, tmp_path):
    folder = write_original(stock, tmp_path / "original")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert load_encoder(folder).fingerprint == fingerprint(stock)


def test_original_settings_of_the_state_space_are_translated(stock, tmp_path):
    ssm = {"d_state": stock.config.state_size, "dt_rank": "auto", "dt_min": 0.002, "expand": 2}
    encoder = load_encoder(write_original(stock, tmp_path / "original", ssm_cfg=ssm))
    assert encoder.config.time_step_min == 0.002
    assert encoder.config.time_step_rank == 2


@pytest.mark.parametrize(
    "config",
    [{"ssm_cfg": {"layer": "Mamba2"}}, {"attn_layer_idx": [1]}, {"rms_norm": False}],
)
def test_original_models_other_than_mamba_1_are_refused(stock, tmp_path, config):
    with pytest.raises(InputError, match="only plain Mamba-1 is supported"):
        load_encoder(write_original(stock, tmp_path / "original", **config))


def test_incomplete_original_configuration_is_refused(stock, tmp_path):
    folder = write_original(stock, tmp_path / "original")
    (folder / "config.json").write_text('{"d_model": 24}')
    with pytest.raises(InputError, match=r"config\.json lacks n_layer, vocab_size"):
        load_encoder(folder)


def test_other_model_types_are_refused(tmp_path):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 8, "state_size": 4}
    other = Mamba2ForCausalLM(Mamba2Config(**shape, num_heads=4, head_dim=8, n_groups=1))
    other.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="type 'mamba2'; expected 'mamba'"):
        load_encoder(tmp_path)
    with pytest.raises(InputError, match="expected a Mamba-1 model, got 'mamba2'"):
        read_state(other, torch.ones(1, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a text"], r"tensor of integers, got list; call read_state\(encoder, \*\*tokenizer\(te"),
        (torch.ones(1, 3), r"tensor of integers, got torch\.float32"),
        (torch.tensor([[1, 64]]), "token id 64, but the encoder's vocabulary ends before 64"),
        (torch.ones(3, dtype=torch.long), r"of shape \(B, T\), got \(3,\)"),
    ],
    ids=["text", "floats", "other tokenizer", "one text"],
)
def test_what_are_no_token_ids_of_the_encoder_is_told(stock, given, message):
    with pytest.raises(InputError, match=message):
        read_state(stock, given)


def test_dtype_is_taken_by_name_too(stock_folder):
    assert load_encoder(stock_folder, dtype="bfloat16").dtype is torch.bfloat16
    for wrong in ("int64", "half a float", torch.int8):
        with pytest.raises(InputError, match=r"dtype is .*, expected a floating-point one such as"):
            load_encoder(stock_folder, dtype=wrong)


def test_weights_that_do_not_fit_are_listed(stock_folder):
    rewrite(stock_folder, lambda weights: weights.pop("backbone.norm_f.weight"))
    with pytest.raises(InputError, match=r"norm_f\.weight: expected \(24,\), got nothing"):
        load_encoder(stock_folder)
    rewrite(stock_folder, lambda weights: weights.update(extra=torch.ones(2)))
    with pytest.raises(InputError, match=r"extra: expected nothing, got \(2,\)"):
        load_encoder(stock_folder)


def test_output_layer_that_contradicts_its_tie_is_refused(stock_folder):
    rewrite(stock_folder, lambda w: w.update({"lm_head.weight": w[EMBEDDING] + 1}))
    with pytest.raises(InputError, match="to the embeddings, but they differ"):
        load_encoder(stock_folder)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_broken_configuration_is_refused(stock_folder, text):
    (stock_folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_encoder(stock_folder)


@pytest.mark.parametrize("original", [False, True])
def test_values_of_a_wrong_type_are_refused(stock, stock_folder, tmp_path, original):
    folder = write_original(stock, tmp_path / "original") if original else stock_folder
    path, name = folder / "config.json", "d_model" if original else "hidden_size"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: "wide"}))
    with pytest.raises(InputError, match=r"config\.json has a value of a wrong type: Valid"):
        load_encoder(folder)


def test_folder_without_configuration_or_weights_is_refused(stock_folder, tmp_path):
    (stock_folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors, nor an index"):
        load_encoder(stock_folder)
    with pytest.raises(
        InputError, match=r"config\.json does not exist; expected the folder of a Mamba"
    ):
        load_encoder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, expected the folder of a checkpoint"):
        load_encoder(tmp_path / "file")


@pytest.fixture
def hub(stock, stock_folder, tmp_path, monkeypatch):
    """Answer downloads of "some/mamba" and "some/original" from folders; record the calls."""
    calls = []
    sources = {
        "some/mamba": stock_folder,
        "some/original": write_original(stock, tmp_path / "original"),
    }

    def snapshot_download(repo_id, *, revision, allow_patterns):
        calls.append((repo_id, revision, tuple(allow_patterns)))
        if repo_id not in sources:
            raise LocalEntryNotFoundError("no such model")
        target = tmp_path / "cache" / repo_id / "snapshots" / "0123abc"
        target.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for path in sources[repo_id].glob(pattern):
                shutil.copy(path, target)
        return str(target)

    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
    return calls


def test_hub_models_are_fetched_at_their_revision(hub, stock):
    encoder = load_encoder("some/mamba", revision="v1")
    assert encoder.fingerprint == fingerprint(stock)
    assert (encoder.revision, encoder.config.name_or_path) == ("0123abc", "some/mamba")
    assert [(name, revision) for name, revision, _ in hub] == [("some/mamba", "v1")]


def test_pickle_is_fetched_from_the_hub_only_where_nothing_else_is(hub, stock):
    assert load_encoder("some/original").fingerprint == fingerprint(stock)
    assert ["pytorch_model.bin" in patterns for _, _, patterns in hub] == [False, True]


@pytest.mark.usefixtures("hub")
def test_models_unknown_to_the_hub_are_refused():
    with pytest.raises(InputError, match="neither a local folder nor a model that the Hub"):
        load_encoder("some/unknown")


def test_names_that_no_hub_has_are_refused():
    with pytest.raises(InputError, match="neither a local folder nor a model that the Hub"):
        load_encoder("no/such/folder at all")


def test_stock_models_give_the_same_state(stock, stock_folder):
    ids, mask = token_ids(3, 8), torch.ones(3, 8, dtype=torch.long)
    mask[1, :6] = 0
    ours = read_state(load_encoder(stock_folder), ids, mask)
    theirs = read_state(stock, ids, mask)
    assert_close((theirs.conv, theirs.ssm), (ours.conv, ours.ssm), rtol=1e-4, atol=1e-5)
    assert theirs.encoder_fingerprint == ours.encoder_fingerprint is not None


def test_fingerprint_of_a_stock_model_follows_its_weights(stock):
    ids = token_ids(1, 3)
    before = read_state(stock, ids).encoder_fingerprint
    assert read_state(stock, ids).encoder_fingerprint == before
    with torch.no_grad():
        stock.backbone.norm_f.weight.neg_()
    assert read_state(stock, ids).encoder_fingerprint == fingerprint(stock) != before


def test_reading_needs_no_graph(stock_folder):
    state = read_state(load_encoder(stock_folder).requires_grad_(True), token_ids(1, 4))
    assert not state.ssm.requires_grad


def test_padding_gives_the_state_of_the_text_alone(stock_folder):
    encoder, ids = load_encoder(stock_folder).double(), token_ids(1, 5)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    state, alone = read_state(encoder, padded, mask), read_state(encoder, ids)
    assert_close((state.conv, state.ssm), (alone.conv, alone.ssm), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_right_padding_is_refused(stock, stock_folder, kind):
    encoder = stock if kind == "stock" else load_encoder(stock_folder)
    with pytest.raises(ValueError, match="set the tokenizer's padding_side='left'"):
        read_state(encoder, token_ids(1, 3), torch.tensor([[1, 1, 0]]))


@pytest.mark.parametrize("ids", [torch.zeros(1, 0, dtype=torch.long), torch.ones(3).long()])
def test_empty_text_is_refused(stock, ids):
    with pytest.raises(InputError, match="expected token ids of shape"):
        read_state(stock, ids)


def test_text_without_a_real_token_is_refused(stock):
    with pytest.raises(InputError, match="row 1 of the attention mask has no token"):
        read_state(stock, token_ids(2, 3), torch.tensor([[1, 1, 1], [0, 0, 0]]))


def test_mask_of_another_shape_is_refused(stock):
    with pytest.raises(InputError, match=r"mask has shape \(2, 4\), the token ids have \(2, 3\)"):
        read_state(stock, token_ids(2, 3), torch.ones(2, 4))
