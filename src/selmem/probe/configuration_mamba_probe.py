# SPDX-License-Identifier: Apache-2.0
"""Configuration of a probe: a Mamba-1 decoder that starts from the state of another Mamba."""

import math
from typing import Any

from transformers import PreTrainedConfig

CONDITIONS = ("state", "conv", "ssm", "none")


class MambaProbeConfig(PreTrainedConfig):
    """Shape of the probe, named as in transformers' MambaConfig, and what it was trained to read.

    Args:
        encoder_name_or_path: Hub id or path of the encoder whose states this probe reads.
        encoder_revision: commit of that encoder.
        encoder_fingerprint: hash of its weights; a state with another one is refused.
        tokenizer_hash: hash of the tokenizer that encoder and probe share.
        condition: the part of the state that the probe sees: "state" (all of it), "conv", "ssm",
            or "none" (a learned constant instead).
        extra_layers: layers after the `num_hidden_layers` that start from the encoder's state; they
            start from zero, and at first change nothing. As a control: does a larger reader find
            more in the state?
        max_chunk_tokens: longest text in tokens that the probe was trained to write back.
        training: what the probe was trained on (tokens, steps, seed, held-out bits), if known.
    """

    model_type = "mamba_probe"
    keys_to_ignore_at_inference = ["state"]  # noqa: RUF012, transformers reads it off the class

    vocab_size: int = 50280
    hidden_size: int = 768
    state_size: int = 16
    num_hidden_layers: int = 24
    layer_norm_epsilon: float = 1e-5
    pad_token_id: int | None = 0
    bos_token_id: int | None = 0
    eos_token_id: int | None = 0
    expand: int = 2
    intermediate_size: int = 0  # 0: expand * hidden_size
    conv_kernel: int = 4
    use_bias: bool = False
    use_conv_bias: bool = True
    hidden_act: str = "silu"
    initializer_range: float = 0.1
    residual_in_fp32: bool = True
    rescale_prenorm_residual: bool = False
    time_step_rank: str | int = "auto"
    time_step_scale: float = 1.0
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_init_scheme: str = "random"
    time_step_floor: float = 1e-4
    use_cache: bool = True
    tie_word_embeddings: bool = True
    encoder_name_or_path: str | None = None
    encoder_revision: str | None = None
    encoder_fingerprint: str | None = None
    tokenizer_hash: str | None = None
    condition: str = "state"
    extra_layers: int = 0
    max_chunk_tokens: int = 256
    training: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Derive the inner sizes and check what the type system cannot.

        Raises:
            ValueError: for an unknown condition, no tokens, or a negative number of layers.
        """
        if self.intermediate_size == 0:
            self.intermediate_size = int(self.expand * self.hidden_size)
        if self.time_step_rank == "auto":
            self.time_step_rank = math.ceil(self.hidden_size / 16)
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition is {self.condition!r}, expected one of {CONDITIONS}")
        if self.max_chunk_tokens < 1:
            raise ValueError(f"max_chunk_tokens is {self.max_chunk_tokens}, expected at least 1")
        if self.extra_layers < 0:
            raise ValueError(f"extra_layers is {self.extra_layers}, expected at least 0")
        super().__post_init__(**kwargs)

    @property
    def layer_types(self) -> list[str]:
        """The kind of every layer, from which transformers builds a cache."""
        return ["linear_attention"] * self.num_hidden_layers
