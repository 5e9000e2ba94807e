"""Measuring: what a probe recovers of every chunk of every source, as tables."""

from selmem.measurement.config import MeasureConfig
from selmem.measurement.run import measure

__all__ = ["MeasureConfig", "measure"]
