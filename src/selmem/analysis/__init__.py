"""From measured tables to rates with intervals, controls, tests and verdicts."""

from selmem.analysis.loading import load_measurement, load_measurements
from selmem.analysis.measurements import Measurement
from selmem.analysis.pipeline import analyse

__all__ = ["Measurement", "analyse", "load_measurement", "load_measurements"]
