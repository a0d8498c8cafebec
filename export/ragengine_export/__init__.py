"""Export of Hugging Face RAG checkpoints to ragengine bundles."""

from ragengine.errors import DependencyError

try:
    from ragengine_export.export import ExportReport, export_checkpoint
except ModuleNotFoundError as reason:
    raise DependencyError(
        f'Exporting needs the package {reason.name}; run pip install "ragengine[export]".'
    ) from reason

__all__ = ["ExportReport", "export_checkpoint"]
