"""Adding passages to an index, or replacing those with the same ids."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus, PassagesInput
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, PassagesError
from ragengine.indexing.changing import AnyOld, old_index, revise_index
from ragengine.indexing.inputs import check_threads, opened_bundle
from ragengine.indexing.passage_ids import shown_ids
from ragengine.indexing.revision import Addition, Revision
from ragengine.indexing.vector_sources import encoded_vectors, given_vectors
from ragengine.retrieval import history
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.manifest import IndexManifest
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress
from ragengine.storage.folders import remove_leftovers
from ragengine.storage.foreign_files import checked_path


def upsert_passages(
    index: str | Path,
    passages: PassagesInput,
    *,
    bundle: str | Path | Bundle,
    embeddings: str | Path | None = None,
    id_field: str | None = None,
    title_field: str | None = None,
    text_field: str | None = None,
    passage_words: int | None = None,
    overlap: int = 0,
    strict: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> IndexManifest:
    """Add passages to an index, each in the place of the one with its id, as ``ragengine index upsert`` does.

    A passage whose title and text are those of the one it replaces is not encoded again.  New and changed
    ones come behind all others.  The passages are held in memory.

    Args:
        index: the index folder; the new one takes its place when it is whole.
        passages: as for :func:`build_index`; each has an id.
        bundle: the bundle whose encoder made the index.
        embeddings: a ``.npy`` of float32, float16 or bfloat16 [passages, E], in file order, instead of
            encoding.
        id_field: as for :func:`build_index`, like the others up to ``strict``.
        title_field: the column or JSON field of the titles.
        text_field: the column or JSON field of the texts.
        passage_words: words of a passage.
        overlap: words that a passage repeats of the one before it.
        strict: whether it is an error to leave a file of a folder out.
        device: where passages are encoded: auto, cpu or cuda.
        threads: threads to use; all cores where None.
        batch_tokens: tokens that the encoder reads at once.
        progress: called with (phase, done, total), as by :func:`build_index`.

    Returns:
        The manifest of the index; the one that is there where nothing differs.

    Raises:
        PassagesError: there are no passages, one has no id or that of another one, or they or their
            embeddings cannot be used.
        InputError: ``batch_tokens`` or how to read passages cannot be used.
        BundleError: the bundle is not whole.
        IndexFolderError: the index is not whole or of another encoder, it cannot be written, or there is not
            enough memory or disk.
        DependencyError: a package that is needed is not installed.
    """
    check_whole("batch_tokens", batch_tokens)
    check_threads(threads)
    reading = ReadingOptions(id_field, title_field, text_field, passage_words, overlap, strict)
    bundle, corpus = opened_bundle(bundle), Corpus.open(passages, reading)
    given = _with_ids(corpus)
    index = checked_path(index, IndexFolderError)
    with old_index(index, bundle) as old:
        source = given_vectors(corpus, embeddings, bundle.index_encoder)
        gone, renewed, new = _compared(old, given, encoded=source is None)
        if not (gone or renewed or new):
            remove_leftovers(index, old.format, IndexFolderError)
            return old.manifest
        added = None
        if new:
            source = source or encoded_vectors(
                bundle, device=device, threads=threads, batch_tokens=batch_tokens
            )
            added = Addition(new, len(new), corpus.bytes, source)
        revision = Revision(
            "upsert",
            history.with_added(old.manifest.created_from, corpus.name),
            gone=np.array(sorted(gone), np.int64),
            renewed=renewed,
            added=added,
        )
        return revise_index(old, revision, threads, progress)


def _with_ids(corpus: Corpus) -> list[Passage]:
    """The passages, each with an id of its own."""
    given = list(corpus.read())
    if not given:
        raise PassagesError(f"There are no passages in {corpus.name}; give at least one.")
    for place, passage in enumerate(given):
        if passage.numbered:
            raise PassagesError(
                f"{corpus.name}: passage {place} has no id, so it can replace none; give each an id, or add "
                "them with ragengine index add."
            )
    if twice := [id for id, times in Counter(passage.id for passage in given).items() if times > 1]:
        raise PassagesError(
            f"{corpus.name}: several passages have the id {shown_ids(twice)}; give each an id of its own."
        )
    return given


def _compared(
    old: AnyOld, given: Sequence[Passage], *, encoded: bool
) -> tuple[list[int], dict[int, Passage], list[Passage]]:
    """Rows that go, rows of which something else than title and text changes, and the passages that are new.

    All are new where vectors came with them, which may be others than before.
    """
    rows_of = old.rows_of(passage.id for passage in given)
    gone: list[int] = []
    renewed: dict[int, Passage] = {}
    new: list[Passage] = []
    for passage in given:
        rows = rows_of.get(passage.id, [])
        before = old.fetch(rows[:1])[0] if rows else None
        if encoded and before and (before.title, before.text) == (passage.title, passage.text):
            gone += rows[1:]  # of an index whose ids were not each its own
            if before.metadata != passage.metadata:
                renewed[rows[0]] = passage
        else:
            gone += rows
            new.append(passage)
    return gone, renewed, new
