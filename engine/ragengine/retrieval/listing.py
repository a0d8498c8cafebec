"""Looking at the passages of an index folder, without a search."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ragengine.corpus.passage import Passage
from ragengine.errors import InputError
from ragengine.messages import short_repr
from ragengine.results import Document
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.passage_filter import Filter
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.validation import check_whole_number

_ROWS_AT_ONCE = 1024


def list_passages(
    index: str | Path, *, filter: Filter | None = None, start: int = 0, limit: int | None = None
) -> Iterator[Document]:
    """The passages of an index in order, as ``ragengine index list`` shows them.

    Args:
        index: the index folder; of its files sizes are checked, not hashes.
        filter: only passages whose metadata has these values, as in :meth:`RagEngine.generate`.
        start: how many of them to leave out first.
        limit: how many to give at most; all where None.

    Returns:
        An iterator of documents without scores, read as it goes.

    Raises:
        InputError: no passage matches the filter, or a number is negative.
        IndexFolderError: the index is not whole.
    """
    for name, value in (("start", start), ("limit", limit)):
        if value is not None:
            check_whole_number(name, value, least=0)
    return _listed(open_index(index, verify="size"), filter, start, limit)


def show_passages(index: str | Path, ids: Iterable[str]) -> list[Document]:
    """The passages with these ids, in their order, as ``ragengine index show`` prints them.

    Args:
        index: the index folder; of its files sizes are checked, not hashes.
        ids: the ids of passages.

    Returns:
        Documents without scores; where several passages share an id, as in early indexes, all of them.

    Raises:
        InputError: no passage has one of the ids.
        IndexFolderError: the index is not whole.
    """
    if isinstance(ids, str):
        raise InputError(f"ids is {short_repr(ids)}; give a list of passage ids.")
    wanted = list(ids)
    with open_index(index, verify="size") as opened:
        rows = opened.rows_of(wanted)
        if absent := [id for id in wanted if id not in rows]:
            raise InputError(f"{index} has no passage with the id {short_repr(absent[0])}.")
        return [document_of(passage) for id in wanted for passage in opened.passages(rows[id])]


def document_of(passage: Passage) -> Document:
    """A passage as a document without a score."""
    return Document(passage.title, passage.text, passage.id, metadata=passage.metadata)


def _listed(index: SearchedIndex, filter: Filter | None, start: int, limit: int | None) -> Iterator[Document]:
    with index:
        rows = index.matching_rows(filter)[start:]
        rows = rows if limit is None else rows[:limit]
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            yield from map(document_of, index.passages(rows[first : first + _ROWS_AT_ONCE]))
