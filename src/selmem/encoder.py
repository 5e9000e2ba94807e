"""The encoder: a frozen Mamba-1 language model, read from either checkpoint format."""

import hashlib
import json
import logging
import os
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import MambaConfig, PreTrainedModel

from selmem.errors import InputError
from selmem.probe.mamba_state import MambaState
from selmem.probe.modeling_mamba_probe import (
    MambaLanguageModel,
    MambaProbeOutput,
    left_padding_mask,
)

logger = logging.getLogger(__name__)

OUTPUT_WEIGHT, EMBEDDING_WEIGHT = "lm_head.weight", "backbone.embeddings.weight"
# float32 whatever the dtype asked for: they are small, and exponentials of them make the state
FULL_PRECISION = (".A_log", ".D", ".dt_proj.bias")

_stock_fingerprints: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()


class MambaEncoder(MambaLanguageModel):
    """A Mamba-1 language model that returns its state and starts from any state.

    Attributes:
        fingerprint: hash of the weights, set by `load_encoder`.
        revision: commit of the checkpoint, if it came from the Hub.
    """

    config_class = MambaConfig
    config: MambaConfig
    fingerprint: str | None = None
    revision: str | None = None

    def __init__(self, config: MambaConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        initial_state: MambaState | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> MambaProbeOutput:
        """Read tokens from `initial_state` on; without one, from the beginning.

        Args:
            input_ids: int64, (B, T).
            initial_state: state of this encoder to continue from.
            attention_mask: 0 at padding on the left, else 1, (B, T).
            labels: the next token of each, aligned with input_ids as in the probe (nothing is
                shifted here), -100 ignored, (B, T).
            inputs_embeds: in place of input_ids, (B, T, H).
            return_logits: whether to keep the logits; by default always, except in training
                with labels.
            num_items_in_batch: number of labels to divide the loss by; their count if None.
        """
        hidden, state = self.backbone(
            input_ids, initial_state, attention_mask, inputs_embeds=inputs_embeds
        )
        state.encoder_fingerprint = self.fingerprint
        if return_logits is None:
            return_logits = labels is None or not self.training
        return MambaProbeOutput(
            loss=None if labels is None else self.loss(hidden, labels, num_items_in_batch),
            logits=self.logits(hidden) if return_logits else None,
            state=state,
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write a folder that transformers' MambaForCausalLM loads."""
        super().save_pretrained(save_directory, **kwargs)
        path = Path(save_directory) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["architectures"] = ["MambaForCausalLM"]
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_encoder(
    id_or_path: str | os.PathLike[str],
    revision: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> MambaEncoder:
    """Return a frozen Mamba-1 in eval mode, with `.fingerprint` set.

    Takes the format of transformers (config.json with model_type "mamba", safetensors) and the
    original one of state-spaces/mamba-130m (config.json with d_model, safetensors or
    pytorch_model.bin, the latter read with weights_only=True).

    Args:
        id_or_path: Hub id or local folder.
        revision: branch, tag or commit on the Hub.
        device: where to put it; the CPU if None.
        dtype: of the weights; float32 if None.

    Raises:
        InputError: when it is not found, not a Mamba-1, damaged, or holds NaN or infinity.
    """
    folder = _folder(str(id_or_path), revision)
    raw = _read_config(folder)
    original = "d_model" in raw
    config = _config_from_original(raw, folder) if original else _config_from_stock(raw, folder)
    config.name_or_path = str(id_or_path)
    weights = _canonical(_read_weights(folder, original), config, folder)
    encoder = _build(config, weights, folder)
    encoder.fingerprint = fingerprint(encoder)
    encoder.revision = folder.name if folder.parent.name == "snapshots" else None
    return _cast(encoder, dtype or torch.float32).to(device or "cpu").eval().requires_grad_(False)


@torch.no_grad()
def read_state(
    encoder: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> MambaState:
    """Return the state of `encoder` after the text.

    Args:
        encoder: from `load_encoder`, or a stock transformers MambaForCausalLM.
        input_ids: int64, (B, T).
        attention_mask: 0 at padding, else 1, (B, T). Padding must be on the left.

    Raises:
        InputError: for empty text.
        ValueError: for padding on the right.
    """
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise InputError(f"expected token ids of shape (B, T), got {tuple(input_ids.shape)}")
    input_ids = input_ids.to(encoder.device)
    if attention_mask is not None:
        attention_mask = attention_mask.to(encoder.device)
    if isinstance(encoder, MambaEncoder):
        _, state = encoder.backbone(input_ids, None, attention_mask)
        state.encoder_fingerprint = encoder.fingerprint
        return state  # type: ignore[no-any-return]
    if encoder.config.model_type != "mamba":
        raise InputError(f"expected a Mamba-1 model, got {encoder.config.model_type!r}")
    left_padding_mask(attention_mask)
    output = encoder(input_ids, attention_mask=attention_mask, use_cache=True)
    return MambaState.from_cache(output.cache_params, _stock_fingerprint(encoder))


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the weights that survives rounding to another dtype.

    It is the SHA-256 of every parameter's name, shape and packed sign bits, in the names of
    transformers, so both checkpoint formats and every dtype give the same.
    """
    digest = hashlib.sha256()
    weights = model.state_dict()
    if getattr(model.config, "tie_word_embeddings", True):
        weights.pop(OUTPUT_WEIGHT, None)
    for name in sorted(weights):
        digest.update(f"{name} {list(weights[name].shape)}\n".encode())
        digest.update(np.packbits(torch.signbit(weights[name]).cpu().numpy()).tobytes())
    return digest.hexdigest()


def _stock_fingerprint(model: nn.Module) -> str:
    if model not in _stock_fingerprints:
        _stock_fingerprints[model] = fingerprint(model)
    return _stock_fingerprints[model]


def _folder(id_or_path: str, revision: str | None) -> Path:
    """Return the local folder of a checkpoint, after downloading it if it is on the Hub."""
    if Path(id_or_path).is_dir():
        return Path(id_or_path)
    if Path(id_or_path).exists():
        raise InputError(f"{id_or_path} is a file, expected the folder of a checkpoint")
    try:
        folder = _snapshot(id_or_path, revision, ["config.json", "*.safetensors", "*.index.json"])
        if not list(folder.glob("*.safetensors")):
            folder = _snapshot(id_or_path, revision, ["config.json", "pytorch_model.bin"])
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{id_or_path} is neither a local folder nor a model that the Hub gives us "
            f"({type(error).__name__}); check the name, the revision and the network"
        ) from error
    return folder


def _snapshot(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no config.json; expected a Mamba checkpoint") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no JSON object")
    return raw


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
    """Return the tensors of all safetensors files, or of an original pytorch_model.bin."""
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return {name: value for path in files for name, value in _read_safetensors(path)}
    pickle = folder / "pytorch_model.bin"
    if original and pickle.exists():
        logger.info("reading %s with weights_only=True", pickle)
        return _read_pickle(pickle)
    raise InputError(
        f"{folder} has no .safetensors file"
        + ("; pickled weights are not read: convert them" if pickle.exists() else "")
    )


def _read_safetensors(path: Path) -> Iterable[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return [(name, file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}); fetch it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
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


def _build(config: MambaConfig, weights: dict[str, Tensor], folder: Path) -> MambaEncoder:
    with torch.device("meta"):
        encoder = MambaEncoder(config)
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    if config.tie_word_embeddings:
        expected.pop(OUTPUT_WEIGHT)
    found = {name: value.shape for name, value in weights.items()}
    if found != expected:
        wrong = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
        first = ", ".join(
            f"{n}: expected {_shape(expected, n)}, got {_shape(found, n)}" for n in wrong[:3]
        )
        raise InputError(f"{folder}: {len(wrong)} weights do not fit its config.json ({first})")
    encoder.load_state_dict(weights, strict=False, assign=True)
    encoder.tie_weights()
    return encoder


def _shape(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "nothing"


def _cast(encoder: MambaEncoder, dtype: torch.dtype) -> MambaEncoder:
    for name, parameter in encoder.named_parameters():
        full = name.endswith(FULL_PRECISION)
        parameter.data = parameter.data.to(
            torch.promote_types(dtype, torch.float32) if full else dtype
        )
    return encoder
