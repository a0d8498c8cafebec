"""Which passages of an index are in a corpus, too, and which of the corpus are new: by id and content.

Passages are compared by 128 bits of a hash of what they say, so that neither side is held in memory: 40 bytes
a passage are.
"""

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import RowArray
from ragengine.corpus.passage import Passage

_NONE = np.int64(-1)


class Digests:
    """The hashes of passages, in their order: of the contents, and of what else an index keeps of each."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        """Read ``passages`` once."""
        content, ids, rest, numbered = array("Q"), array("Q"), array("Q"), bytearray()
        for passage in passages:
            content.extend(content_hash(passage))
            ids.append(_short_hash(passage.id))
            rest.append(_short_hash(*(part for pair in sorted(passage.metadata.items()) for part in pair)))
            numbered.append(passage.numbered)
        self.content = np.array(content, np.uint64).reshape(-1, 2)
        self.ids, self.metadata = np.array(ids, np.uint64), np.array(rest, np.uint64)
        self.numbered = np.frombuffer(bytes(numbered), bool)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Matches:
    """How a corpus of M passages differs from an index of N.

    row_of   the row with the same title and text for each passage of the corpus, -1 for none: int64 [M];
             no row is there twice
    renewed  the places in the corpus of those among them whose id or metadata differ from their row's, or
             whether their id was given
    changed  the places of new passages with the id of a row that says something else
    gone     the rows that the corpus has not, ascending
    """

    row_of: RowArray
    renewed: RowArray
    changed: RowArray
    gone: RowArray

    @classmethod
    def between(cls, corpus: Digests, index: Digests) -> "Matches":
        """Match passages of the same id and content, then those that have the content alone."""
        row_of = np.full(len(corpus), _NONE)
        given = ~corpus.numbered
        same_id = _rows_of(index.ids, corpus.ids)
        found = np.flatnonzero(given & (same_id >= 0))
        found = found[(corpus.content[found] == index.content[same_id[found]]).all(axis=1)]
        _, first = np.unique(same_id[found], return_index=True)  # an id that is given twice is refused later
        row_of[found[first]] = same_id[found[first]]
        _match_contents(row_of, corpus.content, index.content)
        matched = np.flatnonzero(row_of >= 0)
        rows = row_of[matched]
        named = given[matched] & (corpus.ids[matched] != index.ids[rows])
        numbered = corpus.numbered[matched] != index.numbered[rows]
        renewed = matched[named | numbered | (corpus.metadata[matched] != index.metadata[rows])]
        gone = np.setdiff1d(np.arange(len(index)), rows)
        changed = np.flatnonzero(given & (row_of < 0) & (same_id >= 0))
        return cls(row_of, renewed, changed, gone)


def content_hash(passage: Passage) -> tuple[int, int]:
    """128 bits of a hash of a passage's title and text."""
    digest = _hash(passage.title, passage.text)
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _short_hash(*texts: str) -> int:
    return int.from_bytes(_hash(*texts)[:8], "little")


def _hash(*texts: str) -> bytes:
    """16 bytes; different lists of texts are different input."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def _rows_of(keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> RowArray:
    """The first place of each of ``wanted`` in ``keys``, -1 for none."""
    if not len(keys):
        return np.full(len(wanted), _NONE)
    order = np.argsort(keys, kind="stable")
    places = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    rows = order[places]
    return np.where(keys[rows] == wanted, rows, _NONE)


def _match_contents(row_of: RowArray, corpus: NDArray[np.uint64], index: NDArray[np.uint64]) -> None:
    """Give passages that have no row yet one with their content that is no other's, in order."""
    free: dict[tuple[int, int], list[int]] = {}
    taken = np.zeros(len(index), bool)
    taken[row_of[row_of >= 0]] = True
    for row in np.flatnonzero(~taken)[::-1].tolist():
        free.setdefault(tuple(index[row].tolist()), []).append(row)
    for place in np.flatnonzero(row_of < 0).tolist():
        rows = free.get(tuple(corpus[place].tolist()))
        if rows:
            row_of[place] = rows.pop()
