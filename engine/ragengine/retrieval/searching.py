"""One search of whatever a retriever has, as the stages of a call make it."""

import contextlib
from dataclasses import dataclass

from ragengine.arrays import FloatArray
from ragengine.confidence.corpus import Corpus
from ragengine.errors import InputError, ShardError
from ragengine.results import Document
from ragengine.retrieval.custom import AnyIndex
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.asking import Search, searching
from ragengine.runtime.cancellation import Stop


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for Q questions.

    documents  for each, best first
    corpus     what was searched, where that is known
    missing    the shards that did not answer, and were allowed not to
    """

    documents: list[list[Document]]
    corpus: Corpus | None
    missing: tuple[str, ...] = ()


def search_index(
    index: AnyIndex, vectors: FloatArray, n_docs: int, filter: PassageFilter | None, stop: Stop
) -> Found:
    """Search for ``n_docs`` documents for question vectors, float32 [Q, E].

    A shard that is lost on the way, and may be, is left out of the whole search: it begins again, so that
    every answer is that of the shards which are not named as missing.

    Raises:
        ShardError: a shard does not answer and may not be missing, or those that answer have nothing.
        DeadlineError, CancelledError: ``stop`` says so.
    """
    missing: set[str] = set()
    while True:
        before = len(missing)
        try:
            with searching(Search(stop, missing)):
                documents = index.search_documents(vectors, n_docs, filter=filter)
            break
        except ShardError:
            if len(missing) == before:
                raise
        except InputError as reason:
            if not missing or filter is None:
                raise
            raise ShardError(f"{_without(missing)}: {reason}") from reason
    if missing and not all(documents):
        raise ShardError(f"{_without(missing)}, nothing was found; start their servers.")
    corpus = None
    if not missing:
        # Without a shard there is no sample of it, and flags of answers do without the corpus.
        with contextlib.suppress(ShardError), searching(Search(stop)):
            corpus = index.corpus
    return Found(documents, corpus, tuple(sorted(missing)))


def _without(missing: set[str]) -> str:
    return f"Without {', '.join(sorted(missing))}"
