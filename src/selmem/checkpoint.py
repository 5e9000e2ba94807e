"""Reads Mamba-1 checkpoints from the Hub or a folder: transformers' format and the original one."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import MambaConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from selmem.errors import InputError
from selmem.json_files import read_object

logger = logging.getLogger(__name__)

OUTPUT_WEIGHT, EMBEDDING_WEIGHT = "lm_head.weight", "backbone.embeddings.weight"


def checkpoint_folder(id_or_path: str, revision: str | None) -> Path:
    """Return the local folder of a checkpoint, after downloading it if it is on the Hub.

    Args:
        id_or_path: Hub id or local folder.
        revision: branch, tag or commit on the Hub.

    Raises:
        InputError: when it is neither.
    """
    if Path(id_or_path).is_dir():
        return Path(id_or_path)
    if Path(id_or_path).exists():
        raise InputError(f"{id_or_path} is a file, expected the folder of a checkpoint")
    try:
        wanted = ["config.json", "model*.safetensors", SAFE_WEIGHTS_INDEX_NAME]
        folder = _snapshot(id_or_path, revision, wanted)
        if not _weight_files(folder):
            folder = _snapshot(id_or_path, revision, ["config.json", "pytorch_model.bin"])
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{id_or_path} is neither a local folder nor a model that the Hub gives us "
            f"({type(error).__name__}); check the name, the revision and the network"
        ) from error
    return folder


def read_checkpoint(folder: Path) -> tuple[MambaConfig, dict[str, Tensor]]:
    """Return configuration and weights under transformers' names, without a tied output layer.

    The names and shapes are not compared with the configuration.

    Raises:
        InputError: when it is not a Mamba-1, is damaged, or holds NaN or infinity.
    """
    raw = read_object(folder / "config.json", "expected the folder of a Mamba checkpoint")
    original = "d_model" in raw
    try:
        config = _config_from_original(raw, folder) if original else _config_from_stock(raw, folder)
    except (StrictDataclassError, TypeError) as error:
        raise InputError(
            f"{folder / 'config.json'} has a value of a wrong type: {error}"
        ) from error
    return config, _canonical(_read_weights(folder, original), config, folder)


def _snapshot(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))


def _config_from_stock(raw: dict[str, Any], folder: Path) -> MambaConfig:
    if raw.get("model_type") != "mamba":
        raise InputError(
            f"{folder} holds a model of type {raw.get('model_type')!r}; expected 'mamba' (Mamba-1)"
        )
    return MambaConfig(**raw)


def _config_from_original(raw: dict[str, Any], folder: Path) -> MambaConfig:
    """Translate the configuration of the original mamba_ssm checkpoints."""
    ssm = dict(raw.get("ssm_cfg") or {})
    layer = ssm.pop("layer", "Mamba1")
    if layer != "Mamba1" or raw.get("attn_layer_idx") or not raw.get("rms_norm", True):
        raise InputError(
            f"{folder} has layers of kind {layer!r}, attention layers or no RMS norm; only plain "
            "Mamba-1 is supported"
        )
    missing = [name for name in ("d_model", "n_layer", "vocab_size") if name not in raw]
    if missing:
        raise InputError(f"{folder / 'config.json'} lacks {', '.join(missing)}")
    multiple = raw.get("pad_vocab_size_multiple", 8)
    names = {
        "d_state": "state_size",
        "d_conv": "conv_kernel",
        "expand": "expand",
        "dt_rank": "time_step_rank",
        "dt_min": "time_step_min",
        "dt_max": "time_step_max",
        "dt_init": "time_step_init_scheme",
        "dt_scale": "time_step_scale",
        "dt_init_floor": "time_step_floor",
        "conv_bias": "use_conv_bias",
        "bias": "use_bias",
    }
    return MambaConfig(
        vocab_size=-(-raw["vocab_size"] // multiple) * multiple,
        hidden_size=raw["d_model"],
        num_hidden_layers=raw["n_layer"],
        residual_in_fp32=raw.get("residual_in_fp32", True),
        tie_word_embeddings=raw.get("tie_embeddings", True),
        **{ours: ssm[theirs] for theirs, ours in names.items() if theirs in ssm},
    )


def _read_weights(folder: Path, original: bool) -> dict[str, Tensor]:
    """Return the tensors of the safetensors files, or of an original pytorch_model.bin."""
    files = _weight_files(folder)
    if files:
        return {name: value for path in files for name, value in _read_safetensors(path)}
    pickle = folder / "pytorch_model.bin"
    if original and pickle.exists():
        logger.info("reading %s with weights_only=True", pickle)
        return _read_pickle(pickle)
    raise InputError(
        f"{folder} has no {SAFE_WEIGHTS_NAME}, nor an index of parts"
        + ("; pickled weights are not read: convert them" if pickle.exists() else "")
    )


def _weight_files(folder: Path) -> list[Path]:
    """Return `model.safetensors`, or the parts that the index names; other files are not read."""
    if (folder / SAFE_WEIGHTS_NAME).exists():
        return [folder / SAFE_WEIGHTS_NAME]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if not index.exists():
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} has no weight_map from tensors to files") from error
    for name in names:
        if Path(name).name != name or not (folder / name).exists():
            raise InputError(f"{index} names {name}, which is not in {folder}")
    return [folder / name for name in names]


def _read_safetensors(path: Path) -> Iterable[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return [(name, file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}); fetch it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is damaged or holds more than tensors ({error})") from error
    if not isinstance(weights, Mapping) or not all(map(torch.is_tensor, weights.values())):
        raise InputError(f"{path} holds no mapping from names to tensors")
    return dict(weights)


def _canonical(weights: dict[str, Tensor], config: MambaConfig, folder: Path) -> dict[str, Tensor]:
    """Rename to transformers' names, drop the tied output layer, refuse NaN and infinity."""
    named = {
        name.replace("backbone.embedding.", "backbone.embeddings."): value
        for name, value in weights.items()
    }
    if config.tie_word_embeddings and OUTPUT_WEIGHT in named:
        output = named.pop(OUTPUT_WEIGHT)
        if not torch.equal(output, named.get(EMBEDDING_WEIGHT, output)):
            raise InputError(f"{folder} ties {OUTPUT_WEIGHT} to the embeddings, but they differ")
    for name, value in named.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{folder}: {name} holds NaN or infinity; the checkpoint is damaged")
    return named
