"""The FAISS factory strings that an index is built with: a grammar, and the range of each number.

FAISS's own parser takes more, and some of it ends the process, hangs, or makes an index that finds the wrong
vectors.  What is taken here, ``n`` being a number from 1 on:

    factory   = transforms index ["," refine]
    transforms: any of "PCAn", "PCARn", "PCAWn", "PCAWRn", "OPQn", "OPQn_n", "RR", "RRn", "L2norm", "Padn",
                each with "," behind it
    index     = code | "IVF" n ["k"] ["_HNSW" [n]] "," lists | "HNSW" [n] [("," or "_") graph]
    code      = "Flat" | "SQ4" | "SQ6" | "SQ8" | "SQfp16" | "SQbf16" | pq | "PQ" n "x4fs" ["_" n]
    lists     = code | "PQ" n "x4fsr" ["_" n]
    graph     = "Flat" | one of the SQ
    pq        = "PQ" n ["x" n] ["np"]
    refine    = "RFlat" | "Refine(" ("Flat" | one of the SQ | pq) ")"
"""

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from ragengine.errors import InputError
from ragengine.messages import short_repr

_N: Final = r"[1-9][0-9]{0,6}"
_SQ: Final = r"SQ(?:4|6|8|fp16|bf16)"
_PQ: Final = rf"PQ(?P<parts>{_N})(?:x(?P<bits>{_N}))?(?:np)?"
_FAST: Final = rf"PQ(?P<fast>{_N})x4fs(?P<residual>r?)(?:_(?P<block>{_N}))?"
_CODE: Final = re.compile(rf"Flat|{_SQ}|{_PQ}|{_FAST}")
_REFINE: Final = re.compile(rf"(?P<base>.+),(?:RFlat|Refine\((?P<code>Flat|{_SQ}|{_PQ})\))")
_TRANSFORM: Final = re.compile(
    rf"PCAW?R?(?P<pca>{_N})|OPQ(?P<opq>{_N})(?:_(?P<rotated>{_N}))?|RR(?P<rr>{_N})?|L2norm|Pad(?P<pad>{_N})"
)
_LISTS: Final = re.compile(rf"IVF(?P<nlist>{_N})(?P<kilo>k?)(?:_HNSW(?P<links>{_N})?)?")
_GRAPH: Final = re.compile(rf"HNSW(?P<links>{_N})?(?:[,_](?:Flat|{_SQ}))?")

_LONGEST: Final = 200
_MOST_COMPONENTS: Final = 4096
_MOST_LISTS: Final = 1 << 20
_MOST_BITS: Final = 12
_LEAST_LINKS, _MOST_LINKS = 2, 512
_BLOCKS: Final = (32, 64, 96, 128, 160)  # FAISS has code for no others
_OPQ_CENTROIDS: Final = 256  # whatever the bits of the PQ behind it


@dataclass(frozen=True)
class Factory:
    """A factory string that FAISS can build with, and ``least``, the vectors that its training needs."""

    text: str
    least: int

    def check_count(self, count: int) -> None:
        """Raise :class:`InputError` where ``count`` vectors are too few to train on."""
        if count < self.least:
            raise InputError(
                f"The factory {self.text!r} learns from at least {self.least} vectors, there are {count}; "
                "choose a smaller one, or Flat."
            )


def parse_factory(text: str, dimension: int) -> Factory:
    """Read a factory string for inner products of vectors of ``dimension`` components.

    Raises :class:`InputError` for what is not in the grammar and for a number out of range.
    """
    return _Parser(text).parse(dimension)


class _Parser:
    """Reads one factory string, and remembers the vectors that its parts need."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._least = 1

    def parse(self, dimension: int) -> Factory:
        if not isinstance(self._text, str) or len(self._text) > _LONGEST:
            self._refuse(f"it is no text of at most {_LONGEST} characters")
        base = self._text
        if refined := _REFINE.fullmatch(base):
            base = refined["base"]
            self._check_parts(refined["parts"], refined["bits"], dimension)
        first, comma, rest = base.partition(",")
        while comma and (transform := _TRANSFORM.fullmatch(first)):
            dimension = self._transformed(transform, dimension)
            first, comma, rest = rest.partition(",")
        self._index(first, rest if comma else None, dimension)
        return Factory(self._text, self._least)

    def _index(self, first: str, code: str | None, dimension: int) -> None:
        """Check what follows the transforms: ``first``, and ``code`` behind its comma."""
        whole = first if code is None else f"{first},{code}"
        if first.startswith("NSG") or "_NSG" in first:
            self._refuse("FAISS may link an NSG graph without end, and cannot add to it: use HNSW32")
        if re.match(r"HNSW[0-9]*[,_]PQ", whole):
            self._refuse("FAISS's HNSW over PQ compares by L2 distance: use HNSW32_SQ8 or IVF with PQ")
        if graph := _GRAPH.fullmatch(whole):
            self._check_links(graph["links"])
        elif code is None:
            self._code(first, dimension, lists=False)
        elif lists := _LISTS.fullmatch(first):
            nlist = int(lists["nlist"]) << (10 if lists["kilo"] else 0)
            self._check_range("the number of lists", nlist, 1, _MOST_LISTS)
            self._check_links(lists["links"])
            self._least = max(self._least, nlist)
            self._code(code, dimension, lists=True)
        else:
            self._refuse(f"{short_repr(first)} is not a part of one")

    def _code(self, text: str, dimension: int, *, lists: bool) -> None:
        code = _CODE.fullmatch(text)
        if code is None or (code["residual"] and not lists):
            self._refuse(f"{short_repr(text)} is not a way to keep vectors")
        if code["block"] and int(code["block"]) not in _BLOCKS:
            self._refuse(f"blocks have {', '.join(map(str, _BLOCKS[:-1]))} or {_BLOCKS[-1]} vectors")
        self._check_parts(code["parts"], code["bits"], dimension)
        self._check_parts(code["fast"], "4", dimension)

    def _transformed(self, found: re.Match[str], dimension: int) -> int:
        """The dimension after a transform."""
        if found["pca"]:
            kept = self._check_range("the dimension of PCA", int(found["pca"]), 1, dimension)
            self._least = max(self._least, kept)
            return kept
        if found["opq"]:
            rotated = self._dimension(found["rotated"], dimension)
            self._check_parts(found["opq"], None, rotated)
            self._least = max(self._least, _OPQ_CENTROIDS)
            return rotated
        if found["pad"]:
            return max(self._dimension(found["pad"], dimension), dimension)
        return self._dimension(found["rr"], dimension)

    def _dimension(self, number: str | None, default: int) -> int:
        if number is None:
            return default
        return self._check_range("the dimension after a transform", int(number), 1, _MOST_COMPONENTS)

    def _check_parts(self, parts: str | None, bits: str | None, dimension: int) -> None:
        """Check a product quantizer; None where there is none."""
        if parts is None:
            return
        if dimension % int(parts):
            self._refuse(f"{dimension} components do not split into {parts} equal parts")
        centroids = 1 << self._check_range("the bits of a PQ", int(bits or 8), 1, _MOST_BITS)
        self._least = max(self._least, centroids)

    def _check_links(self, links: str | None) -> None:
        if links is not None:
            self._check_range("the number of links", int(links), _LEAST_LINKS, _MOST_LINKS)

    def _check_range(self, what: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            self._refuse(f"{what} is {value}, and must be from {low} to {high}")
        return value

    def _refuse(self, reason: str) -> NoReturn:
        raise InputError(
            f"The factory {short_repr(self._text)} is not one that an index is built with ({reason}); "
            "try Flat or IVF256,Flat."
        )
