# SPDX-License-Identifier: Apache-2.0
"""The state of a Mamba after a text, and the only code that knows how transformers caches it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache


class MambaShape(Protocol):
    """The configuration fields that fix the shape of a state."""

    num_hidden_layers: int
    intermediate_size: int
    conv_kernel: int
    state_size: int


@dataclass
class MambaState:
    """What every layer holds after the last token.

    Args:
        conv: the last W inputs of each layer's convolution, zeros before the text, (L, B, D, W).
        ssm: the recurrent state of each layer, (L, B, D, N), float32.
        encoder_fingerprint: hash of the weights that wrote the state, if known.
    """

    # transformers' generation asks this of whatever it carries from step to step
    is_compileable: ClassVar[bool] = False

    conv: Tensor
    ssm: Tensor
    encoder_fingerprint: str | None = None

    def __repr__(self) -> str:
        conv, ssm = (f"{tuple(part.shape)} {part.dtype}" for part in (self.conv, self.ssm))
        known = f", encoder_fingerprint={self.encoder_fingerprint!r}"
        return f"MambaState(conv={conv}, ssm={ssm}{known if self.encoder_fingerprint else ''})"

    @classmethod
    def from_cache(cls, cache: Any, encoder_fingerprint: str | None = None) -> "MambaState":
        """Return the state that a stock transformers Mamba left in its cache.

        Raises:
            ValueError: when the cache holds no Mamba-1 state.
        """
        layers = getattr(cache, "layers", None) or []
        conv = [_only_state(layer, "conv_states") for layer in layers]
        ssm = [_only_state(layer, "recurrent_states") for layer in layers]
        if not layers or any(part is None or part.dim() != 3 for part in conv + ssm):
            raise ValueError(
                f"expected the filled cache of a Mamba-1 model, got {type(cache).__name__} with "
                f"{len(layers)} layers and no state in some; run the model with use_cache=True"
            )
        return cls(torch.stack(conv), torch.stack(ssm).float(), encoder_fingerprint)

    @classmethod
    def zeros(
        cls,
        config: MambaShape,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "MambaState":
        """Return the state before any text: `batch` rows, conv in `dtype`, ssm at least float32."""
        shape = (config.num_hidden_layers, batch, config.intermediate_size)
        conv = torch.zeros(*shape, config.conv_kernel, device=device, dtype=dtype)
        wide = torch.promote_types(dtype, torch.float32)
        return cls(conv, torch.zeros(*shape, config.state_size, device=device, dtype=wide))

    def to_cache(self, config: Any) -> DynamicCache:
        """Return a transformers cache with a copy of this state, for the model of `config`."""
        cache = DynamicCache(config=config)
        for layer, (conv, ssm) in enumerate(zip(self.conv, self.ssm, strict=True)):
            cache.update_conv_state(conv, layer)
            cache.update_recurrent_state(ssm, layer)
        return cache

    def keep(self, condition: str) -> "MambaState":
        """Return the state with the other part zeroed ("conv", "ssm"), or whole ("state")."""
        if condition == "state":
            return self
        if condition == "conv":
            return replace(self, ssm=torch.zeros_like(self.ssm))
        if condition == "ssm":
            return replace(self, conv=torch.zeros_like(self.conv))
        raise ValueError(f"condition is {condition!r}, expected 'state', 'conv' or 'ssm'")

    def deepened(self, n_layers: int) -> "MambaState":
        """Return the state with `n_layers` further layers behind its own, all zero."""
        if n_layers == 0:
            return self
        return self.map(lambda part: F.pad(part, (0, 0, 0, 0, 0, 0, 0, n_layers)))

    @property
    def batch_size(self) -> int:
        """The number of texts."""
        return self.conv.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> "MambaState":
        """Return the state with `function` applied to both parts."""
        return replace(self, conv=function(self.conv), ssm=function(self.ssm))

    def to(self, device: torch.device | str) -> "MambaState":
        """Return the state on `device`."""
        return self.map(lambda part: part.to(device))

    def detach(self) -> "MambaState":
        """Return the state cut off from the graph that made it."""
        return self.map(torch.Tensor.detach)

    def clone(self) -> "MambaState":
        """Return a copy that shares no memory."""
        return self.map(torch.Tensor.clone)

    def select(self, index: Tensor) -> "MambaState":
        """Return the rows `index` (int64, (K,)) as a state of K texts."""
        return self.map(lambda part: part.index_select(1, index.to(part.device)))


def _only_state(layer: Any, name: str) -> Any:
    states = getattr(layer, name, None)
    return states.get(0) if isinstance(states, dict) else states


# so that torch.load reads what torch.save wrote, with weights_only=True
torch.serialization.add_safe_globals([MambaState])
