"""Hard negatives: passages that the current encoder finds for a question and that do not answer it."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ragengine.arrays import FloatArray
from ragengine.indexing import training
from ragengine.indexing.plan import plan_index
from ragengine.retrieval.vector_index import VectorIndex
from ragengine.storage.atomic import replaced_file
from ragengine_train import processes
from ragengine_train.progress import Progress, TrainProgress

Negatives = dict[int, list[int]]
_PROBED = 64  # inverted lists, where the passages are so many that there are some
_MINED = 8  # kept for every positive, or as many as an item takes


def nearest(passages: FloatArray, questions: FloatArray, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows of the ``count`` passages [N, E] with the largest inner products, int64 [Q, count]; -1 for none.

    Searched as ragengine searches, with the index that it would choose for so many passages.  Of several
    processes each searches its :func:`share` of the passages, for all questions; rows are those of the whole.
    """
    vectors = passages.astype(np.float16)
    plan = plan_index(*vectors.shape)
    index = training.empty_faiss_index(plan.factory, vectors.shape[1])
    training.train(index, vectors, plan.factory, seed, None, lambda done, total: None)
    training.add(index, vectors, plan.factory, None, lambda done, total: None)
    norm = float(np.linalg.norm(vectors.astype(np.float32), axis=1).max())
    searcher = VectorIndex(index, vectors, norm, {})
    probed: dict[str, Any] = {} if searcher.exact else {"nprobe": _PROBED, "rerank_width": 4 * count}
    found = searcher.search(questions, count, **probed)
    return _best(processes.stack((found.rows, found.scores)))


def _best(parts: Sequence[tuple[NDArray[np.int64], FloatArray]]) -> NDArray[np.int64]:
    """The best rows [Q, K] of what each process found in its share: rows there and scores, both [Q, K]."""
    rows = np.concatenate(
        [np.where(own < 0, -1, own * len(parts) + number) for number, (own, _) in enumerate(parts)], axis=1
    )
    scores = np.concatenate([scores for _, scores in parts], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, : parts[0][0].shape[1]]
    best: NDArray[np.int64] = np.take_along_axis(rows, order, axis=1)
    return best


class NegativeTables:
    """Mined negatives by the step they were mined at, in a folder, so that a resumed run has the same."""

    def __init__(self, folder: Path, steps: Sequence[int]) -> None:
        self.folder, self.steps = folder, sorted(steps)
        self._tables = {step: self._read(step) for step in self.steps if self._path(step).exists()}

    def at(self, step: int) -> Negatives:
        """The negatives for the batches of ``step`` (counted from 0).

        The first batch of a step is loaded while the step before is computed, so a table mined after ``n``
        steps is used from step n + 1 on.
        """
        current = [mined for mined in self.steps if mined + (mined > 0) <= step]
        return self._tables.get(current[-1], {}) if current else {}

    def write(self, step: int, negatives: Negatives) -> None:
        """Keep what was mined after ``step`` steps; the file is whole or not there."""
        if processes.is_first():
            self._save(step, negatives)
        self._tables[step] = negatives

    def _save(self, step: int, negatives: Negatives) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = np.array([(row, other) for row, others in negatives.items() for other in others], np.int64)
        with replaced_file(self._path(step)) as file:
            np.save(file, rows.reshape(-1, 2), allow_pickle=False)

    def _path(self, step: int) -> Path:
        return self.folder / f"negatives-{step:06}.npy"

    def _read(self, step: int) -> Negatives:
        negatives: Negatives = {}
        for row, other in np.load(self._path(step), allow_pickle=False).tolist():
            negatives.setdefault(row, []).append(other)
        return negatives


class Mining(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Mines at the steps of ``tables``.

    ``encode(model)`` gives the vectors of this process's :func:`share` of the indexed passages [N, E], and of
    one question a positive [P, E].
    """

    def __init__(
        self,
        tables: NegativeTables,
        encode: Callable[[Any, int], tuple[FloatArray, FloatArray]],
        positives: Sequence[int],
        copy_of: Sequence[int],
        right: Sequence[set[int]],
        a_positive: int,
        progress: Progress,
    ) -> None:
        """``right``: the originals that answer a positive's questions; ``a_positive`` negatives are used."""
        self.kept = max(_MINED, a_positive)
        self.tables, self.encode, self.positives = tables, encode, positives
        self.copy_of, self.right, self.progress = copy_of, right, progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mine with the encoder that training starts from, where step 0 is one of the steps."""
        if state.global_step == 0:
            self.on_step_end(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mine after this step, if it is one of the steps."""
        step = state.global_step
        if step not in self.tables.steps:
            return
        passages, questions = self.encode(kwargs["model"], step)
        total = sum(processes.stack(len(passages)))
        self.tables.write(step, self._negatives(nearest(passages, questions, min(total, 2 * self.kept))))
        message = f"  {step}: hard negatives mined from {total:,} passages"
        self.progress(TrainProgress("encoders", message))

    def _negatives(self, found: NDArray[np.int64]) -> Negatives:
        """What was found without what is right, at most ``kept`` a positive."""
        negatives: Negatives = {}
        for positive, right, rows in zip(self.positives, self.right, found.tolist(), strict=True):
            wrong = [row for row in rows if row >= 0 and self.copy_of[row] not in right]
            negatives[positive] = wrong[: self.kept]
        return negatives


def one_question_each(asking: dict[int, list[int]], step: int, seed: int) -> list[int]:
    """For every positive one of its questions, another one at another step."""
    rng = random.Random(f"mine {seed} {step}")
    return [rng.choice(questions) for questions in asking.values()]
