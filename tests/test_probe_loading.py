import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from selmem import MambaProbe
from selmem.errors import InputError
from selmem.probe_loading import load_probe
from small_models import small_encoder


@pytest.fixture
def folder(tmp_path):
    MambaProbe.from_encoder(small_encoder()).save_pretrained(tmp_path / "probe")
    return tmp_path / "probe"


def test_loaded_probe_is_frozen_in_eval_mode_and_float32(folder):
    MambaProbe.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    probe = load_probe(folder)
    assert not probe.training
    assert {(p.dtype, p.requires_grad) for p in probe.parameters()} == {(torch.float32, False)}


def test_pickled_weights_are_never_read(folder):
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"does not load as a probe: .*model\.safetensors"):
        load_probe(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": "all"}, "does not load as a probe: condition is 'all'"),
        ({"hidden_size": "wide"}, "does not load as a probe: .* got str"),
        ({"model_type": "mamba"}, "holds a model of type 'mamba'; expected a probe"),
        ({"condition": "none"}, "missing_keys in the weights: .'null_conv', 'null_ssm'."),
    ],
)
def test_wrong_configuration_is_refused(folder, changes, message):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match=message):
        load_probe(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["backbone.norm_f.weight"][0] = float("inf")
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"norm_f\.weight holds NaN or infinity"):
        load_probe(folder)
    del weights["backbone.norm_f.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"missing_keys in .*: \['backbone\.norm_f\.weight'\]"):
        load_probe(folder)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="does not load as a probe"):
        load_probe(folder)


def test_a_folder_without_configuration_is_refused(folder, tmp_path):
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json does not exist; expected a probe"):
        load_probe(folder)
    shutil.rmtree(folder)
    (tmp_path / "probe").touch()
    with pytest.raises(InputError, match="is a file, expected the folder"):
        load_probe(folder)
