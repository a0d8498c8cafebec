"""Retrieval-Augmented Generation (Lewis et al. 2020) from ONNX files."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# onnxruntime 1.29 and later report every session to their maker, on Linux too, and decide about it once, when
# imported.  ragengine talks to nobody: this comes before every import of onnxruntime by ragengine, and keeps
# a value that somebody has set (SECURITY.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from ragengine.bundle.bundle import Bundle
    from ragengine.calibration.run import CalibrationReport, calibrate
    from ragengine.engine import RagEngine
    from ragengine.errors import RagEngineError
    from ragengine.evaluation.report import Evaluation
    from ragengine.evaluation.run import evaluate
    from ragengine.generation.generator import Generator
    from ragengine.indexing.build import build_index
    from ragengine.indexing.import_index import import_index
    from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
    from ragengine.indexing.verify import verify_index
    from ragengine.options import GenerationOptions
    from ragengine.pipeline.prepared import PreparedQuestion
    from ragengine.pipeline.streaming import AnswerStream, AnswerToken
    from ragengine.replay import Record
    from ragengine.results import Answer, Citation, Document, Hypothesis
    from ragengine.retrieval.custom import DocumentSearcher
    from ragengine.retrieval.manifest import IndexManifest
    from ragengine.retrieval.retriever import Retriever
    from ragengine.runtime.cancellation import Stop
    from ragengine.version import __version__ as __version__

__all__ = [
    "Answer",
    "AnswerStream",
    "AnswerToken",
    "Bundle",
    "CalibrationReport",
    "Citation",
    "Document",
    "DocumentSearcher",
    "Evaluation",
    "GenerationOptions",
    "Generator",
    "Hypothesis",
    "IndexManifest",
    "PreparedQuestion",
    "RagEngine",
    "RagEngineError",
    "Record",
    "Retriever",
    "Stop",
    "add_passages",
    "build_index",
    "calibrate",
    "delete_passages",
    "evaluate",
    "import_index",
    "merge_indexes",
    "verify_index",
]

# Imported on first use: `ragengine --help` must not wait for onnxruntime, nor fail where it is missing.
_MODULES = {
    "Answer": "results",
    "AnswerStream": "pipeline.streaming",
    "AnswerToken": "pipeline.streaming",
    "Bundle": "bundle.bundle",
    "CalibrationReport": "calibration.run",
    "Citation": "results",
    "Document": "results",
    "DocumentSearcher": "retrieval.custom",
    "Evaluation": "evaluation.report",
    "GenerationOptions": "options",
    "Generator": "generation.generator",
    "Hypothesis": "results",
    "IndexManifest": "retrieval.manifest",
    "PreparedQuestion": "pipeline.prepared",
    "RagEngine": "engine",
    "RagEngineError": "errors",
    "Record": "replay",
    "Retriever": "retrieval.retriever",
    "Stop": "runtime.cancellation",
    "__version__": "version",
    "add_passages": "indexing.update",
    "build_index": "indexing.build",
    "calibrate": "calibration.run",
    "delete_passages": "indexing.update",
    "evaluate": "evaluation.run",
    "import_index": "indexing.import_index",
    "merge_indexes": "indexing.update",
    "verify_index": "indexing.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
