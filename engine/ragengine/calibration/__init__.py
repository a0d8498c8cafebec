"""Fitting how far answers can be trusted: what ``ragengine calibrate`` does."""

from ragengine.calibration.figures import ConfidenceFigures
from ragengine.calibration.run import CalibrationReport, calibrate

__all__ = ["CalibrationReport", "ConfidenceFigures", "calibrate"]
