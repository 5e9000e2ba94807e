"""`selmem pretrain`: a small Mamba-1 language model from scratch, in transformers' format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import MambaConfig

from selmem.corpus_store import TokenReader
from selmem.encoder import MambaEncoder
from selmem.errors import InputError
from selmem.runs.arguments import held_out_tokens, tokens_per_batch
from selmem.runs.config import RunConfig, option
from selmem.runs.objectives import LanguageModelling
from selmem.runs.run import Run
from selmem.runs.schedules import BatchSchedule, held_out_batches
from selmem.tokenization import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Settings of `selmem pretrain`."""

    tokenizer: str = option(..., "tokenizer, folder or Hub id")
    hidden_size: int = option(192, "channels of the residual stream")
    num_hidden_layers: int = option(6, "layers")
    state_size: int = option(16, "values of the recurrent state per inner channel")
    conv_kernel: int = option(4, "tokens that the convolution sees")
    expand: int = option(2, "inner channels per channel of the residual stream")
    initializer_range: float = option(
        0.04, "standard deviation of random embeddings and projections"
    )
    window_tokens: int = option(512, "tokens of a training window")
    packed: bool = option(
        True, "windows of running text across documents; otherwise none leaves its document"
    )
    learning_rate: float = option(4e-3, "peak of the cosine schedule")
    weight_decay: float = option(0.1, "AdamW's, on matrices but not on A_log")

    def __post_init__(self) -> None:
        """Refuse values that no run can use.

        Raises:
            InputError: names the field, its value and what is expected.
        """
        super().__post_init__()
        for name in ("hidden_size", "num_hidden_layers", "state_size", "conv_kernel", "expand"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.window_tokens < 2:
            raise InputError(f"window_tokens is {self.window_tokens}, expected at least 2")


def pretrain(config: PretrainConfig) -> Path:
    """Train a language model as `config` says and return its folder.

    Where a limit on time or steps ends the run early, the folder holds checkpoints only, and the
    same configuration with `resume` continues it.

    Raises:
        InputError: what `config` names is absent, unfit or in the way.
    """
    tokenizer = load_tokenizer(config.tokenizer)
    with Run(config) as run:
        store = run.corpus(tokenizer)
        torch.manual_seed(config.seed)
        model = MambaEncoder(_model_config(config, tokenizer))
        # only the start is rescaled: stock transformers would rescale again whenever it loads
        model.config.rescale_prenorm_residual = False
        schedule = BatchSchedule(
            [store.windows(config.window_tokens, "train", packed=config.packed)],
            [1.0],
            tokens_per_batch=tokens_per_batch(config, run.device),
            seed=config.seed,
        )
        held_out = held_out_batches(
            store,
            [config.window_tokens],
            tokens=held_out_tokens(config, run.device),
            packed=config.packed,
        )
        reader = TokenReader(store, run.device)
        if run.optimise(model, LanguageModelling(run.autocast), schedule, held_out, reader):
            run.save(model, tokenizer, store)
    return run.out


def _model_config(config: PretrainConfig, tokenizer: Any) -> MambaConfig:
    return MambaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        state_size=config.state_size,
        conv_kernel=config.conv_kernel,
        expand=config.expand,
        initializer_range=config.initializer_range,
        rescale_prenorm_residual=True,
        pad_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
