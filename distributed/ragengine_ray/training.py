"""`ragengine train` in the workers of Ray Train."""

from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from torch import distributed

from ragengine.cli.output import echo
from ragengine.errors import OptionsError, ProcessError, RagEngineError
from ragengine.messages import one_line
from ragengine_ray.retrieval import ActorIndex, start_searchers
from ragengine_ray.shard_actors import ShardActorIndex, ShardActors
from ragengine_train import TrainProgress, TrainResult, read_config
from ragengine_train import train as train_processes
from ragengine_train.choices import ResultName
from ragengine_train.json_files import read_json
from ragengine_train.processes import OtherProcessError
from ragengine_train.report import REPORT, train_result

_LONGEST_WAIT_SECONDS = 7 * 86400  # while the first worker builds an index


class _Run:
    """What outlives the workers: whether the run has begun, and the error that ends it."""

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._error: RagEngineError | None = None

    def begin(self, rank: int) -> tuple[bool, bool]:
        """Whether a worker of this rank begins for the first time, and whether the run has failed."""
        is_new = rank not in self._begun
        self._begun.add(rank)
        return is_new, self._error is not None

    def fail(self, error: RagEngineError) -> None:
        """Keep the first error."""
        self._error = self._error or error

    def error(self) -> RagEngineError | None:
        """The error that was kept."""
        return self._error


def train(
    config: str | Path,
    *,
    workers: int = 2,
    use_gpu: bool = False,
    resources_per_worker: dict[str, float] | None = None,
    max_failures: int = 3,
    retrieval_actors: int = 0,
    retrieval_shards: int = 0,
    start: ResultName | None = None,
    fresh: bool = False,
    threads: int | None = None,
) -> TrainResult:
    """Train as :func:`ragengine_train.train` does, in several workers of Ray Train.

    Ray must be initialised for the cluster that shall work; else one is started on this machine.  When a
    worker is lost, all of them are started again and go on from the last checkpoint.

    Args:
        config: the TOML file.  Its files and its ``output`` must have the same paths on every machine.
        workers: processes that train; the batch of a step is that of one times ``workers``.
        use_gpu: whether each worker has a GPU.
        resources_per_worker: what Ray reserves for a worker, by default 1 CPU or 1 GPU.
        max_failures: how often lost workers are started again.
        retrieval_actors: actors that search the index in `[joint]`; with 0, each worker maps it itself.
        retrieval_shards: instead, actors that each search a shard of that index: none holds it whole.
        start: make this result and what follows again.
        fresh: start over.
        threads: threads torch may use in each worker.

    Returns:
        The result of the run, which the first worker has written.

    Raises:
        RagEngineError: that of :func:`ragengine_train.train` in a worker.
        OptionsError: an argument is wrong.
        ProcessError: workers were lost more than ``max_failures`` times, or Ray cannot start them.
    """
    for name, value, least in (
        ("workers", workers, 1),
        ("max_failures", max_failures, 0),
        ("retrieval_actors", retrieval_actors, 0),
        ("retrieval_shards", retrieval_shards, 0),
    ):
        if type(value) is not int or value < least:
            raise OptionsError(f"{name} is {value!r}; it must be a whole number of at least {least}.")
    if retrieval_actors and retrieval_shards:
        raise OptionsError(
            f"retrieval_actors is {retrieval_actors} and retrieval_shards is {retrieval_shards}; give one of "
            "them."
        )
    path = Path(config).resolve()
    output = read_config(path).output
    if not ray.is_initialized():
        ray.init()
    run = ray.remote(num_cpus=0)(_Run).remote()
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "run": run,
            "searchers": start_searchers(retrieval_actors),
            "shards": ShardActors(retrieval_shards) if retrieval_shards else None,
            "config": str(path),
            "options": {"start": start, "fresh": fresh, "threads": threads},
        },
        torch_config=TorchConfig(timeout_s=_LONGEST_WAIT_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker=resources_per_worker
        ),
        run_config=RunConfig(
            storage_path=str(output / "ray"), failure_config=FailureConfig(max_failures=max_failures)
        ),
    )
    lost: Exception | None = None
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as reason:
        lost = reason
    if (error := ray.get(run.error.remote())) is not None:
        raise error
    if lost is not None:
        raise ProcessError(
            f"The training of {path} has lost its workers ({one_line(lost):.300}); call it again to go on."
        ) from lost
    return train_result(output, read_json(output / REPORT))


def _work(settings: dict[str, Any]) -> None:
    """One worker: a process that Ray has connected to the others."""
    run, searchers, shards = settings["run"], settings["searchers"], settings["shards"]
    options = dict(settings["options"])
    rank = get_context().get_world_rank()
    is_new, has_failed = ray.get(run.begin.remote(rank))
    if has_failed:
        return
    if not is_new:  # workers were lost: what they made since stays
        options |= {"start": None, "fresh": False}

    def open_index(index: Path, n_docs: int) -> ActorIndex | ShardActorIndex:
        if shards is not None:
            return ShardActorIndex(shards, index, n_docs)
        return ActorIndex(searchers, rank, index, n_docs)

    try:
        train_processes(
            settings["config"],
            progress=_print,
            open_index=open_index if searchers or shards else None,
            **options,
        )
    except OtherProcessError:
        raise
    except RagEngineError as error:
        ray.get(run.fail.remote(error))  # it would fail again: nothing is to be started again
        distributed.destroy_process_group()


def _print(report: TrainProgress) -> None:
    """Not by `print`, which Ray Train writes twice."""
    echo(report.message, err=True)
