"""Export of Hugging Face RAG checkpoints to ragengine bundles."""

from typing import TYPE_CHECKING

from ragengine.lazy_names import lazy_names

if TYPE_CHECKING:
    from ragengine_export.export import ExportReport, export_checkpoint

__all__ = ["ExportReport", "export_checkpoint"]

_MODULES = {"ExportReport": "export", "export_checkpoint": "export"}

__getattr__, __dir__ = lazy_names(__name__, _MODULES, "Exporting needs", "export")
