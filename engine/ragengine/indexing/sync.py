"""Making an index hold what a corpus holds now, without encoding again what it holds already."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing.changing import AnyOld, old_index, revise_index
from ragengine.indexing.inputs import check_threads, opened_bundle
from ragengine.indexing.matching import Digests, Matches, content_hash
from ragengine.indexing.revision import Addition, Revision
from ragengine.indexing.vector_sources import encoded_vectors
from ragengine.retrieval import history
from ragengine.retrieval.encoder import BATCH_TOKENS
from ragengine.retrieval.faiss_api import check_whole
from ragengine.retrieval.manifest import IndexManifest
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress
from ragengine.storage.folders import remove_leftovers
from ragengine.storage.foreign_files import checked_path


@dataclass(frozen=True)
class SyncResult:
    """What :func:`sync_index` changed, or would change.

    manifest   the manifest of the index now
    added      the ids of passages that are new; those without an id are called by their number in the corpus
    changed    the ids of passages whose title, text or metadata changed
    moved      the old and new ids of passages that say the same under another id
    deleted    the ids of passages that are not in the corpus any more
    unchanged  how many passages stay as they are
    encoded    how many passages were encoded, or would be
    """

    manifest: IndexManifest
    added: tuple[str, ...]
    changed: tuple[str, ...]
    moved: tuple[tuple[str, str], ...]
    deleted: tuple[str, ...]
    unchanged: int
    encoded: int


def sync_index(
    passages: str | Path | Sequence[str | Path],
    index: str | Path,
    *,
    bundle: str | Path | Bundle,
    dry_run: bool = False,
    force: bool = False,
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
) -> SyncResult:
    """Make an index hold what a folder holds now, as ``ragengine index sync`` does.

    A passage that the index has with the same title and text keeps its vector, whatever file it is in now;
    the others are encoded.  What the folder has no more is deleted.  Where nothing changed, nothing is
    written.

    Args:
        passages: the folder, or another path or paths that :func:`build_index` reads; they are read two or
            three times.
        index: the index folder that was built from it; the new one takes its place when it is whole.
        bundle: the bundle whose encoder made the index.
        dry_run: say what would change, and change nothing.
        force: also where the index holds passages of other origins, which are then deleted.
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
        What changed, by id.

    Raises:
        PassagesError: there are no passages, they cannot be read, or change while they are read.
        InputError: ``batch_tokens`` or how to read passages cannot be used, or these are not paths.
        BundleError: the bundle is not whole.
        IndexFolderError: the index is not whole, of another encoder or of other passages, it cannot be
            written, or there is not enough memory or disk.
        DependencyError: a package that is needed is not installed.
    """
    check_whole("batch_tokens", batch_tokens)
    check_threads(threads)
    reading = ReadingOptions(id_field, title_field, text_field, passage_words, overlap, strict)
    bundle, corpus = opened_bundle(bundle), Corpus.open(passages, reading)
    if corpus.given:
        raise InputError(
            "sync reads the passages several times, so it needs paths; give passages of a program to upsert."
        )
    index = checked_path(index, IndexFolderError)
    with old_index(index, bundle) as old:
        if not force:
            _check_origin(old, corpus.name)
        there = Digests(corpus.read())
        if not len(there):
            raise PassagesError(f"{corpus.name} has no passages; an index needs at least one.")
        matches = Matches.between(there, Digests(old.passages()))
        result, renewed = _described(old, corpus, matches)
        nothing = not (renewed or result.encoded or len(matches.gone))
        if dry_run:
            return result
        if nothing:
            remove_leftovers(index, old.format, IndexFolderError)
            return result
        added = None
        if result.encoded:
            source = encoded_vectors(bundle, device=device, threads=threads, batch_tokens=batch_tokens)
            added = Addition(_new_passages(corpus, there, matches), result.encoded, corpus.bytes, source)
        revision = Revision(
            "sync",
            history.with_synced(old.manifest.created_from, corpus.name),
            gone=matches.gone,
            renewed=renewed,
            added=added,
            fixed=0,
        )
        return dataclasses.replace(result, manifest=revise_index(old, revision, threads, progress))


def _check_origin(old: AnyOld, name: str) -> None:
    """Check that the index was built of what it is synchronised with, and nothing else."""
    origins = history.origins(old.manifest.created_from)
    if name == ", ".join(origins):  # several inputs, which came one after another
        return
    if others := [origin for origin in origins if origin != name]:
        raise IndexFolderError(
            f"{old.path} holds passages of {', '.join(others)}, which would be deleted; sync it with what it "
            "was built from, or delete them knowingly with --force."
        )


def _described(old: AnyOld, corpus: Corpus, matches: Matches) -> tuple[SyncResult, dict[int, Passage]]:
    """What changes, and the passages that rows become whose id or metadata change."""
    added: list[str] = []
    changed: list[str] = []
    moved: list[tuple[str, str]] = []
    renewed: dict[int, Passage] = {}
    unchanged = old.manifest.count - len(matches.gone)
    places = {*matches.renewed.tolist(), *np.flatnonzero(matches.row_of < 0).tolist()}
    another_text = set(matches.changed.tolist())
    replaced = set()
    for place, passage in enumerate(corpus.read() if places else ()):
        if place not in places:
            continue
        row = int(matches.row_of[place])
        if row < 0:
            (changed if place in another_text else added).append(passage.id)
            if place in another_text:
                replaced.add(passage.id)
            continue
        (before,) = old.fetch([row])
        id = before.id if passage.numbered else passage.id
        renewed[row] = dataclasses.replace(passage, id=id)
        if before.metadata != passage.metadata:
            changed.append(id)
        elif before.id != id:
            moved.append((before.id, id))
        else:
            continue  # only whether its id was given changed
        unchanged -= 1
    gone = (passage.id for passage in old.fetch(matches.gone.tolist()))
    result = SyncResult(
        manifest=old.manifest,
        added=tuple(added),
        changed=tuple(changed),
        moved=tuple(moved),
        deleted=tuple(id for id in gone if id not in replaced),
        unchanged=unchanged,
        encoded=int((matches.row_of < 0).sum()),
    )
    return result, renewed


def _new_passages(corpus: Corpus, there: Digests, matches: Matches) -> Iterator[Passage]:
    """The passages of the corpus that have no row, if it is still the one that was compared."""
    expected = there.content.tolist()
    same = 0
    for place, passage in enumerate(corpus.read()):
        if place >= len(expected) or list(content_hash(passage)) != expected[place]:
            break
        same += 1
        if matches.row_of[place] < 0:
            yield passage
    if same < len(expected):
        raise PassagesError(f"{corpus.name} changed while it was read; sync it again.")
