"""The shards of an index, which tasks fill at once from the finished parts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ragengine.errors import IndexFolderError, ProcessError, RagEngineError
from ragengine.indexing import training
from ragengine.indexing.build import IndexBuild
from ragengine.indexing.build_state import BuildState
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.sharded.build_shard import write_shard
from ragengine.indexing.sharded.gather import check_shard, gather_shards
from ragengine.indexing.sharded.train import write_training
from ragengine.indexing.sharded.trained import FORMAT as TRAINING_FORMAT
from ragengine.indexing.sharded.trained import Training
from ragengine.indexing.vector_sources import VectorSource
from ragengine.indexing.writer import HOPELESS
from ragengine.messages import one_line
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.sharding.manifest import FORMAT, ShardsManifest, shard_folder
from ragengine.runtime.progress import Progress, phase_report
from ragengine.storage.folders import replaced_folder, resumable_folder
from ragengine.storage.ownership import TRAINING
from ragengine_ray.parts import Part, PartVectors, read_passages, read_vectors

_RETRIES = 3  # of a task whose process died
_ENDING_SECONDS = 30.0  # that the processes of tasks may take to end when they are no longer wanted


def build_shards(
    index: Path,
    job: IndexBuild,
    source: VectorSource,
    workspace: Path,
    parts: Sequence[Part],
    *,
    shards: int,
    num_cpus: float,
    resume: bool,
    force: bool,
    threads: int | None,
    progress: Progress | None,
    on_plan: Callable[[IndexPlan], object] | None,
) -> ShardsManifest:
    """Train with the vectors of all ``parts`` in ``workspace``, fill the shards and gather them."""
    count = parts[-1].stop

    def learn(faiss_index: Any, plan: IndexPlan) -> None:
        vectors: Any = PartVectors(workspace, parts, job.dimension)
        report = phase_report(progress, "train")
        training.train(faiss_index, vectors, plan.factory, job.seed, threads, report)

    settings = {**job.settings(source), "shards": str(shards)}
    with resumable_folder(
        index, FORMAT, IndexFolderError, resume=resume, hopeless=HOPELESS, force=force
    ) as folder:
        state = BuildState.open(folder, settings)
        if not state.checkpoint.finished:
            out = state.output
            if not (out / TRAINING).exists():
                with replaced_folder(out, TRAINING_FORMAT, IndexFolderError) as trained:
                    write_training(trained, job, source, count, learn, on_plan=on_plan)
                state.save("train")
            filling = _Filling(out, shards, job.inputs(source), source.name, workspace, parts, threads)
            report, done = phase_report(progress, "add"), 0
            report(0, count)
            for filled in _filled(filling, num_cpus):
                done += filled
                report(done, count)
            state.save("add")
            gather_shards(out, queries=job.queries, recall=job.recall, threads=threads, progress=progress)
            state.checkpoint.finished = True
            state.save("tune")
    return ShardsManifest.read(index)


def part_source(origin: str, workspace: Path, parts: Sequence[Part], rows: range) -> VectorSource:
    """The vectors of ``rows`` as a source, which come from ``origin``."""
    return VectorSource(
        origin,
        lambda pending: read_vectors(workspace, parts, range(rows.start + pending.done, rows.stop)),
        len(rows),
    )


@dataclass(frozen=True)
class _Filling:
    """What the tasks are told.

    out        the folder of the training and of the shards
    inputs     what passages and vectors depend on, by name
    origin     what the vectors come from
    workspace  the folder of the parts
    """

    out: Path
    shards: int
    inputs: Mapping[str, str]
    origin: str
    workspace: Path
    parts: Sequence[Part]
    threads: int | None


def _filled(filling: _Filling, num_cpus: float) -> Iterator[int]:
    """Fill the shards by tasks; yields the number of passages of each that is finished.

    When this ends, no task is left that writes.
    """
    task = ray.remote(num_cpus=num_cpus, max_retries=_RETRIES)(_fill)
    waiting = {task.remote(filling, number): number for number in range(filling.shards)}
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            found = _result(done, waiting.pop(done))
            if isinstance(found, RagEngineError):
                raise found
            yield found
    finally:
        for left in waiting:
            ray.cancel(left, force=True)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_ENDING_SECONDS)


def _result(done: Any, number: int) -> int | RagEngineError:
    try:
        found: int | RagEngineError = ray.get(done)
    except RayTaskError:
        raise  # an error of the program
    except RayError as reason:
        raise ProcessError(
            f"The processes that filled shard {number} have died {_RETRIES + 1} times "
            f"({one_line(reason):.300}); the same call with resume goes on."
        ) from reason
    return found


def _fill(filling: _Filling, number: int) -> int | RagEngineError:
    """Write a shard, unless it is there and whole; how many passages it has.

    Its error is returned: Ray would change the message of an exception.
    """
    try:
        out, trained = filling.out, Training.read(filling.out)
        rows = range(*trained.bounds(number, filling.shards))
        if rows and not _is_whole(out / shard_folder(number), trained, number, filling.shards):
            write_shard(
                out,
                trained,
                number,
                filling.shards,
                read_passages(filling.workspace, filling.parts, rows),
                part_source(filling.origin, filling.workspace, filling.parts, rows),
                inputs=filling.inputs,
                resume=True,
                force=True,
                threads=filling.threads,
                progress=None,
            )
    except RagEngineError as error:
        return error
    return len(rows)


def _is_whole(path: Path, trained: Training, number: int, shards: int) -> bool:
    """Whether a shard is there and undamaged."""
    try:
        check_shard(path, IndexManifest.read(path), trained, number, shards)
    except IndexFolderError:
        return False
    return True
