"""What ``ragengine doctor`` finds: what is installed, what works, and why something does not."""

from ragengine.doctor.diagnose import diagnose
from ragengine.doctor.findings import Diagnosis, Finding, Section

__all__ = ["Diagnosis", "Finding", "Section", "diagnose"]
