"""Loading a probe by Hub id or folder, with the checks that transformers leaves out."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError

from selmem.checkpoint import checkpoint_folder
from selmem.errors import InputError
from selmem.json_files import read_object
from selmem.probe import MambaProbe, MambaProbeConfig
from selmem.progress import no_transformers_bars


def load_probe(
    id_or_path: str | os.PathLike[str],
    revision: str | None = None,
    device: torch.device | str | None = None,
) -> MambaProbe:
    """Return a frozen probe in float32 and eval mode.

    Args:
        id_or_path: Hub id or local folder.
        revision: branch, tag or commit on the Hub.
        device: where to put it; the CPU if None.

    Raises:
        InputError: when it is not found, no probe, damaged, incomplete, or holds NaN or infinity.
    """
    folder = checkpoint_folder(str(id_or_path), revision)
    _require_probe(folder)
    try:
        probe: MambaProbe
        with no_transformers_bars():
            probe, info = MambaProbe.from_pretrained(
                folder,
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=True,
                use_safetensors=True,
            )
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} does not load as a probe: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            raise InputError(f"{folder}: {problem} in the weights: {sorted(info[problem])[:5]}")
    for name, value in probe.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{folder}: {name} holds NaN or infinity; the probe is damaged")
    probe.to(device or "cpu")
    probe.eval().requires_grad_(False)
    return probe


def _require_probe(folder: Path) -> None:
    model_type = read_object(folder / "config.json", "expected a probe").get("model_type")
    if model_type != MambaProbeConfig.model_type:
        raise InputError(
            f"{folder} holds a model of type {model_type!r}; expected a probe "
            f"({MambaProbeConfig.model_type!r}), as `selmem train` writes it"
        )
