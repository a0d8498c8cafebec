"""Fitting how far answers can be trusted: what ``ragengine calibrate`` does."""

from ragengine.calibration.run import CalibrationReport, calibrate
from ragengine.evaluation.confidence import ConfidenceFigures

__all__ = ["CalibrationReport", "ConfidenceFigures", "calibrate"]
