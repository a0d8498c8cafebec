"""Export of Hugging Face RAG checkpoints to ragengine bundles, and back."""

from ragengine.errors import DependencyError

try:
    from ragengine_export.export import ExportReport, export_checkpoint
    from ragengine_export.starter import starter_bundle
    from ragengine_export.unpack import UnpackReport, unpack_bundle
except ModuleNotFoundError as reason:
    raise DependencyError(
        f'Exporting needs the package {reason.name}; run pip install "ragengine[export]".'
    ) from reason

__all__ = ["ExportReport", "UnpackReport", "export_checkpoint", "starter_bundle", "unpack_bundle"]
