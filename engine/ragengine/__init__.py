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
    from ragengine.engine import RagEngine
    from ragengine.errors import RagEngineError
    from ragengine.evaluation.report import Evaluation
    from ragengine.evaluation.run import evaluate
    from ragengine.generation.generator import Generator
    from ragengine.options import GenerationOptions
    from ragengine.pipeline.streaming import AnswerStream, AnswerToken
    from ragengine.replay import Record
    from ragengine.results import Answer, Document, Hypothesis
    from ragengine.retrieval.retriever import Retriever
    from ragengine.runtime.cancellation import Stop
    from ragengine.version import __version__ as __version__

__all__ = [
    "Answer",
    "AnswerStream",
    "AnswerToken",
    "Bundle",
    "Document",
    "Evaluation",
    "GenerationOptions",
    "Generator",
    "Hypothesis",
    "RagEngine",
    "RagEngineError",
    "Record",
    "Retriever",
    "Stop",
    "evaluate",
]

# Found when they are first used: `ragengine --help` and a missing onnxruntime's error message must not
# wait for, or fail at, importing onnxruntime.
_MODULES = {
    "Answer": "results",
    "AnswerStream": "pipeline.streaming",
    "AnswerToken": "pipeline.streaming",
    "Bundle": "bundle.bundle",
    "Document": "results",
    "Evaluation": "evaluation.report",
    "GenerationOptions": "options",
    "Generator": "generation.generator",
    "Hypothesis": "results",
    "RagEngine": "engine",
    "RagEngineError": "errors",
    "Record": "replay",
    "Retriever": "retrieval.retriever",
    "Stop": "runtime.cancellation",
    "__version__": "version",
    "evaluate": "evaluation.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
