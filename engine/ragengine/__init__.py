"""Retrieval-Augmented Generation (Lewis et al. 2020) from ONNX files."""

from ragengine.bundle import Bundle
from ragengine.engine import RagEngine
from ragengine.errors import RagEngineError
from ragengine.generation import Generator
from ragengine.options import GenerationOptions
from ragengine.results import Answer, Document, Hypothesis
from ragengine.retrieval import Retriever

__all__ = [
    "Answer",
    "Bundle",
    "Document",
    "GenerationOptions",
    "Generator",
    "Hypothesis",
    "RagEngine",
    "RagEngineError",
    "Retriever",
]
