"""Building an index: passages in, a folder of texts, vectors and a FAISS index out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus, PassagesInput
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources, training
from ragengine.indexing.build_state import describe_files
from ragengine.indexing.factory import parse_factory
from ragengine.indexing.inputs import (
    check_threads,
    checked_recall,
    checked_seed,
    opened_bundle,
    read_queries,
)
from ragengine.indexing.plan import CHOSEN, IndexPlan, plan_index
from ragengine.indexing.vector_sources import (
    EmbeddingsInput,
    VectorSource,
    encoded_vectors,
    given_vectors,
)
from ragengine.indexing.writer import IndexWriter, draft_manifest
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_api import check_whole, import_faiss
from ragengine.retrieval.manifest import IndexManifest
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress
from ragengine.storage.foreign_files import checked_path
from ragengine.version import __version__


@dataclass(frozen=True)
class IndexBuild:
    """What an index is built from, checked; :meth:`run` writes it.

    ``embeddings`` and ``queries`` are files, if they came so; ``questions`` are those that ``queries`` holds,
    float32 [Q, E].
    """

    corpus: Corpus
    bundle: Bundle
    embeddings: Path | None
    queries: Path | None
    questions: FloatArray | None
    factory: str | None
    recall: float
    seed: int
    batch_tokens: int

    @classmethod
    def checked(
        cls,
        passages: PassagesInput,
        reading: ReadingOptions,
        bundle: str | Path | Bundle,
        *,
        embeddings: EmbeddingsInput | None,
        queries: str | Path | None,
        factory: str | None,
        recall: float,
        seed: int,
        batch_tokens: int,
    ) -> "IndexBuild":
        """Check what a caller gives; raises as :func:`build_index`."""
        recall, seed = checked_recall(recall), checked_seed(seed)
        check_whole("batch_tokens", batch_tokens)
        bundle, corpus = opened_bundle(bundle), Corpus.open(passages, reading)
        dimension = bundle.index_encoder.dimension
        questions = read_queries(queries, dimension)
        if factory is not None:
            # Refuses what cannot be made before hours are spent.
            training.empty_faiss_index(factory, dimension)
        return cls(
            corpus,
            bundle,
            Path(embeddings) if isinstance(embeddings, str | Path) else None,
            None if queries is None else Path(queries),
            questions,
            factory,
            recall,
            seed,
            batch_tokens,
        )

    @property
    def dimension(self) -> int:
        """E, the number of components of a vector."""
        return self.bundle.index_encoder.dimension

    def inputs(self, source: VectorSource, *, times: bool = True) -> dict[str, str]:
        """What passages and vectors depend on, by name; ``times`` as in :func:`describe_files`."""
        corpus, given = self.corpus, self.embeddings
        return {
            "passages": _described(*corpus.files, times=times) if corpus.files else corpus.name,
            "reading": str(corpus.options),
            "vectors": source.name + ("" if given is None else f" {_described(given, times=times)}"),
            "encoder": self.bundle.index_encoder.fingerprint,
            "batch tokens": str(self.batch_tokens),
            "faiss": import_faiss().__version__,
            "ragengine": __version__,
        }

    def settings(self, source: VectorSource) -> dict[str, str]:
        """What the result depends on, by name."""
        return {
            **self.inputs(source),
            "command": "build",
            "queries": "none" if self.queries is None else _described(self.queries),
            "factory": self.factory or "automatic",
            "recall": str(self.recall),
            "seed": str(self.seed),
        }

    def check_count(self, count: int) -> None:
        """Raise :class:`InputError` where the factory cannot learn from ``count`` vectors."""
        parse_factory(self.planned(count).factory, self.dimension).check_count(count)

    def check_room(self, index: Path, count: int, *, texts: int, memory: int) -> None:
        """As :func:`resources.check_room`."""
        factory = self.planned(count).factory
        resources.check_room(index, factory, count, self.dimension, texts=texts, memory=memory)

    def run(
        self,
        index: Path,
        passages: Iterable[Passage],
        source: VectorSource,
        *,
        resume: bool,
        force: bool,
        threads: int | None,
        progress: Progress | None,
        on_plan: Callable[[IndexPlan], object] | None,
    ) -> IndexManifest:
        """Write the index of ``passages``, those of the corpus, with the vectors of ``source``."""
        with IndexWriter.open(
            index, self.settings(source), resume=resume, force=force, threads=threads, progress=progress
        ) as writer:
            if not writer.finished:
                count = writer.write_passages(passages)
                if count == 0:
                    raise PassagesError(f"{self.corpus.name} has no passages; an index needs at least one.")
                source.check_count(count)
                self.check_count(count)
                plan = self.planned(count)
                if writer.rows == 0:
                    self.check_room(index, count, texts=0, memory=source.memory)
                writer.write_vectors(source, self.dimension)
                if self.factory is None and on_plan is not None:
                    on_plan(plan)
                writer.write_faiss(plan.factory, self.seed)
                created_from = {"passages": self.corpus.name, "vectors": source.name}
                draft = draft_manifest(self.bundle, plan, self.seed, created_from)
                writer.finish(draft, self.questions, self.recall)
        return IndexManifest.read(index)

    def planned(self, count: int) -> IndexPlan:
        """The factory for ``count`` vectors, the chosen or the automatic one."""
        if self.factory is None:
            return plan_index(count, self.dimension)
        return IndexPlan(self.factory, CHOSEN)


def build_index(
    passages: PassagesInput,
    index: str | Path,
    *,
    bundle: str | Path | Bundle,
    embeddings: EmbeddingsInput | None = None,
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
    progress: Progress | None = None,
    on_plan: Callable[[IndexPlan], object] | None = None,
) -> IndexManifest:
    """Build an index folder from passages, as ``ragengine index build`` does.

    The same input, settings, ``seed`` and number of threads give the same files.  An index at ``index`` is
    replaced when the new one is whole; anything else that is there is left alone.

    Args:
        passages: a path or a list of paths: a ``.tsv`` or ``.csv`` with a header, a ``.jsonl``, a
            ``.parquet``, a document (``.txt``, ``.md``, ``.html``, ``.pdf``, ``.docx``), a folder of such
            files, or a folder of ``datasets.Dataset.save_to_disk``; text formats may be gzipped.  Or an
            iterable of passages, read once: dicts with ``text`` and, if you like, ``title`` and ``id``, or
            documents.
        index: the folder to write.
        bundle: the bundle whose passage encoder makes the vectors.
        embeddings: a ``.npy`` of float32, float16 or bfloat16 [passages, E], in file order, instead of
            encoding; without one, the column ``embeddings`` of a datasets folder or Parquet file is taken if
            it has one.  Or a function ``embeddings(row)`` that yields the vectors from ``row`` on in blocks,
            float32 or float16 [rows, E], so that no file need hold them all; a resumed build calls it with
            the first row that is not stored, and trusts that the vectors are those of the first run.
        queries: a ``.npy`` of question vectors, of the same types [Q, E], to measure the recall with; without
            one, passages search for other passages.
        id_field: the column or JSON field of the ids; ``id``, else ``_id``, where None.
        title_field: of the titles; ``title`` where None.  A title that is missing is empty.
        text_field: of the texts; ``text`` where None.
        passage_words: words of a passage.  Where None, documents are split at 100, and rows of tables are not
            split.
        overlap: words that a passage repeats of the one before it in the same text.
        strict: whether it is an error to leave a file of a folder out, or to find no text in a document.
        factory: a FAISS factory string that takes inner products; without one, ``Flat`` below 50,000
            passages, then OPQ + IVF + PQ.
        recall: the recall at 5 documents that an approximate index is tuned for.
        seed: draws the training sample and the questions of the recall test.
        resume: go on with a build of ``index`` that was killed or interrupted.
        force: False refuses to replace an index, as the command does without ``--force``.
        device: where passages are encoded: auto, cpu or cuda.
        threads: threads to use; all cores where None.
        batch_tokens: tokens that the encoder reads at once.
        progress: called with (phase, done, total); total is None where it is not known.  Phases are
            passages, vectors, train, add, exact and tune.
        on_plan: called with the automatic choice of a factory: its ``factory`` and its ``reason``.

    Returns:
        The manifest of the new index.  Where ``recall`` was not reached, the best settings are kept and
        ``recall_reached`` is False.

    Raises:
        PassagesError: passages or embeddings cannot be read or do not fit each other.
        InputError: factory, recall, seed, batch_tokens, queries or how to read passages cannot be used, or
            ``resume`` is given with an iterable.
        BundleError: the bundle is not whole.
        IndexFolderError: the index cannot be written or resumed, or there is not enough memory or disk.
        DependencyError: a package that is needed is not installed.
    """
    check_threads(threads)
    index = checked_path(index, IndexFolderError)
    reading = ReadingOptions(id_field, title_field, text_field, passage_words, overlap, strict)
    job = IndexBuild.checked(
        passages,
        reading,
        bundle,
        embeddings=embeddings,
        queries=queries,
        factory=factory,
        recall=recall,
        seed=seed,
        batch_tokens=batch_tokens,
    )
    corpus = job.corpus
    if resume and corpus.given:
        raise InputError(
            "resume needs passages that can be read again; write them to a .jsonl, or build anew."
        )
    source = given_vectors(corpus, embeddings, job.bundle.index_encoder) or encoded_vectors(
        job.bundle, device=device, threads=threads, batch_tokens=batch_tokens
    )
    if source.count:  # where it is not the number of passages, reading them says so
        job.check_count(source.count)
    if not resume:  # a resumed build has written a part already, and soon knows the count
        job.check_room(index, source.count or corpus.estimate(), texts=corpus.bytes, memory=source.memory)
    return job.run(
        index,
        corpus.read(),
        source,
        resume=resume,
        force=force,
        threads=threads,
        progress=progress,
        on_plan=on_plan,
    )


def _described(*files: Path, times: bool = True) -> str:
    return describe_files([file.resolve() for file in files], times=times)
