"""Measures what the state of a Mamba language model keeps of a text, and what it loses."""

from importlib.metadata import version

from transformers import AutoConfig, AutoModel

from selmem.bundle import bundled_path
from selmem.encoder import load_encoder, read_state
from selmem.probe import MambaProbe, MambaProbeConfig, MambaState

__version__ = version("selmem")

__all__ = [
    "MambaProbe",
    "MambaProbeConfig",
    "MambaState",
    "__version__",
    "bundled_path",
    "load_encoder",
    "read_state",
]

AutoConfig.register(MambaProbeConfig.model_type, MambaProbeConfig, exist_ok=True)
AutoModel.register(MambaProbeConfig, MambaProbe, exist_ok=True)
