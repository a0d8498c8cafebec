"""What a search needs to know of a FAISS index, in numbers that can be written down."""

from dataclasses import dataclass
from typing import Annotated, Any

from ragengine.errors import InputError
from ragengine.retrieval.faiss_api import check_whole, extract_ivf, import_faiss, is_graph, takes_selector
from ragengine.storage.schema import Line, Range


@dataclass(frozen=True)
class Structure:
    """A FAISS index as far as it decides how a search is planned.

    kind     its class, as messages name it
    exact    whether it keeps the stored vectors as they are (``IndexFlat``)
    selects  whether FAISS can search among selected rows of it
    lists    its inverted lists; None where it has none
    nprobe   how many of them are searched where nobody says
    """

    kind: Line
    exact: bool
    selects: bool
    lists: Annotated[int, Range(1, 1 << 24)] | None = None
    nprobe: Annotated[int, Range(1, 1 << 24)] = 1

    @classmethod
    def of(cls, faiss_index: Any) -> "Structure":
        """The structure of a FAISS index as it is set now."""
        faiss = import_faiss()
        index = faiss.downcast_index(faiss_index)
        exact, selects = isinstance(index, faiss.IndexFlat), takes_selector(index)
        while isinstance(index, faiss.IndexPreTransform | faiss.IndexRefine):
            inner = index.index if isinstance(index, faiss.IndexPreTransform) else index.base_index
            index = faiss.downcast_index(inner)
        kind = type(index).__name__
        if not isinstance(index, faiss.IndexIVF):
            return cls(kind, exact, selects)
        return cls(kind, exact, selects, int(index.nlist), max(1, int(index.nprobe)))

    def checked_nprobe(self, nprobe: int) -> int:
        """``nprobe``, at most the number of lists; raises :class:`InputError` where there are no lists."""
        check_whole("nprobe", nprobe)
        if self.lists is None:
            raise InputError(
                f"nprobe is {nprobe}, but {self.kind} has no inverted lists to choose from; leave it out."
            )
        return int(min(nprobe, self.lists))


def can_share(faiss_index: Any) -> bool:
    """Whether several FAISS indexes can share what this one learned, and propose together what it would.

    Not where it walks a graph, which links the vectors of one index; nor where it refines, which scores again
    a number of candidates of one index; nor in fast scan, whose rounding depends on what else is scanned.
    """
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    fast_scan = faiss.IndexFastScan | faiss.IndexIVFFastScan
    if isinstance(index, faiss.IndexRefine | fast_scan) or is_graph(index):
        return False
    if isinstance(index, faiss.IndexPreTransform):
        return can_share(index.index)
    return extract_ivf(index) is not None or hasattr(index, "codes")
