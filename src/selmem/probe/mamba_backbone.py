# SPDX-License-Identifier: Apache-2.0
"""The Mamba-1 backbone of encoder and probe: it starts from a given state and returns its last.

Parameter names are those of transformers' MambaModel, so weights go both ways.

Dims: B batch, T tokens, H hidden size, D inner channels, N state size, W convolution width.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .mamba_state import MambaState
from .residual_norm import add_norm, rms_norm
from .selective_scan import causal_conv, conv_update, selective_scan, selective_state_update


class MambaRMSNorm(nn.Module):
    """Root-mean-square norm with float32 statistics, in the dtype of the products that follow."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the normed hidden vectors (..., H)."""
        return rms_norm(hidden, self.weight, self.eps).to(self._dtype())

    def add(self, mixed: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the normed sum of a layer's output and the residual stream, and the sum."""
        if residual is None:
            return self(mixed), mixed
        return add_norm(mixed, residual, self.weight, self.eps, self._dtype())

    def _dtype(self) -> torch.dtype:
        device = self.weight.device.type
        autocast = torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if autocast else self.weight.dtype


class StepWeights(NamedTuple):
    """What the steps of one layer need again and again, made once for all of them.

    Args:
        A: state matrix, (D, N), negative.
        D: skip connection, (D,).
        dt_bias: added to dt before the softplus, (D,).
        filters: of the convolution, (D, W).
    """

    A: Tensor
    D: Tensor
    dt_bias: Tensor
    filters: Tensor


class MambaMixer(nn.Module):
    """Gate, short convolution and selective scan of one layer.

    Args:
        config: a MambaProbeConfig or transformers' MambaConfig.
        silent: initialise it such that it puts out zero, yet can learn.
    """

    def __init__(self, config: Any, *, silent: bool = False) -> None:
        super().__init__()
        self.silent = silent
        self.state_size = config.state_size
        self.time_step_rank = int(config.time_step_rank)
        inner = config.intermediate_size
        self.conv1d = nn.Conv1d(
            inner, inner, config.conv_kernel, groups=inner, bias=config.use_conv_bias
        )
        self.in_proj = nn.Linear(config.hidden_size, 2 * inner, bias=config.use_bias)
        self.x_proj = nn.Linear(inner, self.time_step_rank + 2 * self.state_size, bias=False)
        self.dt_proj = nn.Linear(self.time_step_rank, inner, bias=True)
        self.A_log = nn.Parameter(torch.empty(inner, self.state_size))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=config.use_bias)

    def forward(
        self,
        hidden: Tensor,
        window: Tensor | None,
        ssm: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (B, T, H), the final window (B, D, W) and state (B, D, N).

        `mask` (B, T, 1) is zero at padding, which then enters neither window nor state.
        """
        x, z = self.in_proj(hidden).chunk(2, dim=-1)
        if mask is not None:
            x = x * mask
        x, window = causal_conv(x, self.conv1d.weight.squeeze(1), self.conv1d.bias, window)
        if mask is not None:
            x = x * mask
        dt, B, C = self._selection(x)
        D, dt_bias = widen(self.D), widen(self.dt_proj.bias)
        y, ssm = selective_scan(x, dt, self._A(), B, C, D, z, dt_bias, ssm)
        return self.out_proj(y), window, ssm

    def step(self, hidden: Tensor, window: Tensor, ssm: Tensor, weights: StepWeights) -> Tensor:
        """Advance window and state by one token in place; hidden and output are (B, H)."""
        x, z = self.in_proj(hidden).chunk(2, dim=-1)
        A, D, dt_bias, filters = weights
        x = conv_update(window, x, filters, self.conv1d.bias)
        dt, B, C = self._selection(x)
        y = selective_state_update(ssm, x, dt, A, B, C, D, z, dt_bias)
        return self.out_proj(y)  # type: ignore[no-any-return]

    def step_weights(self) -> StepWeights:
        """Return what `step` needs besides its inputs, float32 at least."""
        filters = widen(self.conv1d.weight.squeeze(1))
        return StepWeights(self._A(), widen(self.D), widen(self.dt_proj.bias), filters)

    def _A(self) -> Tensor:
        return -torch.exp(widen(self.A_log))

    def _selection(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes = [self.time_step_rank, self.state_size, self.state_size]
        low_rank, B, C = self.x_proj(x).split(sizes, dim=-1)
        return F.linear(low_rank, self.dt_proj.weight), B, C


class MambaBlock(GradientCheckpointingLayer):
    """Residual connection of what came before, norm and mixer."""

    def __init__(self, config: Any, *, silent: bool = False) -> None:
        super().__init__()
        self.residual_in_fp32 = config.residual_in_fp32
        self.norm = MambaRMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mixer = MambaMixer(config, silent=silent)

    def forward(
        self,
        mixed: Tensor,
        residual: Tensor | None,
        window: Tensor | None,
        ssm: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Read a text.

        Args:
            mixed: what the layer before put out, or the embeddings, (B, T, H).
            residual: the stream to which `mixed` is yet to be added, (B, T, H); None at first.
            window: before the text, (B, D, W).
            ssm: before the text, (B, D, N).
            mask: zero at padding, (B, T, 1).

        Returns:
            the layer's output, the stream without it, the final window and the final state.
        """
        normed, residual = self._enter(mixed, residual)
        mixed, window, ssm = self.mixer(normed, window, ssm, mask)
        return mixed, residual, window, ssm

    def step(
        self,
        mixed: Tensor,
        residual: Tensor | None,
        window: Tensor,
        ssm: Tensor,
        weights: StepWeights,
    ) -> tuple[Tensor, Tensor]:
        """Advance by one token in place; return output and stream (B, H) as `forward` does."""
        normed, residual = self._enter(mixed, residual)
        return self.mixer.step(normed, window, ssm, weights), residual

    def _enter(self, mixed: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        normed, residual = self.norm.add(mixed, residual)
        return normed, widen(residual) if self.residual_in_fp32 else residual


class MambaBackbone(nn.Module):
    """Embeddings, layers and final norm; the same for encoder and probe.

    Args:
        config: a MambaProbeConfig or transformers' MambaConfig.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        if config.hidden_act != "silu":
            raise ValueError(f"hidden_act is {config.hidden_act!r}; only 'silu' is implemented")
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        extra = getattr(config, "extra_layers", 0)
        kinds = [False] * config.num_hidden_layers + [True] * extra
        self.layers = nn.ModuleList(MambaBlock(config, silent=silent) for silent in kinds)
        self.norm_f = MambaRMSNorm(config.hidden_size, config.layer_norm_epsilon)

    def forward(
        self,
        input_ids: Tensor | None = None,
        initial_state: MambaState | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        use_cache: bool = True,
    ) -> tuple[Tensor, MambaState | None]:
        """Read a text from `initial_state` on.

        Args:
            input_ids: int64, (B, T).
            initial_state: zero if None.
            attention_mask: 0 at padding, which must be on the left, else 1, (B, T).
            inputs_embeds: in place of input_ids, (B, T, H).
            use_cache: whether to keep the state; of short texts it is most of the memory.

        Returns:
            hidden vectors after the final norm (B, T, H), and the state after the last token or
            None.

        Raises:
            ValueError: for padding on the right, or together with an initial state.
        """
        hidden = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        mask = left_padding_mask(attention_mask)
        if mask is not None and initial_state is not None:
            raise ValueError("padding and an initial state exclude each other; use one length")
        windows, states = [], []
        residual = None
        for layer, (window, ssm) in zip(self.layers, self._by_layer(initial_state), strict=True):
            hidden, residual, window, ssm = layer(hidden, residual, window, ssm, mask)
            if use_cache:
                windows.append(window)
                states.append(ssm)
        hidden, _ = self.norm_f.add(hidden, residual)
        if not use_cache:
            return hidden, None
        return hidden, MambaState(torch.stack(windows), torch.stack(states))

    def _by_layer(self, state: MambaState | None) -> Iterable[tuple[Tensor | None, Tensor | None]]:
        """Return window and recurrent state of each layer, None where there is no state.

        The gradients of all layers become one tensor at once; with an index for each layer, every
        one of them would be a tensor of all layers.
        """
        if state is None:
            return [(None, None)] * len(self.layers)
        return zip(state.conv.unbind(), state.ssm.unbind(), strict=True)

    def step(
        self,
        token_ids: Tensor,
        state: MambaState,
        weights: Sequence[StepWeights] | None = None,
    ) -> Tensor:
        """Read one token per row and advance `state` in place; no gradient.

        Args:
            token_ids: int64, (B,).
            state: of B rows, in memory of its own.
            weights: what `step_weights` returned; made anew if None.

        Returns:
            hidden vectors after the final norm, (B, H).
        """
        hidden, residual = self.embeddings(token_ids), None
        parts = zip(state.conv, state.ssm, weights or self.step_weights(), strict=True)
        for layer, (window, ssm, own) in zip(self.layers, parts, strict=True):
            hidden, residual = cast(MambaBlock, layer).step(hidden, residual, window, ssm, own)
        hidden, _ = self.norm_f.add(hidden, residual)
        return hidden

    def step_weights(self) -> list[StepWeights]:
        """Return what the steps of every layer need; it saves time when many steps follow."""
        return [cast(MambaBlock, layer).mixer.step_weights() for layer in self.layers]


def init_mixer(mixer: MambaMixer, config: Any) -> None:
    """Initialise one mixer as the authors of Mamba do (S4D-real A, log-uniform time steps)."""
    ladder = torch.arange(1, config.state_size + 1, device=mixer.A_log.device).float().log()
    init.copy_(mixer.A_log, ladder.expand_as(mixer.A_log))
    init.ones_(mixer.D)
    spread = mixer.time_step_rank**-0.5 * config.time_step_scale
    if config.time_step_init_scheme == "constant":
        init.constant_(mixer.dt_proj.weight, spread)
    else:
        init.uniform_(mixer.dt_proj.weight, -spread, spread)
    low, high = math.log(config.time_step_min), math.log(config.time_step_max)
    uniform = torch.rand(mixer.D.shape, device=mixer.D.device)
    dt = torch.exp(uniform * (high - low) + low).clamp(min=config.time_step_floor)
    # the inverse of softplus
    init.copy_(mixer.dt_proj.bias, dt + torch.log(-torch.expm1(-dt)))
    init.kaiming_uniform_(mixer.conv1d.weight, a=math.sqrt(5))
    if mixer.conv1d.bias is not None:
        init.zeros_(mixer.conv1d.bias)
    out = mixer.out_proj.weight
    init.kaiming_uniform_(out, a=math.sqrt(5))
    if mixer.silent:
        init.zeros_(out)
    elif config.rescale_prenorm_residual and not getattr(out, "_is_hf_initialized", False):
        out /= math.sqrt(config.num_hidden_layers)


def left_padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """Return the mask (B, T, 1) of padding on the left, or None where there is no padding.

    Raises:
        ValueError: for padding on the right.
    """
    if attention_mask is None or bool(attention_mask.all()):
        return None
    if bool((attention_mask[:, 1:] < attention_mask[:, :-1]).any()):
        raise ValueError(
            "the texts are padded on the right, where padding would change the state; set the "
            "tokenizer's padding_side='left'"
        )
    return attention_mask[..., None].bool()


def widen(values: Tensor) -> Tensor:
    """Return half-precision values as float32, and others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
