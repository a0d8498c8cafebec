"""Importing indexes: passages and a FAISS file of another program in, an ordinary index out.

It reads Hugging Face's custom index (``RagRetriever``'s ``passages_path`` and ``index_path``), DPR's files (a
TSV and an HNSW file with an auxiliary dimension) and any FAISS file over a passage file.  A pickle beside
them (DPR's ``index_meta.dpr``, the legacy ``psgs_w100.tsv.pkl``) is never read: it can run any code.
"""

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.delimited import is_header
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing import resources
from ragengine.indexing.factory import parse_factory
from ragengine.indexing.foreign_index import ForeignIndex
from ragengine.indexing.inputs import (
    check_threads,
    checked_recall,
    checked_seed,
    opened_bundle,
    read_queries,
    shown_name,
)
from ragengine.indexing.plan import IndexPlan, plan_index
from ragengine.indexing.vector_sources import comparable_vectors, given_vectors
from ragengine.indexing.writer import IndexWriter, draft_manifest
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.retrieval.recall import sample_rows
from ragengine.runtime.progress import Progress
from ragengine.storage.foreign_files import checked_path, file_mode, read_plain, shown_path, utf8_lines, why
from ragengine.storage.strict_json import read_json

# What `RagRetriever.save_pretrained` calls the two parts of a custom index.
_SAVED_PASSAGES, _SAVED_FAISS = "hf_dataset", "hf_dataset_index.faiss"
_SAVED_CONFIG = "config.json"
_SCRATCH_FILE = "scratch.sqlite"
_ROWS_TOGETHER = 4096
_MOST_ID_BYTES = 1 << 30


def import_index(
    source: str | Path,
    index: str | Path,
    *,
    bundle: str | Path | Bundle,
    faiss: str | Path | None = None,
    embeddings: str | Path | None = None,
    ids: str | Path | None = None,
    queries: str | Path | None = None,
    id_field: str | None = None,
    title_field: str | None = None,
    text_field: str | None = None,
    factory: str | None = None,
    recall: float = 0.95,
    seed: int = 0,
    force: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[IndexPlan], object] | None = None,
) -> IndexManifest:
    """Make an index folder of passages and a FAISS file that another program wrote.

    It is ``ragengine index import``.  The stored vectors are ``embeddings`` where given, else the column
    ``embeddings`` of a datasets folder, which transformers takes its ``doc_scores`` from, else those in the
    FAISS file.  They are kept as fp16.  A FAISS structure that searches by inner product is kept, and its
    settings are tuned; another one is built again.  The FAISS file is read into memory.

    Args:
        source: passages as :func:`build_index` reads them, or a folder of ``RagRetriever.save_pretrained``,
            which has the FAISS file, too, or a ``config.json`` that names both.
        index: the folder to write; an index that is there is replaced when the new one is whole.
        bundle: the bundle of the encoder that made the vectors, which nothing in the files can tell.
        faiss: the FAISS file; its row i is the i-th passage, unless ``ids`` says otherwise.
        embeddings: a ``.npy`` of float32, float16 or bfloat16 [passages, E], in the order of the FAISS file.
        ids: passage ids in the order of the FAISS file: a JSON list, or a text file with an id in the first
            column of each line.
        queries: a ``.npy`` of question vectors, of the same types [Q, E], to measure the recall with.
        id_field: the column or JSON field of the ids, as for :func:`build_index`.
        title_field: the column or JSON field of the titles.
        text_field: the column or JSON field of the texts.
        factory: a FAISS factory string of an index to build instead of keeping the structure.
        recall: the recall at 5 documents that an approximate index is tuned for.
        seed: draws the training sample and the questions of the recall test.
        force: False refuses to replace an index, as the command does without ``--force``.
        threads: threads to use; all cores where None.
        progress: called with (phase, done, total), as by :func:`build_index`.
        on_plan: called with the ``factory`` of the new index and the ``reason`` for it.

    Returns:
        The manifest of the new index.

    Raises:
        PassagesError: passages, vectors, ids or FAISS file cannot be used or do not fit each other.
        InputError: a setting cannot be used, or there is no FAISS file.
        BundleError: the bundle is not whole.
        IndexFolderError: the index cannot be written, or there is not enough memory or disk.
        DependencyError: a package that is needed is not installed.
    """
    recall, seed = checked_recall(recall), checked_seed(seed)
    check_threads(threads)
    bundle, index = opened_bundle(bundle), checked_path(index, IndexFolderError)
    passages, faiss_path = _located(checked_path(source, PassagesError), faiss)
    corpus = Corpus.open(passages, ReadingOptions(id_field, title_field, text_field))
    dimension = bundle.index_encoder.dimension
    questions = read_queries(queries, dimension)
    foreign = ForeignIndex(faiss_path, dimension)
    encoder = bundle.index_encoder
    vectors_from = given_vectors(corpus, embeddings, encoder) or comparable_vectors(
        foreign.vector_source(), encoder
    )
    vectors_from.check_count(foreign.count)
    kept = foreign.factory() if factory is None else None
    plan = _plan(foreign, kept, factory)
    if kept is None:
        parse_factory(plan.factory, dimension).check_count(foreign.count)
    resources.check_room(
        index,
        plan.factory,
        foreign.count,
        dimension,
        texts=2 * corpus.bytes,
        memory=foreign.path.stat().st_size + vectors_from.memory,
    )
    if on_plan is not None:
        on_plan(plan)
    with IndexWriter.open(
        index, {"command": "import"}, force=force, threads=threads, progress=progress
    ) as writer:
        _write_passages(writer, corpus, None if ids is None else Path(ids), foreign.count)
        vectors = writer.write_vectors(vectors_from, dimension)
        foreign.check_agrees(vectors, sample_rows(foreign.count, seed))
        writer.write_faiss(plan.factory, seed, None if kept is None else foreign.structure())
        created_from = {
            "passages": shown_name(passages),
            "faiss": shown_name(faiss_path),
            "vectors": vectors_from.name,
        }
        writer.finish(draft_manifest(bundle, plan, seed, created_from), questions, recall)
    return IndexManifest.read(index)


def _located(source: Path, faiss: str | Path | None) -> tuple[Path, Path]:
    """The passages and the FAISS file, where they are not given: those that ``RagRetriever`` saved.

    Its ``save_pretrained`` writes each into its folder, unless it had read it from a path: then the saved
    configuration names that path.
    """
    if faiss is not None:
        return source, checked_path(faiss, InputError)
    passages, index = source / _SAVED_PASSAGES, source / _SAVED_FAISS
    try:
        there = file_mode(passages), file_mode(index)
        named = {} if all(there) else _saved_config(source / _SAVED_CONFIG)
        if not there[0]:
            passages = checked_path(named.get("passages_path", passages), InputError)
        if not there[1]:
            index = checked_path(named.get("index_path", index), InputError)
        missing = [path for path in (passages, index) if not file_mode(path)]
    except OSError as reason:
        raise InputError(f"{shown_path(source)} cannot be read: {why(reason)}.") from reason
    if not missing:
        return passages, index
    raise InputError(
        f"{shown_path(source)} has no {_SAVED_PASSAGES} and {_SAVED_FAISS}, or {_SAVED_CONFIG} that names "
        f"both, as RagRetriever.save_pretrained writes them ({shown_path(missing[0])} is missing); give the "
        "passages, and the FAISS file with --faiss, or, where there is none, use ragengine index build."
    )


def _saved_config(path: Path) -> dict[str, str]:
    """The texts in the configuration that a retriever saved; none where it cannot be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    found = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in found if value and isinstance(value, str)}


def _plan(foreign: ForeignIndex, kept: str | None, factory: str | None) -> IndexPlan:
    """The factory of the new index, and why it is this one."""
    if factory is not None:
        return IndexPlan(factory, "chosen by the user; the FAISS structure of the source was not kept")
    if kept is not None:
        return IndexPlan(kept, f"the FAISS structure of {shown_name(foreign.path)} was kept")
    plan = plan_index(foreign.count, foreign.dimension)
    if foreign.has_auxiliary:
        why = "searches by L2 distance with DPR's auxiliary dimension, which was dropped"
    elif not foreign.inner_product:
        why = "searches by another metric than inner product, and may find other passages"
    else:
        why = "keeps nothing but vectors, or cannot be kept"
    return IndexPlan(plan.factory, f"built again, as {shown_name(foreign.path)} {why}; {plan.reason}")


def _write_passages(writer: IndexWriter, corpus: Corpus, ids: Path | None, count: int) -> None:
    """Write the passages in the order of the FAISS file, ``count`` of them."""
    if ids is None:
        found = writer.write_passages(corpus.read())
    else:
        scratch = writer.workspace / _SCRATCH_FILE
        write_passages(scratch, writer.counted(corpus.read()))
        store = PassageStore(scratch)
        try:
            found = writer.write_passages(_in_order(store, ids))
        finally:
            store.close()
            scratch.unlink()
    if found != count:
        there = f"{found} passages" if ids is None else f"{found} ids in {ids}"
        raise PassagesError(
            f"The FAISS file has {count} vectors for {there}; give one passage a vector, in its order."
        )


def _in_order(store: PassageStore, ids: Path) -> Iterator[Passage]:
    """The passages in the order of ``ids``, which names each once.

    All ids are held in memory, about 150 bytes a passage.
    """
    row_of: dict[str, int] = {}
    for row, passage in enumerate(chain.from_iterable(store.blocks(_ROWS_TOGETHER))):
        if row_of.setdefault(passage.id, row) != row:
            raise PassagesError(
                f"Several passages have the id {passage.id!r}, so {ids} is ambiguous; "
                "give each passage a different id."
            )
    taken = np.zeros(store.count, bool)
    for id in read_ids(ids):
        row = row_of.get(id, -1)
        if row < 0 or taken[row]:
            reason = "which is not in the passages" if row < 0 else "more than once"
            raise PassagesError(
                f"{ids} names the passage {id!r}, {reason}; give the id of each vector's passage."
            )
        taken[row] = True
        yield store.fetch([row])[0]


def read_ids(path: Path) -> Iterator[str]:
    """Passage ids in the order of a FAISS file: a ``.json`` list, or the first column of each line of a text.

    A first line whose first column is ``id`` is a header.  Raises :class:`PassagesError`.
    """
    if path.suffix.lower() != ".json":
        for number, line in enumerate(utf8_lines(path, PassagesError)):
            fields = line.rstrip("\r\n").split("\t")
            id = fields[0]
            if id and (number or id != "id") and not is_header(fields):  # again where files were joined
                yield id
        return
    try:
        ids = json.loads(read_plain(path, _MOST_ID_BYTES, links=True))
    except (OSError, ValueError, RecursionError) as reason:
        raise PassagesError(f"{path} cannot be read as JSON: {why(reason)}.") from reason
    if not isinstance(ids, list) or not all(type(id) in (str, int) for id in ids):
        raise PassagesError(f"{path} is not a JSON list of passage ids (strings or whole numbers).")
    yield from map(str, ids)
