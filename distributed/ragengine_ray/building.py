"""Building an index on a Ray cluster: passages are read and encoded in parts, which become one index."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray

from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.documents import DocumentFile
from ragengine.corpus.given import GivenPassages
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.sources import PathSource
from ragengine.errors import IndexFolderError, InputError, OptionsError, PassagesError, RagEngineError
from ragengine.indexing import resources
from ragengine.indexing.build import IndexBuild
from ragengine.indexing.build_state import BuildState
from ragengine.indexing.inputs import check_threads
from ragengine.indexing.partition import check_shards
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.sharded.train import check_divisible
from ragengine.indexing.vector_sources import VectorSource, encoder_origin, given_vectors, passage_encoder
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.manifest import FORMAT, IndexManifest
from ragengine.retrieval.sharding.manifest import FORMAT as SHARDS_FORMAT
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress, phase_report
from ragengine.storage.atomic import explained, held_folder, replaced_file
from ragengine.storage.folders import empty_workspace
from ragengine.storage.ownership import check_replaceable, marked
from ragengine.storage.strict_json import read_json
from ragengine_ray.encoding import EncoderSettings, encode_parts
from ragengine_ray.filling import build_shards, part_source
from ragengine_ray.parts import (
    Part,
    check_part,
    is_whole,
    plan_parts,
    read_passages,
    remove_part,
    remove_unfinished,
)
from ragengine_ray.reading import CountedSources, count_passages

PART_PASSAGES = 16384
_COUNTS = "counts.json"
_TASKS = 64  # at most, to count passages or to check parts
_HALF = 2  # bytes of a component
T = TypeVar("T")
R = TypeVar("R")


def build(
    passages: str | Path | Sequence[str | Path],
    index: str | Path,
    *,
    bundle: str | Path | Bundle,
    embeddings: str | Path | None = None,
    queries: str | Path | None = None,
    id_field: str | None = None,
    title_field: str | None = None,
    text_field: str | None = None,
    passage_words: int | None = None,
    overlap: int = 0,
    strict: bool = False,
    factory: str | None = None,
    recall: float = 0.95,
    seed: int = 0,
    resume: bool = False,
    force: bool = True,
    device: Device = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    actors: int = 2,
    num_cpus: float = 1,
    num_gpus: float = 0,
    part_passages: int = PART_PASSAGES,
    shards: int | None = None,
    fill_cpus: float = 1,
    progress: Progress | None = None,
    on_plan: Callable[[IndexPlan], object] | None = None,
) -> IndexManifest:
    """Build an index as :func:`ragengine.build_index` does, and encode the passages on a Ray cluster.

    Ray must be initialised for the cluster that shall work; else one is started on this machine.  Passages,
    bundle, embeddings and the folder of ``index`` must have the same paths on every machine.  The passages
    are read by Ray Data and encoded in parts, whose files are kept with their hashes beside ``index`` until
    it is whole: a part that is finished is not encoded again, whatever dies, and one that is damaged is made
    again.  FAISS is then trained where this is called.  Without ``shards`` it is filled there, too; with
    them, tasks of Ray fill the shards at once, a shard that is finished is kept, and they are gathered here.

    The files are those of a local build with the same settings where the encoder's batches are the same: with
    ``threads`` alike, a ``part_passages`` that 4096 divides, and passages of fewer than 4096 characters on
    average; those of each shard are what :func:`ragengine.shard_index` makes of that build.  The documents
    always are.

    Args:
        passages: a path or several, as for :func:`ragengine.build_index`.
        index: the folder to write.
        bundle: the bundle whose passage encoder makes the vectors.
        embeddings: a ``.npy`` of vectors, as for :func:`ragengine.build_index`.
        queries: a ``.npy`` of question vectors to measure the recall with.
        id_field: the column or JSON field of the ids.
        title_field: of the titles.
        text_field: of the texts.
        passage_words: words of a passage.
        overlap: words that a passage repeats of the one before it.
        strict: whether it is an error to leave a file out, or to find no text in a document.
        factory: a FAISS factory string.
        recall: the recall at 5 documents that an approximate index is tuned for.
        seed: draws the training sample and the questions of the recall test.
        resume: go on with a build of ``index`` that was killed or interrupted.
        force: False refuses to replace an index.
        device: where an actor encodes: auto, cpu or cuda.
        threads: threads of each actor, and of FAISS; all cores where None.
        batch_tokens: tokens that the encoder reads at once.
        actors: processes that encode.
        num_cpus: CPUs that Ray reserves for each.
        num_gpus: GPUs that Ray reserves for each.
        part_passages: passages of a part: what a kill may cost each actor.
        shards: write the index in so many shards.
        fill_cpus: CPUs that Ray reserves for each task that fills a shard, whose FAISS index it holds in
            memory; so many run at once as the cluster has CPUs for.
        progress: called with (phase, done, total), as by :func:`ragengine.build_index`; ``vectors`` begins
            with what is finished already.
        on_plan: called with the automatic choice of a factory.

    Returns:
        The manifest of the new index; a :class:`ShardsManifest` where it is in shards.

    Raises:
        RagEngineError: as :func:`ragengine.build_index`.
        OptionsError: ``actors``, ``part_passages``, ``num_cpus``, ``num_gpus`` or ``fill_cpus`` cannot be
            used.
        ProcessError: a task that fills a shard has died more often than Ray starts it again.
    """
    _check_whole(actors=actors, part_passages=part_passages)
    _check_numbers(num_cpus=num_cpus, num_gpus=num_gpus, fill_cpus=fill_cpus)
    check_threads(threads)
    if shards is not None:
        check_shards(shards)
    job = IndexBuild.checked(
        _absolute(passages),
        ReadingOptions(id_field, title_field, text_field, passage_words, overlap, strict),
        bundle,
        embeddings=embeddings,
        queries=queries,
        factory=factory,
        recall=recall,
        seed=seed,
        batch_tokens=batch_tokens,
    )
    if shards is not None:
        check_divisible(factory, job.dimension)
    sources = [source for source in job.corpus.sources if not isinstance(source, GivenPassages)]
    if job.corpus.given:
        raise InputError("A cluster reads passages from files; write them to a .jsonl and give its path.")
    given = given_vectors(job.corpus, embeddings, job.bundle.index_encoder)
    origin = given.name if given is not None else encoder_origin(passage_encoder(job.bundle))
    encoder = EncoderSettings(
        bundle=str(job.bundle.path.resolve()),
        origin=origin,
        embeddings=None if embeddings is None else str(Path(embeddings).resolve()),
        with_embeddings=given is not None and embeddings is None,
        device=device,
        threads=threads,
        batch_tokens=batch_tokens,
    )
    index = Path(index)
    if not ray.is_initialized():
        ray.init()
    format_name = FORMAT if shards is None else SHARDS_FORMAT
    with _workspace(index, format_name, force=force, resume=resume) as workspace:
        state = BuildState.open(
            workspace, job.settings(VectorSource(origin, _none)) | {"part passages": str(part_passages)}
        )
        counted = _counted(job.corpus, sources, workspace, progress)
        count = sum(counted.counts)
        state.save("passages")
        if count == 0:
            raise PassagesError(f"{job.corpus.name} has no passages; an index needs at least one.")
        if given is not None:
            given.check_count(count)
        job.check_count(count)
        job.check_room(index, count, texts=2 * job.corpus.bytes, memory=0)
        parts = plan_parts(count, part_passages)
        missing = _missing(workspace, parts)
        resources.check_disk(index, sum(part.count for part in missing) * job.dimension * _HALF)
        done = count - sum(part.count for part in missing)
        report = phase_report(progress, "vectors")
        report(done, count)
        for finished in encode_parts(
            counted, missing, workspace, encoder, actors=actors, num_cpus=num_cpus, num_gpus=num_gpus
        ):
            done += finished
            report(done, count)
        for part in parts:
            check_part(workspace, part, "size")
        stored = part_source(origin, workspace, parts, range(count))
        common: dict[str, Any] = {
            "resume": resume,
            "force": force,
            "threads": threads,
            "progress": progress,
            "on_plan": on_plan,
        }
        if shards is None:
            return job.run(index, read_passages(workspace, parts, range(count)), stored, **common)
        return build_shards(index, job, stored, workspace, parts, shards=shards, num_cpus=fill_cpus, **common)


def _absolute(passages: Any) -> Any:
    """``passages`` by paths that are right wherever a task runs; what is not paths is refused later."""
    if isinstance(passages, str | os.PathLike):
        return Path(passages).absolute()
    if isinstance(passages, list | tuple):
        return [_absolute(path) if isinstance(path, str | os.PathLike) else path for path in passages]
    return passages


def _check_whole(**numbers: int) -> None:
    for name, value in numbers.items():
        check_whole(name, value)


def _check_numbers(**numbers: float) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < float("inf"):
            raise OptionsError(f"{name} is {number!r:.80}; it must be a number of at least 0.")


@contextlib.contextmanager
def _workspace(index: Path, format_name: str, *, force: bool, resume: bool) -> Iterator[Path]:
    """A sibling of ``index`` for the parts, which this process locks; emptied when the block ends well."""
    real = Path(os.path.realpath(index))
    workspace = real.with_name(f".{real.name}.parts")
    try:
        check_replaceable(real, format_name, IndexFolderError, force=force or resume)
        real.parent.mkdir(parents=True, exist_ok=True)
        with held_folder(workspace), marked(workspace, IndexFolderError):
            if not resume:
                empty_workspace(workspace)
            remove_unfinished(workspace)
            yield workspace
            empty_workspace(workspace)
    except BlockingIOError as reason:
        raise IndexFolderError(
            f"{index} is being built by another process; wait for it or stop it."
        ) from reason
    except OSError as reason:
        raise IndexFolderError(
            f"{index} cannot be written: {explained(reason)}; the same call with resume goes on from here."
        ) from reason


def _counted(
    corpus: Corpus, sources: Sequence[PathSource], workspace: Path, progress: Progress | None
) -> CountedSources:
    """``sources``, those of ``corpus``, counted by tasks unless an earlier run has done it."""
    path = workspace / _COUNTS
    if path.exists():
        counts = read_json(path)
    else:
        report = phase_report(progress, "passages")
        counts = []
        for number in _in_tasks(count_passages, sources):
            counts.append(number)
            report(sum(counts), None)
        empty = zip(sources, counts, strict=True)
        corpus.say_empty([s.path for s, number in empty if number == 0 and isinstance(s, DocumentFile)])
        with replaced_file(path) as file:
            file.write(json.dumps(counts).encode())
    return CountedSources(sources, counts)


def _missing(workspace: Path, parts: Sequence[Part]) -> list[Part]:
    """The parts that are not finished; those that are damaged are removed."""
    there = [part for part in parts if part.folder(workspace).exists()]
    whole = {
        part
        for part, is_good in zip(there, _in_tasks(_check, [(workspace, part) for part in there]), strict=True)
        if is_good
    }
    for part in there:
        if part not in whole:
            remove_part(workspace, part)
    return [part for part in parts if part not in whole]


def _in_tasks(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """``work`` of each item in order, done by tasks of Ray; raises the first error of ragengine."""
    size = max(1, -(-len(items) // _TASKS))
    task = ray.remote(_all_of)
    tasks = [task.remote(work, items[start : start + size]) for start in range(0, len(items), size)]
    for done in tasks:
        found = ray.get(done)
        if isinstance(found, RagEngineError):
            raise found
        yield from found


def _all_of(work: Callable[[T], R], items: Sequence[T]) -> list[R] | RagEngineError:
    """Its errors are returned: Ray would change the message of an exception."""
    try:
        return [work(item) for item in items]
    except RagEngineError as error:
        return error


def _check(item: tuple[Path, Part]) -> bool:
    return is_whole(*item, "sha256")


def _none(pending: object) -> Iterator[Any]:
    return iter(())
