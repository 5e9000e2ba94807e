"""The encoder: a frozen Mamba-1 language model, read from either checkpoint format."""

import hashlib
import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MambaConfig, PreTrainedModel

from selmem.checkpoint import OUTPUT_WEIGHT, checkpoint_folder, read_checkpoint
from selmem.errors import InputError
from selmem.probe.mamba_backbone import left_padding_mask
from selmem.probe.mamba_state import MambaState
from selmem.probe.modeling_mamba_probe import MambaLanguageModel, MambaProbeOutput

# float32 whatever the dtype asked for: they are small, and exponentials of them make the state
FULL_PRECISION = (".A_log", ".D", ".dt_proj.bias")

# of stock models: how often each parameter was written to when the fingerprint was taken, and it
_stock_fingerprints: "weakref.WeakKeyDictionary[nn.Module, tuple[list[int], str]]" = (
    weakref.WeakKeyDictionary()
)


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
        use_cache: bool | None = None,
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
            use_cache: whether to return the state after the last token; by default likewise.
            num_items_in_batch: number of labels to divide the loss by; their count if None.
        """
        output = self.answer(
            input_ids,
            initial_state,
            attention_mask,
            inputs_embeds,
            labels,
            return_logits=return_logits,
            use_cache=use_cache,
            num_items_in_batch=num_items_in_batch,
        )
        if output.state is not None:
            output.state.encoder_fingerprint = self.fingerprint
        return output

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
    dtype: torch.dtype | str | None = None,
) -> MambaEncoder:
    """Return a frozen Mamba-1 in eval mode, with `.fingerprint` set.

    Takes the format of transformers (config.json with model_type "mamba", safetensors) and the
    original one of state-spaces/mamba-130m (config.json with d_model, safetensors or
    pytorch_model.bin, the latter read with weights_only=True).

    Args:
        id_or_path: Hub id or local folder.
        revision: branch, tag or commit on the Hub.
        device: where to put it; the CPU if None.
        dtype: of the weights, torch.bfloat16 or "bfloat16"; float32 if None.

    Raises:
        InputError: when it is not found, not a Mamba-1, damaged, or holds NaN or infinity; for a
            dtype that is none of floating-point numbers.
    """
    wanted = _floating(dtype)
    folder = checkpoint_folder(str(id_or_path), revision)
    config, weights = read_checkpoint(folder)
    config.name_or_path = str(id_or_path)
    encoder = _build(config, weights, folder)
    encoder.fingerprint = fingerprint(encoder)
    encoder.revision = folder.name if folder.parent.name == "snapshots" else None
    _cast(encoder, wanted)
    encoder.to(device or "cpu")
    encoder.eval().requires_grad_(False)
    return encoder


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
        InputError: for what are no token ids of this encoder, empty text, or a mask of another
            shape.
        ValueError: for padding on the right.
    """
    _check_ids(input_ids, encoder.config.vocab_size)
    input_ids = input_ids.to(encoder.device)
    if attention_mask is not None:
        attention_mask = attention_mask.to(encoder.device)
        _check_mask(attention_mask, input_ids)
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


def _floating(dtype: torch.dtype | str | None) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype is {dtype!r}, expected a floating-point one such as 'bfloat16'")
    return found


def _check_ids(input_ids: object, vocab_size: int) -> None:
    if not isinstance(input_ids, Tensor) or input_ids.is_floating_point():
        kind = input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise InputError(
            f"expected token ids as a tensor of integers, got {kind}; call read_state(encoder, "
            '**tokenizer(texts, padding=True, return_tensors="pt"))'
        )
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise InputError(f"expected token ids of shape (B, T), got {tuple(input_ids.shape)}")
    # on a GPU the host would wait for it
    if not input_ids.is_cuda and int(input_ids.max()) >= vocab_size:
        raise InputError(
            f"there is token id {int(input_ids.max())}, but the encoder's vocabulary ends before "
            f"{vocab_size}; use the encoder's own tokenizer"
        )


def _check_mask(attention_mask: Tensor, input_ids: Tensor) -> None:
    if attention_mask.shape != input_ids.shape:
        raise InputError(
            f"the attention mask has shape {tuple(attention_mask.shape)}, the token ids have "
            f"{tuple(input_ids.shape)}; expected the same"
        )
    empty = (attention_mask.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"row {empty[0]} of the attention mask has no token; the text is empty")


def _stock_fingerprint(model: nn.Module) -> str:
    writes = [parameter._version for parameter in model.parameters()]
    known = _stock_fingerprints.get(model)
    if known is None or known[0] != writes:
        known = _stock_fingerprints[model] = (writes, fingerprint(model))
    return known[1]


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


def _cast(encoder: MambaEncoder, dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    for name, parameter in encoder.named_parameters():
        parameter.data = parameter.data.to(wide if name.endswith(FULL_PRECISION) else dtype)
