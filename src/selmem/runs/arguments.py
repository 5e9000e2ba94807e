"""From the configuration of a run to the arguments of the transformers Trainer."""

import logging
import sys
from pathlib import Path

import torch
from transformers import TrainingArguments

from selmem.errors import InputError
from selmem.runs.config import RunConfig

logger = logging.getLogger(__name__)


def training_arguments(config: RunConfig, checkpoints: Path) -> TrainingArguments:
    """Return the Trainer's arguments for a run.

    Raises:
        InputError: a GPU is asked for and absent.
    """
    on_gpu = torch.cuda.is_available() and config.device != "cpu"
    if config.device == "cuda" and not on_gpu:
        raise InputError("device is cuda, but torch finds no GPU; use --device cpu")
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=max(config.max_steps, 1),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.final_lr_ratio},
        warmup_steps=round(config.warmup_ratio * config.max_steps),
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        tf32=True if on_gpu else None,
        seed=config.seed,
        use_cpu=not on_gpu,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,  # it would wait for the GPU at every step
        eval_strategy="steps",
        eval_steps=config.eval_every,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        report_to="none",
        remove_unused_columns=False,
        label_names=[],
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        disable_tqdm=not sys.stderr.isatty(),
    )
    return _one_device_per_process(arguments, config)


def tokens_per_batch(config: RunConfig, device: torch.device) -> int:
    """Return the tokens of an optimiser step; by default what the device computes in a second."""
    return config.tokens_per_batch or (32_768 if device.type == "cuda" else 2_048)


def held_out_tokens(config: RunConfig, device: torch.device) -> int:
    """Return the tokens per length in each held-out evaluation."""
    return config.held_out_tokens or (65_536 if device.type == "cuda" else 4_096)


def _one_device_per_process(arguments: TrainingArguments, config: RunConfig) -> TrainingArguments:
    """Keep the Trainer from spreading one process over several GPUs, batch by batch."""
    if arguments.n_gpu > 1:
        logger.warning("using one of %d GPUs; `accelerate launch` uses all", arguments.n_gpu)
        arguments._n_gpu = 1
    if config.cuda_graphs and (arguments.world_size > 1 or arguments.device.type != "cuda"):
        raise InputError(
            f"cuda_graphs works in one process on a GPU, but there are {arguments.world_size} on "
            f"{arguments.device.type}; leave it out"
        )
    return arguments
