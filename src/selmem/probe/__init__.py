"""The probe: what is copied, as it is, into a model repository on the Hub."""

from .configuration_mamba_probe import MambaProbeConfig
from .mamba_backbone import MambaBackbone
from .mamba_state import MambaState
from .modeling_mamba_probe import MambaLanguageModel, MambaProbe, MambaProbeOutput

__all__ = [
    "MambaBackbone",
    "MambaLanguageModel",
    "MambaProbe",
    "MambaProbeConfig",
    "MambaProbeOutput",
    "MambaState",
]
