"""`selmem train`: a probe learns to write back what a frozen encoder read.

The probe's input is [EOS] + text, its targets text + [EOS], its initial state what the encoder
has after the text. A null probe (condition "none") sees the same data in the same order, with one
learned constant in place of the state.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from selmem.channel import ErasureChannel, erasure_channel
from selmem.corpus_store import CorpusStore, TokenReader
from selmem.encoder import MambaEncoder, load_encoder
from selmem.errors import InputError
from selmem.probe.modeling_mamba_probe import MambaProbe
from selmem.probe_loading import load_probe
from selmem.progress import no_transformers_bars
from selmem.runs.arguments import held_out_tokens, tokens_per_batch
from selmem.runs.config import RunConfig, option
from selmem.runs.objectives import Reconstruction
from selmem.runs.run import Run
from selmem.runs.schedules import BatchSchedule, held_out_batches
from selmem.tokenization import load_tokenizer, tokenizer_hash

logger = logging.getLogger(__name__)

LENGTHS = [4, 8, 16, 32, 64, 128, 256]  # those of the paper
LENGTH_WEIGHTS = [1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Settings of `selmem train`."""

    encoder: str = option(..., "encoder whose states the probe reads, folder or Hub id")
    encoder_name: str | None = option(
        None, "what the probe records as its encoder; by default `encoder`"
    )
    encoder_revision: str | None = option(None, "commit, tag or branch of the encoder on the Hub")
    tokenizer: str | None = option(None, "tokenizer, folder or Hub id; by default the encoder's")
    condition: Literal["state", "conv", "ssm", "none"] = option(
        "state", "part of the state that the probe sees; none trains a null probe"
    )
    lengths: list[int] = field(
        default_factory=LENGTHS.copy,
        metadata={"help": "tokens of the texts, several in one probe"},
    )
    length_weights: list[float] = field(
        default_factory=LENGTH_WEIGHTS.copy,
        metadata={"help": "share of the batches, hence of the tokens, of each length; any scale"},
    )
    extra_layers: int = option(
        0, "control: layers behind those that get the state; they start from zero, as identities"
    )
    init: Literal["encoder", "random"] = option("encoder", "weights that the probe starts from")
    init_probe: str | None = option(None, "folder of a probe whose weights to start from instead")
    random_encoder: bool = option(
        False, "control: read the states of a randomly initialised encoder, saved as OUT/encoder"
    )
    channel_words: int = option(
        0, "planted loss: redraw the places of this many frequent words; 0 leaves texts alone"
    )
    channel_erasure: float = option(
        0.0, "probability that the encoder does not see a redrawn word; with channel_words"
    )

    def __post_init__(self) -> None:
        """Refuse values that no run can use.

        Raises:
            InputError: names the field, its value and what is expected.
        """
        super().__post_init__()
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) < len(self.lengths):
            raise InputError(f"lengths are {self.lengths}, expected different positive numbers")
        if len(self.length_weights) != len(self.lengths):
            raise InputError(
                f"there are {len(self.lengths)} lengths and {len(self.length_weights)} "
                "length_weights; give one weight per length"
            )
        if self.extra_layers < 0:
            raise InputError(f"extra_layers is {self.extra_layers}, expected at least 0")
        if self.channel_erasure and not self.channel_words:
            raise InputError("channel_erasure needs channel_words, the number of words to redraw")
        if self.init == "random" and self.init_probe is not None:
            raise InputError("init is random and init_probe is given; choose one")


def train(config: TrainConfig) -> Path:
    """Train a probe as `config` says and return its folder.

    Where a limit on time or steps ends the run early, the folder holds checkpoints only, and the
    same configuration with `resume` continues it.

    Raises:
        InputError: what `config` names is absent, unfit or in the way.
    """
    pretrained = load_encoder(config.encoder, config.encoder_revision)
    tokenizer = load_tokenizer(config.tokenizer or config.encoder, revision=config.encoder_revision)
    _check_vocabulary(tokenizer, pretrained)
    with Run(config) as run:
        store = run.corpus(tokenizer)
        schedule = BatchSchedule(
            [store.windows(length, "train") for length in config.lengths],
            config.length_weights,
            tokens_per_batch=tokens_per_batch(config, run.device),
            seed=config.seed,
        )
        held_out = held_out_batches(
            store, config.lengths, tokens=held_out_tokens(config, run.device)
        )
        encoder = pretrained
        if config.random_encoder:
            encoder = _random_encoder(run, config.seed, pretrained, tokenizer)
        probe = _new_probe(config, pretrained, encoder, tokenizer_hash(tokenizer))
        encoder.to(run.device)
        reader = TokenReader(store, run.device)
        channel = _channel(config, store, tokenizer)
        objective = Reconstruction(
            None if config.condition == "none" else encoder, run.autocast, channel=channel
        )
        if run.optimise(probe, objective, schedule, held_out, reader):
            run.save(probe, tokenizer, store, channel=channel.summary() if channel else None)
    return run.out


def _new_probe(
    config: TrainConfig, pretrained: MambaEncoder, encoder: MambaEncoder, tokens: str
) -> MambaProbe:
    """Return the probe at step 0; for a random encoder too it starts as the pretrained model."""
    torch.manual_seed(config.seed)
    probe = MambaProbe.from_encoder(
        pretrained,
        config.condition,
        random_init=config.init == "random",
        encoder_name_or_path=config.encoder_name or str(encoder.config.name_or_path),
        encoder_revision=encoder.revision or config.encoder_revision,
        encoder_fingerprint=encoder.fingerprint,
        tokenizer_hash=tokens,
        max_chunk_tokens=max(config.lengths),
        extra_layers=config.extra_layers,
        pad_token_id=pretrained.config.eos_token_id,
    )
    if config.init_probe is not None:
        _copy_weights(config.init_probe, probe)
    return probe


def _copy_weights(folder: str, probe: MambaProbe) -> None:
    """Start from the weights of another probe of the same shape and the same parameters.

    Raises:
        InputError: no probe there, or one of another shape or condition.
    """
    try:
        probe.load_state_dict(load_probe(folder).state_dict())
    except RuntimeError as error:
        raise InputError(f"{folder} does not fit this run: {error}") from error


def _random_encoder(run: Run, seed: int, pretrained: MambaEncoder, tokenizer: Any) -> MambaEncoder:
    """Return an untrained encoder of the same shape, saved with its tokenizer as OUT/encoder."""
    folder = run.out / "encoder"
    with run.arguments.main_process_first():
        # the tokenizer is saved last: with its file the folder is whole
        if run.is_main and not (folder / "tokenizer.json").exists():
            torch.manual_seed(seed)
            with no_transformers_bars():
                MambaEncoder(pretrained.config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return load_encoder(folder)


def _channel(config: TrainConfig, store: CorpusStore, tokenizer: Any) -> ErasureChannel | None:
    if not config.channel_words:
        return None
    return erasure_channel(
        store, tokenizer, n_words=config.channel_words, erasure=config.channel_erasure
    )


def _check_vocabulary(tokenizer: Any, encoder: PreTrainedModel) -> None:
    if len(tokenizer) > encoder.config.vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} entries, but the encoder only "
            f"{encoder.config.vocab_size}; give the encoder's own with --tokenizer"
        )
