"""Staging of a model: weights, configuration, tokenizer, the probe's own code, and a record."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import selmem.probe
from selmem.cards.naming import hub_id
from selmem.errors import InputError
from selmem.hub.verification import RECORD_NAME, model_record
from selmem.json_files import read_object
from selmem.tables import write_text

CODE = Path(selmem.probe.__file__).parent
AUTO_MAP = {
    "AutoConfig": "configuration_mamba_probe.MambaProbeConfig",
    "AutoModel": "modeling_mamba_probe.MambaProbe",
}
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5")
COPIED = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|generation_config\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|training\.json|learning_curve\.jsonl"
)
# made anew by the staging, or of no use on the Hub
REPLACED = re.compile(
    r"config\.json|README\.md|LICENSE|SHA256SUMS|verification\.json|(omission|controls)\.parquet"
    r"|\.gitattributes|[a-z_]+\.py|__pycache__|checkpoints|\.cache"
)


def stage_model(path: Path, repo_id: str, out: Path, *, encoder: str | Path | None = None) -> None:
    """Copy what belongs to a model on the Hub into `out`, and record what the model does.

    Args:
        path: folder that `selmem pretrain` or `selmem train` wrote.
        repo_id: NAMESPACE/NAME; an encoder that was read from a local folder gets this namespace.
        out: folder to write to.
        encoder: where the encoder of a probe is now, if not where its configuration says.

    Raises:
        InputError: a file that may not be published, a model that does not load or does not
            invert.
    """
    for file in _published_files(path):
        shutil.copyfile(file, out / file.name)
    config = read_object(path / "config.json", "give a folder that `selmem train` wrote")
    if config.get("model_type") == "mamba_probe":
        named = str(config.get("encoder_name_or_path"))
        encoder = encoder or (named if Path(named).is_dir() else None)
        namespace = repo_id.split("/")[0]
        config = {
            **config,
            "architectures": ["MambaProbe"],
            "auto_map": AUTO_MAP,
            "encoder_name_or_path": hub_id(named, namespace),
        }
        _copy_code(out)
    _write_json(without_places(config), out / "config.json")
    training = out / "training.json"
    if training.is_file():
        _write_json(without_places(read_object(training, "`selmem train` writes it")), training)
    _write_json(model_record(out, encoder), out / RECORD_NAME)


def _published_files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        raise InputError(f"{path} is no folder; give the one that `selmem train` wrote")
    for file in sorted(path.iterdir()):
        if file.suffix in PICKLES:
            raise InputError(f"{file} may hold pickled objects; only safetensors are published")
        if COPIED.fullmatch(file.name) and file.is_file():
            yield file
        elif not REPLACED.fullmatch(file.name):
            raise InputError(f"{file} is no file of a model that can be published; move it away")


def _copy_code(out: Path) -> None:
    for file in sorted(CODE.glob("*.py")):
        if file.name != "__init__.py":
            shutil.copyfile(file, out / file.name)


def without_places(value: Any) -> Any:
    """Return JSON content with every path of this machine cut to its last part.

    >>> without_places({"encoder": "/home/me/mamba-tiny", "seed": 3, "data": ["~/a.txt"]})
    {'encoder': 'mamba-tiny', 'seed': 3, 'data': ['a.txt']}
    """
    if isinstance(value, str) and value.startswith(("/", "~/", "./", "../")):
        return Path(value).name
    if isinstance(value, Mapping):
        return {key: without_places(entry) for key, entry in value.items()}
    return [without_places(entry) for entry in value] if isinstance(value, list) else value


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
