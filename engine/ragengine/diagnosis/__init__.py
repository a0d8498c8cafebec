"""What ``ragengine doctor`` finds out: what is installed, what works, and why something does not."""

from ragengine.diagnosis.diagnose import diagnose
from ragengine.diagnosis.findings import Diagnosis, Finding, Section

__all__ = ["Diagnosis", "Finding", "Section", "diagnose"]
