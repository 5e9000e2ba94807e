# SPDX-License-Identifier: Apache-2.0
"""The probe: a Mamba that starts from the state of another Mamba and writes back what it read.

Dims: B batch, T tokens, H hidden size, V vocabulary, L layers, D inner channels, N state size,
W convolution width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_mamba_probe import MambaProbeConfig
from .cpu_decoding import CpuSteps
from .graph_decoding import graph_decoder, rows_at_a_time
from .linear_cross_entropy import IGNORED, linear_cross_entropy
from .mamba_backbone import MambaBackbone, MambaMixer, init_mixer, widen
from .mamba_state import MambaState

# on a CPU, few rows times a whole vocabulary take a third more time than block by block
VOCABULARY_BLOCK = 1024


@dataclass
class MambaProbeOutput(ModelOutput):
    """What a probe or an encoder returns.

    Args:
        loss: mean cross-entropy in nats, when labels were given.
        logits: float32, (B, T, V), unless only the loss was wanted.
        state: the state after the last token, unless only the loss was wanted.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: MambaState | None = None


class MambaLanguageModel(PreTrainedModel):
    """What encoder and probe share: backbone, tied output layer, initialisation of weights."""

    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _no_split_modules = ["MambaBlock"]  # noqa: RUF012, transformers reads these off the class
    _tied_weights_keys = {"lm_head.weight": "backbone.embeddings.weight"}  # noqa: RUF012
    _is_stateful = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.backbone = MambaBackbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.backbone.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.backbone.embeddings = value  # type: ignore[assignment]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits (..., V) of hidden vectors (..., H)."""
        return widen(self.lm_head(hidden.to(self.lm_head.weight.dtype)))

    def loss(
        self, hidden: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Return the mean cross-entropy in nats over labels other than -100, without logits.

        `num_items_in_batch` replaces the count when gradients are accumulated over batches.
        """
        total = linear_cross_entropy(hidden, self.lm_head.weight, labels)
        if num_items_in_batch is None:
            num_items_in_batch = (labels != IGNORED).sum()
        return total / num_items_in_batch

    def answer(
        self,
        input_ids: Tensor | None,
        start: MambaState | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        labels: Tensor | None,
        *,
        return_logits: bool | None,
        use_cache: bool | None,
        num_items_in_batch: Tensor | int | None,
    ) -> MambaProbeOutput:
        """Return what `forward` does, from the state `start` on; for its arguments see there."""
        everything = labels is None or not self.training
        hidden, state = self.backbone(
            input_ids,
            start,
            attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=everything if use_cache is None else use_cache,
        )
        if return_logits is None:
            return_logits = everything
        return MambaProbeOutput(
            loss=None if labels is None else self.loss(hidden, labels, num_items_in_batch),
            logits=self.logits(hidden) if return_logits else None,
            state=state,
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MambaMixer):
            init_mixer(module, self.config)


class MambaProbe(MambaLanguageModel, GenerationMixin):
    """A Mamba that starts from the state of an encoder and writes back what the encoder read."""

    config_class = MambaProbeConfig
    config: MambaProbeConfig

    def __init__(self, config: MambaProbeConfig) -> None:
        super().__init__(config)
        if config.condition == "none":
            shape = (config.num_hidden_layers, config.intermediate_size)
            self.null_conv = nn.Parameter(torch.zeros(*shape, config.conv_kernel))
            self.null_ssm = nn.Parameter(torch.zeros(*shape, config.state_size))
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        encoder: PreTrainedModel,
        condition: str = "state",
        *,
        random_init: bool = False,
        **config: Any,
    ) -> "MambaProbe":
        """Return a probe of the encoder's shape that starts with the encoder's own weights.

        Args:
            encoder: what `selmem.load_encoder` returns, or a stock MambaForCausalLM.
            condition: the part of the state that the probe will see.
            random_init: start from random weights instead, as a control.
            **config: further fields of MambaProbeConfig.
        """
        probe = cls(_probe_config(encoder, condition, config))
        if not random_init:
            weights = {name: value.float() for name, value in encoder.state_dict().items()}
            absent = probe.load_state_dict(weights, strict=False)
            layers = range(probe.config.num_hidden_layers, len(probe.backbone.layers))
            own = ("null_", *(f"backbone.layers.{layer}." for layer in layers))
            unknown = [n for n in absent.missing_keys if not n.startswith(own)]
            if unknown or absent.unexpected_keys:
                raise ValueError(
                    f"the encoder's weights do not fit: missing {unknown}, "
                    f"unexpected {absent.unexpected_keys}"
                )
            probe.tie_weights()
        return probe

    def forward(
        self,
        input_ids: Tensor | None = None,
        state: Any = None,
        labels: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache_params: MambaState | None = None,
        return_logits: bool | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
    ) -> MambaProbeOutput | tuple[Any, ...]:
        """Read tokens, starting from the state of an encoder.

        Args:
            input_ids: [EOS] + text, int64, (B, T).
            state: MambaState or transformers cache of the encoder, B rows; of no use to a null
                probe. Its parts are zeroed as the probe's condition demands.
            labels: text + [EOS], aligned with input_ids (nothing is shifted here), -100 ignored.
            attention_mask: of ones, (B, T): with a state, all texts of a batch have one length.
            inputs_embeds: in place of input_ids, (B, T, H).
            cache_params: state of this probe itself to continue from, taken as it is.
            return_logits: whether to keep the logits; by default always, except in training
                with labels.
            use_cache: whether to return the state after the last token; by default likewise.
            num_items_in_batch: number of labels to divide the loss by; their count if None.
            return_dict: False gives a tuple, without what is None; by default as in the
                configuration.

        Raises:
            ValueError: when the state is missing, another encoder wrote it, or there is padding.
        """
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if tokens is None:
            raise ValueError("expected input_ids or inputs_embeds, got neither")
        start = cache_params
        if start is None:
            start = self.initial_state(state, tokens.shape[0])
        output = self.answer(
            input_ids,
            start,
            attention_mask,
            inputs_embeds,
            labels,
            return_logits=return_logits,
            use_cache=use_cache,
            num_items_in_batch=num_items_in_batch,
        )
        if return_dict is None:
            return_dict = self.config.return_dict
        return output if return_dict else output.to_tuple()

    def initial_state(self, state: Any = None, batch: int | None = None) -> MambaState:
        """Return the state that the probe starts from: what its condition leaves of `state`.

        Only the first `num_hidden_layers` get any of it; extra layers start from zero.

        Args:
            state: MambaState or transformers cache; for a null probe, only its rows count.
            batch: number of rows, where there is no state.

        Raises:
            ValueError: when the state is missing, of another shape, or of another encoder.
        """
        if state is not None and not isinstance(state, MambaState):
            state = MambaState.from_cache(state)
        if batch is None and isinstance(state, MambaState):
            batch = state.batch_size
        if batch is not None and self.config.condition == "none":
            return self._null_state(batch).deepened(self.config.extra_layers)
        if not isinstance(state, MambaState):
            raise ValueError(
                "there is no state to start from: pass state=selmem.read_state(encoder, ...) or "
                "the cache of a MambaForCausalLM"
            )
        self._check_state(state, state.batch_size if batch is None else batch)
        kept = state.to(self.device).keep(self.config.condition)
        return kept.deepened(self.config.extra_layers)

    def _null_state(self, batch: int) -> MambaState:
        shape = (-1, batch, -1, -1)
        conv, ssm = self.null_conv[:, None].expand(shape), self.null_ssm[:, None].expand(shape)
        return MambaState(conv, widen(ssm))

    def teacher_forcing(self, text_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return input_ids = [EOS] + text and labels = text + [EOS], (B, T + 1) for (B, T)."""
        eos = text_ids.new_full((text_ids.shape[0], 1), self._eos())
        return torch.cat([eos, text_ids], dim=1), torch.cat([text_ids, eos], dim=1)

    @torch.no_grad()
    def reconstruct(
        self, state: Any, max_length: int, batch_size: int | None = None
    ) -> torch.LongTensor:
        """Return the text that the probe writes from `state`, greedily.

        Args:
            state: MambaState or transformers cache of the encoder, B rows.
            max_length: most tokens to write; a row ends earlier at its EOS.
            batch_size: rows decoded at a time; if None all, or on a GPU what its memory holds.

        Returns:
            token ids, int64, (B, at most max_length); from its EOS on, a row is all EOS.
        """
        start = self.initial_state(state)
        rows = torch.arange(start.batch_size, device=start.conv.device)
        decode: Callable[[MambaState, int], Tensor] = self._reconstruct
        most = max(1, len(rows))
        if start.conv.is_cuda and len(rows) > 0:
            decode, most = graph_decoder(self).decode, rows_at_a_time(self, len(rows))
        at_a_time = batch_size or most
        states = [start]
        if len(rows) > at_a_time:
            states = [start.select(part) for part in torch.split(rows, at_a_time)]
        parts = [decode(part, max_length) for part in states]
        longest = max((part.shape[1] for part in parts), default=0)
        padded = [F.pad(p, (0, longest - p.shape[1]), value=self._eos()) for p in parts]
        return torch.cat(padded)  # type: ignore[return-value]

    def _reconstruct(self, state: MambaState, max_length: int) -> Tensor:
        """Decode all rows of `state`; a row that ends leaves the batch."""
        eos = self._eos()
        rows = torch.arange(state.batch_size, device=self.device)
        written = torch.full((len(rows), max_length), eos, device=self.device)
        token = torch.full_like(rows, eos)
        steps = CpuSteps(self.backbone, state)
        for position in range(max_length):
            token = self._likeliest(steps(token))
            written[rows, position] = token
            going = token != eos
            if not going.all():
                kept = going.nonzero().squeeze(1)
                if len(kept) == 0:
                    return written[:, : position + 1]
                rows, token = rows[kept], token[kept]
                steps.keep(kept)
        return written

    def _likeliest(self, hidden: Tensor) -> Tensor:
        """Return the most probable next tokens (B,) after hidden (B, H)."""
        if hidden.device.type != "cpu":
            return self.logits(hidden).argmax(-1)
        parts = torch.split(self.lm_head.weight, VOCABULARY_BLOCK)
        return torch.cat([F.linear(hidden, part) for part in parts], dim=-1).argmax(-1)

    def _check_state(self, state: MambaState, batch: int) -> None:
        ours, theirs = self.config.encoder_fingerprint, state.encoder_fingerprint
        if ours is not None and theirs is not None and ours != theirs:
            raise ValueError(
                f"the state was written by an encoder with fingerprint {theirs}, but this probe "
                f"reads {self.config.encoder_name_or_path} with fingerprint {ours}; use that "
                "encoder or a probe of yours"
            )
        config = self.config
        inner = (config.intermediate_size, config.conv_kernel)
        expected = (config.num_hidden_layers, batch, *inner)
        if state.conv.shape != expected or state.ssm.shape[3] != config.state_size:
            raise ValueError(
                f"the state has conv {tuple(state.conv.shape)} and ssm {tuple(state.ssm.shape)}, "
                f"but this probe expects conv {expected} and {config.state_size} values in ssm"
            )

    def _eos(self) -> int:
        if self.config.eos_token_id is None:
            raise ValueError("the configuration names no eos_token_id, with which texts begin")
        return self.config.eos_token_id

    def generate(self, inputs: Tensor | None = None, *, state: Any = None, **kwargs: Any) -> Any:
        """Write from `state` with transformers' generation (greedy, sampling, beams).

        Without `inputs` the text starts after an EOS that is not returned, and max_length counts
        the tokens written: `generate(state=s, max_length=n)` is then `reconstruct(s, n)`.

        Args:
            inputs: token ids to start from, EOS first, (B, T); also `input_ids`.
            state: MambaState or transformers cache of the encoder, B rows.
            **kwargs: as for transformers' generate.

        Raises:
            ValueError: when there is no state to start from, or padding, or when hidden states or
                attentions are wanted.
        """
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name):
                raise ValueError(
                    f"{name}=True came, but a probe returns logits and states alone; to look "
                    "inside, register forward hooks on probe.backbone.layers"
                )
        if inputs is None:
            inputs = kwargs.pop("input_ids", None)
        start = self.initial_state(state, None if inputs is None else inputs.shape[0])
        if inputs is not None:
            kwargs.setdefault("attention_mask", torch.ones_like(inputs))
            return super().generate(inputs, cache_params=start, **kwargs)
        if kwargs.pop("attention_mask", None) is not None:
            raise ValueError(
                "an attention mask came without input_ids; give the mask to selmem.read_state, "
                "the probe needs none"
            )
        if "max_length" in kwargs:
            kwargs["max_new_tokens"] = kwargs.pop("max_length")
        eos = torch.full((start.batch_size, 1), self._eos(), device=self.device)
        return super().generate(
            inputs_embeds=self.backbone.embeddings(eos),
            attention_mask=torch.ones_like(eos),
            cache_params=start,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache_params: MambaState | None = None,
        is_first_iteration: bool = False,
        **_unused: Any,
    ) -> dict[str, Any]:
        """Feed the whole prompt at first and then one token at a time."""
        if not is_first_iteration:
            return {"input_ids": input_ids[:, -1:], "cache_params": cache_params}
        start = {"attention_mask": attention_mask, "cache_params": cache_params}
        if inputs_embeds is not None:
            return {"inputs_embeds": inputs_embeds, **start}
        return {"input_ids": input_ids, **start}

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **kwargs)
        return {**model_kwargs, "cache_params": outputs.state}

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        start = model_kwargs["cache_params"]
        rows = torch.arange(start.batch_size, device=self.device).repeat_interleave(expand_size)
        model_kwargs["cache_params"] = start.select(rows)
        return super()._expand_inputs_for_generation(  # type: ignore[no-any-return]
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )

    def _reorder_cache(self, cache: MambaState, beam_idx: Tensor) -> MambaState:
        return cache.select(beam_idx)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and self.config.condition == "none":
            init.zeros_(self.null_conv)
            init.zeros_(self.null_ssm)


def _probe_config(
    encoder: PreTrainedModel, condition: str, fields: dict[str, Any]
) -> MambaProbeConfig:
    """Return the configuration of a probe that has the encoder's shape and names the encoder."""
    own = {name for name in MambaProbeConfig.__annotations__ if hasattr(encoder.config, name)}
    shape = {name: getattr(encoder.config, name) for name in own}
    source = {
        "encoder_name_or_path": encoder.config.name_or_path or None,
        "encoder_revision": getattr(encoder, "revision", None),
        "encoder_fingerprint": getattr(encoder, "fingerprint", None),
    }
    return MambaProbeConfig(**{**shape, **source, "condition": condition, **fields})


MambaProbeConfig.register_for_auto_class()
MambaProbe.register_for_auto_class("AutoModel")
