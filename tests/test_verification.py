"""`selmem verify`: what was published passes, and each way of being something else is named."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from selmem.errors import InputError
from selmem.hub import verify
from selmem.hub.checksums import write_sums
from selmem.hub.known_sentences import check_inversion, compare_records
from test_hub import stage_model
from tiny_release import edit_json


@pytest.fixture(scope="module")
def staged(release, tmp_path_factory):
    out = tmp_path_factory.mktemp("staged")
    return {
        path.name: stage_model(path, out / path.name, encoder=release.encoder).folder
        for path in (release.encoder, release.probe, release.null_probe)
    }


@pytest.fixture
def folder(staged, tmp_path):
    """A copy of the staged probe, free to be changed."""
    return shutil.copytree(staged["mamba-tiny-probe"], tmp_path / "probe")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_sums(folder)


def test_an_encoder_a_probe_and_a_null_probe_pass(staged, release):
    for name, kind in (
        ("mamba-tiny", "encoder"),
        ("mamba-tiny-probe", "probe"),
        ("mamba-tiny-null-probe", "probe"),
    ):
        verification = verify(staged[name], encoder=release.encoder)
        assert verification.kind == kind
        assert len(verification.checks) == 5
    text = " ".join(verify(staged["mamba-tiny-probe"], encoder=release.encoder).checks)
    record = json.loads((staged["mamba-tiny-probe"] / "verification.json").read_text())
    assert f"{record['matched_tokens']} of 64 tokens in place" in text


def test_a_truncated_or_altered_file_is_named(folder, release):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.safetensors \(\d+ bytes\) differs"):
            verify(folder, encoder=release.encoder)
    write_sums(folder)
    weights.write_bytes(whole[:-100])
    write_sums(folder)
    with pytest.raises(InputError, match="does not load as a probe"):
        verify(folder, encoder=release.encoder)


def test_a_probe_with_scrambled_weights_cannot_pass_even_with_new_checksums(folder, release):
    def scramble(weights):
        torch.manual_seed(0)
        for value in weights.values():
            value.copy_(value.flatten()[torch.randperm(value.numel())].view_as(value))

    change_weights(folder, scramble)
    with pytest.raises(InputError, match=r"does not invert: of 64 tokens"):
        verify(folder, encoder=release.encoder)


def test_a_slightly_altered_probe_differs_from_its_record(folder, release):
    def swap(weights):
        table = weights["backbone.embeddings.weight"]
        table[[271, 303]] = table[[303, 271]]

    change_weights(folder, swap)
    with pytest.raises(InputError, match="was recorded"):
        verify(folder, encoder=release.encoder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(folder, release, value):
    change_weights(folder, lambda weights: weights["backbone.norm_f.weight"].fill_(value))
    with pytest.raises(InputError, match=r"backbone\.norm_f\.weight holds NaN or infinity"):
        verify(folder, encoder=release.encoder)


def test_a_missing_or_additional_weight_is_named(folder, release):
    change_weights(folder, lambda weights: weights.pop("backbone.norm_f.weight"))
    with pytest.raises(InputError, match=r"missing_keys.*backbone\.norm_f\.weight"):
        verify(folder, encoder=release.encoder)
    shutil.copyfile(release.probe / "model.safetensors", folder / "model.safetensors")
    change_weights(folder, lambda weights: weights.update(stranger=torch.zeros(2)))
    with pytest.raises(InputError, match=r"unexpected_keys.*stranger"):
        verify(folder, encoder=release.encoder)


def test_another_encoder_or_tokenizer_is_refused(folder, release, tmp_path):
    other = shutil.copytree(release.encoder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["backbone.layers.0.mixer.in_proj.weight"] *= -1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"asks for encoder_fingerprint \w{64}, but it is \w{64}"):
        verify(folder, encoder=other)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"ByteLevel"', '"Whitespace"', 1))
    write_sums(folder)
    with pytest.raises(InputError, match="tokenizer"):
        verify(folder, encoder=release.encoder)


def test_a_record_that_is_absent_or_of_something_else_is_refused(folder, release):
    record = json.loads((folder / "verification.json").read_text())
    edit_json(folder / "verification.json", sentences=record["sentences"][:3])
    write_sums(folder)
    with pytest.raises(InputError, match="expected a record of 8 known sentences"):
        verify(folder, encoder=release.encoder)
    (folder / "verification.json").unlink()
    write_sums(folder)
    with pytest.raises(InputError, match=r"verification\.json does not exist"):
        verify(folder, encoder=release.encoder)


def test_a_probe_that_was_never_trained_cannot_be_staged(release, tmp_path):
    untrained = shutil.copytree(release.probe, tmp_path / "mamba-tiny-probe")
    weights = load_file(untrained / "model.safetensors")
    start = load_file(release.encoder / "model.safetensors")
    save_file(weights | start, untrained / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="the probe does not invert"):
        stage_model(untrained, tmp_path / "out")


def test_one_other_token_in_a_known_sentence_is_named(staged):
    record = json.loads((staged["mamba-tiny-probe"] / "verification.json").read_text())
    compare_records(record, record)
    altered = json.loads(json.dumps(record))
    altered["sentences"][2]["reconstruction_ids"][5] += 1
    with pytest.raises(InputError, match=r"known sentence 3 \('Our train leaves"):
        compare_records(record, altered)


def test_inversion_asks_for_more_than_other_states_give():
    record = {"condition": "state", "tokens": 100, "matched_tokens": 40}
    check_inversion(record | {"matched_tokens_of_exchanged_states": 30})
    with pytest.raises(InputError, match="does not invert"):
        check_inversion(record | {"matched_tokens_of_exchanged_states": 31})


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="SHA256SUMS does not exist"):
        verify(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    write_sums(tmp_path)
    with pytest.raises(InputError, match="names model_type 'gpt2', expected one of mamba"):
        verify(tmp_path)
