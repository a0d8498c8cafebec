"""What every writer of an index does last: tune the search, measure the recall, write the manifest."""

import dataclasses
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.passage import Passage
from ragengine.errors import InputError
from ragengine.indexing.tuning import tune
from ragengine.indexing.vector_sources import VectorFile
from ragengine.retrieval.faiss_api import faiss_threads, import_faiss
from ragengine.retrieval.manifest import (
    FORMAT,
    FORMAT_VERSION,
    QUERIES_FILE,
    IndexEncoder,
    IndexManifest,
    Tuning,
)
from ragengine.retrieval.recall import QUERIES, RECALL_AT, RecallTest
from ragengine.runtime.progress import Progress, Report, phase_report
from ragengine.storage import folders
from ragengine.storage.npy import open_vectors

_REPORT_EVERY = 1000


def tuned_manifest(
    folder: Path,
    draft: IndexManifest,
    faiss_index: Any,
    vectors: HalfArray,
    questions: FloatArray | None,
    target: float,
    threads: int | None = None,
    progress: Progress | None = None,
) -> IndexManifest:
    """``draft`` with search settings that reach ``target``, the recall measured and how; exact ones need
    none.

    Given ``questions`` are written into ``folder``, so that the recall can be measured again.
    """
    if isinstance(faiss_index, import_faiss().IndexFlat):
        return dataclasses.replace(draft, search={}, recall=1.0, tuning=None)
    report = phase_report(progress, "exact")
    with faiss_threads(threads):
        if questions is None:
            test = RecallTest.sample(vectors, seed=draft.seed, report=report)
        else:
            with VectorFile(folder / QUERIES_FILE, questions.shape, dtype=np.float32) as file:
                file.append(questions)
            test = RecallTest.of_questions(vectors, questions, report=report)
        report = phase_report(progress, "tune")
        tuned = tune(faiss_index, vectors, draft.max_norm, test, target, report)
    tuning = Tuning(
        target=target,
        n_docs=RECALL_AT,
        queries=len(test.rows),
        source="passages" if questions is None else "file",
        points=tuned.points,
    )
    return dataclasses.replace(
        draft,
        search=tuned.search,
        recall=tuned.recall,
        tuning=tuning,
        timings={**draft.timings, "search_ms": tuned.search_ms},
    )


def write_index_manifest(folder: Path, manifest: IndexManifest) -> None:
    """Write the manifest of an index whose files are all in ``folder``; their hashes are taken now."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    folders.write_manifest(folder, content)


def read_queries(path: Path, dimension: int) -> FloatArray:
    """Question vectors of a ``.npy`` file, float32 [Q, E]; the first 1000 where there are more."""
    queries = open_vectors(path, np.float32, InputError)
    if not len(queries) or queries.shape[1] != dimension:
        raise InputError(
            f"{path} holds vectors {list(queries.shape)}; one or more of {dimension} were expected."
        )
    questions = np.array(queries[:QUERIES])
    if not np.isfinite(questions).all():
        row = int(np.flatnonzero(~np.isfinite(questions).all(axis=1))[0])
        raise InputError(f"{path}: question vector {row} has NaN or infinite components; all must be finite.")
    return questions


def index_encoder(bundle: Bundle) -> IndexEncoder:
    """The encoder that an index made with ``bundle`` is bound to."""
    encoder = bundle.index_encoder
    has_passage_encoder = bundle.manifest.passage_encoder is not None
    return IndexEncoder(
        encoder.name, encoder.fingerprint, "passage_encoder" if has_passage_encoder else "question_encoder"
    )


def version() -> str:
    """This ragengine's version."""
    try:
        return importlib.metadata.version("ragengine")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def counted(passages: Iterator[Passage], report: Report) -> Iterator[Passage]:
    """``passages``, reported as they are read."""
    number = 0
    for number, passage in enumerate(passages, start=1):
        if number % _REPORT_EVERY == 0:
            report(number, None)
        yield passage
    report(number, number)
