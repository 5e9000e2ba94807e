"""Loading the models of a measurement, with every check that they belong together."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from selmem.encoder import MambaEncoder, load_encoder
from selmem.errors import InputError
from selmem.measurement.scoring import Models
from selmem.probe import MambaProbe
from selmem.probe_loading import load_probe
from selmem.tokenization import load_tokenizer, tokenizer_hash

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SHAPE = ("num_hidden_layers", "intermediate_size", "conv_kernel", "state_size", "vocab_size")
_TEST_TIME_CONTROLS = re.compile(r"other_(state|conv|ssm|layer_\d+)|mean_layer_\d+")


@dataclass(frozen=True)
class Processes:
    """This process among those that share a measurement."""

    rank: int
    world: int
    device: torch.device
    wait: Callable[[], None]


def find_processes(device: str | None) -> Processes:
    """Return what `accelerate launch` set up, or one process.

    Args:
        device: for one process; None takes a GPU where there is one. Of several processes, each has
            a GPU of its own unless it is "cpu".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        # without being told, it takes each of several processes on CPUs for the only one
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        return Processes(
            state.process_index, state.num_processes, state.device, state.wait_for_everyone
        )
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return Processes(0, 1, torch.empty(0, device=chosen).device, lambda: None)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {chosen!r} is not available: {error}") from error


def model_name(id_or_path: str) -> str:
    """Return what tables call a model: its Hub id, or its folder's name.

    >>> model_name("selmem/mamba-tiny")
    'selmem/mamba-tiny'
    """
    path = Path(id_or_path)
    return path.resolve().name if path.is_dir() else id_or_path


def probe_names(probes: Sequence[str]) -> dict[str, str]:
    """Return the id or folder of every further probe by the name of its column.

    Args:
        probes: `[NAME=]ID_OR_PATH`; without a name, the last part of the path is taken.

    Raises:
        InputError: two have one name, or a name is that of a control at test time.

    >>> probe_names(["runs/conv-only", "random=selmem/some-probe"])
    {'conv_only': 'runs/conv-only', 'random': 'selmem/some-probe'}
    """
    named: dict[str, str] = {}
    for given in probes:
        name, equals, path = given.partition("=")
        if not equals:
            name, path = Path(given).name, given
        name = re.sub(r"\W", "_", name)
        if name in named or _TEST_TIME_CONTROLS.fullmatch(name):
            raise InputError(
                f"two columns would be named probe_bits_{name}; name probes apart, as in "
                f"control={path}"
            )
        named[name] = path
    return named


def load_models(
    encoder: str,
    probe: str,
    null_probe: str | None,
    others: dict[str, str],
    *,
    device: torch.device,
    dtype: str = "float32",
) -> tuple[Models, PreTrainedTokenizerFast]:
    """Return the models, in float32 weights on `device`, and the probe's tokenizer.

    Args:
        encoder: Hub id or folder; likewise the probes.
        probe: the one that is measured.
        null_probe: one of condition "none".
        others: further probes by name.
        device: for all of them.
        dtype: of matrix products, "float32" or "bfloat16".

    Raises:
        InputError: a model is not found or damaged, or does not belong to the others: a probe or
            null probe of another encoder, of another shape, or with another tokenizer.
    """
    loaded = load_encoder(encoder, device=device)
    probes = {probe: load_probe(probe, device=device)}
    if null_probe is not None:
        probes[null_probe] = load_probe(null_probe, device=device)
        if (condition := probes[null_probe].config.condition) != "none":
            raise InputError(f"{null_probe} is no null probe: it reads {condition!r}, not 'none'")
    probes |= {path: load_probe(path, device=device) for path in others.values()}
    for name, one in probes.items():
        _require_encoder(name, one, encoder, loaded)
    tokenizer = _tokenizer(probe, encoder)
    for name, one in probes.items():
        _require_tokenizer(name, one, tokenizer, probe)
    models = Models(
        encoder=loaded,
        probe=probes[probe],
        null_probe=None if null_probe is None else probes[null_probe],
        others={name: probes[path] for name, path in others.items()},
        precision=DTYPES[dtype],
    )
    return models, tokenizer


def require_lengths(models: Models, lengths: Sequence[int]) -> int:
    """Return the longest text, in tokens, that all probes were trained for.

    Raises:
        InputError: a length is above it.
    """
    probes = [models.probe, *models.others.values()]
    probes += [models.null_probe] if models.null_probe is not None else []
    for probe in probes:
        if max(lengths) > probe.config.max_chunk_tokens:
            raise InputError(
                f"length {max(lengths)} is above the {probe.config.max_chunk_tokens} tokens that "
                f"{model_name(probe.name_or_path)} was trained for; choose shorter lengths"
            )
    return min(probe.config.max_chunk_tokens for probe in probes)


def _require_encoder(name: str, probe: MambaProbe, encoder: str, loaded: MambaEncoder) -> None:
    config = probe.config
    ours, theirs = config.encoder_fingerprint, loaded.fingerprint
    if ours is not None and ours != theirs:
        raise InputError(
            f"{name} reads states of {config.encoder_name_or_path} (fingerprint {ours[:12]}), not "
            f"of {encoder} (fingerprint {str(theirs)[:12]}); use that encoder or another probe"
        )
    for field in _SHAPE:
        if getattr(config, field) != getattr(loaded.config, field):
            raise InputError(
                f"{name} has {field} {getattr(config, field)}, but {encoder} has "
                f"{getattr(loaded.config, field)}; the probe is for another encoder"
            )


def _tokenizer(probe: str, encoder: str) -> PreTrainedTokenizerFast:
    """Return the probe's tokenizer, or the encoder's where the probe's folder has none."""
    files = {path: Path(path) / "tokenizer.json" for path in (probe, encoder)}
    if Path(probe).is_dir() and not files[probe].is_file():
        return load_tokenizer(encoder)
    tokenizer = load_tokenizer(probe)
    if files[encoder].is_file():
        theirs = tokenizer_hash(load_tokenizer(encoder))
        if theirs != (ours := tokenizer_hash(tokenizer)):
            raise InputError(
                f"{probe} has tokenizer {ours[:12]} and {encoder} has tokenizer {theirs[:12]}; "
                "encoder and probe must share one"
            )
    return tokenizer


def _require_tokenizer(
    name: str, probe: MambaProbe, tokenizer: PreTrainedTokenizerFast, source: str
) -> None:
    config, found = probe.config, tokenizer_hash(tokenizer)
    if config.tokenizer_hash not in {None, found}:
        raise InputError(
            f"{name} was trained with tokenizer {str(config.tokenizer_hash)[:12]}, but the one of "
            f"{source} is {found[:12]}; all models must share one tokenizer"
        )
    if len(tokenizer) > config.vocab_size or tokenizer.eos_token_id != config.eos_token_id:
        raise InputError(
            f"{name} has {config.vocab_size} embeddings and EOS {config.eos_token_id}; the "
            f"tokenizer of {source} has {len(tokenizer)} entries and EOS {tokenizer.eos_token_id}"
        )
