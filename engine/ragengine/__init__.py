"""Retrieval-Augmented Generation (Lewis et al. 2020) from ONNX files."""

import os
from typing import TYPE_CHECKING

from ragengine.lazy_names import lazy_names

# onnxruntime 1.29 and later report every session to their maker, on Linux too, and decide about it once, when
# imported.  ragengine talks to nobody: this comes before every import of onnxruntime by ragengine, and keeps
# a value that somebody has set (SECURITY.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from ragengine.batch_inference.run import AnsweredFile, answer_file
    from ragengine.bundle.bundle import Bundle
    from ragengine.calibration.run import CalibrationReport, calibrate
    from ragengine.doctor import diagnose
    from ragengine.engine import RagEngine
    from ragengine.errors import RagEngineError
    from ragengine.evaluation.report import Evaluation
    from ragengine.evaluation.run import evaluate
    from ragengine.generation.generator import Generator
    from ragengine.indexing.build import build_index
    from ragengine.indexing.compact import compact_index
    from ragengine.indexing.import_index import import_index
    from ragengine.indexing.shard import shard_index
    from ragengine.indexing.shard_addresses import set_shard_addresses
    from ragengine.indexing.sharded.build_shard import build_shard
    from ragengine.indexing.sharded.gather import gather_shards
    from ragengine.indexing.sharded.train import train_quantizer
    from ragengine.indexing.sync import SyncResult, sync_index
    from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
    from ragengine.indexing.upsert import upsert_passages
    from ragengine.indexing.verify import verify_index
    from ragengine.options import GenerationOptions
    from ragengine.pipeline.prepared import PreparedQuestion
    from ragengine.pipeline.streaming import AnswerStream, AnswerToken
    from ragengine.replay import Record
    from ragengine.results import Answer, Citation, Document, Hypothesis
    from ragengine.retrieval.custom import DocumentSearcher
    from ragengine.retrieval.listing import list_passages, show_passages
    from ragengine.retrieval.manifest import IndexManifest
    from ragengine.retrieval.retriever import Retriever
    from ragengine.retrieval.sharding.remote.options import RemoteOptions
    from ragengine.runtime.cancellation import Stop
    from ragengine.version import __version__ as __version__

__all__ = [
    "Answer",
    "AnswerStream",
    "AnswerToken",
    "AnsweredFile",
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
    "RemoteOptions",
    "Retriever",
    "Stop",
    "SyncResult",
    "add_passages",
    "answer_file",
    "build_index",
    "build_shard",
    "calibrate",
    "compact_index",
    "delete_passages",
    "diagnose",
    "evaluate",
    "gather_shards",
    "import_index",
    "list_passages",
    "merge_indexes",
    "set_shard_addresses",
    "shard_index",
    "show_passages",
    "sync_index",
    "train_quantizer",
    "upsert_passages",
    "verify_index",
]

_MODULES = {
    "Answer": "results",
    "AnswerStream": "pipeline.streaming",
    "AnswerToken": "pipeline.streaming",
    "AnsweredFile": "batch_inference.run",
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
    "RemoteOptions": "retrieval.sharding.remote.options",
    "Retriever": "retrieval.retriever",
    "Stop": "runtime.cancellation",
    "SyncResult": "indexing.sync",
    "__version__": "version",
    "add_passages": "indexing.update",
    "answer_file": "batch_inference.run",
    "build_index": "indexing.build",
    "build_shard": "indexing.sharded.build_shard",
    "calibrate": "calibration.run",
    "compact_index": "indexing.compact",
    "delete_passages": "indexing.update",
    "diagnose": "doctor",
    "evaluate": "evaluation.run",
    "gather_shards": "indexing.sharded.gather",
    "import_index": "indexing.import_index",
    "list_passages": "retrieval.listing",
    "merge_indexes": "indexing.update",
    "set_shard_addresses": "indexing.shard_addresses",
    "shard_index": "indexing.shard",
    "show_passages": "retrieval.listing",
    "sync_index": "indexing.sync",
    "train_quantizer": "indexing.sharded.train",
    "upsert_passages": "indexing.upsert",
    "verify_index": "indexing.verify",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
