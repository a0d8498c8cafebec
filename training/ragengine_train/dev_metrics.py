"""Figures on the dev questions, measured with ragengine itself."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragengine.engine import RagEngine
from ragengine.evaluation import measure, read_questions, report
from ragengine.evaluation.measured import means
from ragengine.evaluation.retrieval import retrieval_values
from ragengine.evaluation.statistics import Resampling
from ragengine.retrieval.retriever import Retriever
from ragengine_export import export_checkpoint
from ragengine_train.checkpoint import Parts, write_checkpoint
from ragengine_train.config import TrainConfig
from ragengine_train.data import Example, TrainingPassages, read_examples
from ragengine_train.processes import rejoin, share, worker_threads

RECALL_AT = 5
_BATCH = 64


def export_parts(parts: Parts, config: TrainConfig, checkpoint: Path, bundle: Path) -> None:
    """Write the RAG checkpoint of ``parts`` and its fp32 bundle."""
    write_checkpoint(parts, config.model, checkpoint)
    context_encoder = checkpoint / "context_encoder"
    export_checkpoint(checkpoint, bundle, context_encoder=context_encoder, check=False, force=True)


def measure_retrieval(bundle: Path, index: Path, dev: str | Path) -> dict[str, float]:
    """The retrieval figures of `ragengine eval` at 5, over all of ``dev`` that can be answered: ``n``."""
    questions = [question for question in read_questions(Path(dev)) if question.answerable]
    own = share(questions)
    values: list[dict[str, float]] = []
    with Retriever.load(bundle, index, verify="size", threads=worker_threads()) as retriever:
        for start in range(0, len(own), _BATCH):
            batch = own[start : start + _BATCH]
            vectors = retriever.encode(retriever.tokenize([one.question for one in batch]))
            found = retriever.search_vectors(vectors, RECALL_AT)
            values += [
                retrieval_values(question, documents, [RECALL_AT], RECALL_AT)
                for question, documents in zip(batch, found, strict=True)
            ]
    return {"n": float(len(questions))} | means(rejoin(values))


def measure_answers(bundle: Path, index: Path, config: TrainConfig) -> dict[str, float]:
    """`ragengine eval` of a sample of the dev questions, with the settings of `[model.generation]`."""
    assert config.data.dev is not None
    questions = sampled(read_questions(Path(config.data.dev)), config)
    options: dict[str, Any] = {"max_length": config.model.max_answer_length, **config.model.generation}
    with RagEngine.load(bundle, index=index, verify="size", threads=worker_threads()) as engine:
        measured = rejoin(measure(engine, share(questions), **options))
    found = report(measured, resampling=Resampling(0))
    return {"n": float(found.n)} | {name: value for name, value in found.figures.items() if value is not None}


def sampled(questions: Sequence[Any], config: TrainConfig) -> list[Any]:
    """``data.dev_questions`` of them, drawn with the seed, in their order."""
    count = min(config.data.dev_questions, len(questions))
    chosen = random.Random(f"dev {config.seed}").sample(range(len(questions)), count)
    return [questions[index] for index in sorted(chosen)]


def dev_examples(config: TrainConfig, corpus: TrainingPassages, *, needs_passage: bool) -> list[Example]:
    """The sample of the dev questions that have an answer, and a passage where it is needed."""
    if config.data.dev is None:
        return []
    known = [
        example
        for example in read_examples([config.data.dev], corpus)
        if example.answers and (example.passage is not None or not needs_passage)
    ]
    return sampled(known, config)
