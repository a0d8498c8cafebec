"""Export of Hugging Face RAG checkpoints to ragengine bundles, and back."""

from typing import TYPE_CHECKING

from ragengine.lazy_names import lazy_names

if TYPE_CHECKING:
    from ragengine_export.export import ExportReport, export_checkpoint
    from ragengine_export.starter import starter_bundle
    from ragengine_export.unpack import UnpackReport, unpack_bundle

__all__ = ["ExportReport", "UnpackReport", "export_checkpoint", "starter_bundle", "unpack_bundle"]

_MODULES = {
    "ExportReport": "export",
    "UnpackReport": "unpack",
    "export_checkpoint": "export",
    "starter_bundle": "starter",
    "unpack_bundle": "unpack",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES, "Exporting needs", "export")
