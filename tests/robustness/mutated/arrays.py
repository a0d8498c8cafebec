"""``.npy`` files with arbitrary headers, which numpy reads as a Python literal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ragengine.errors import PassagesError
from ragengine.retrieval.manifest import QUERIES_FILE, VECTORS_FILE
from ragengine.storage.folders import MANIFEST
from ragengine.storage.npy import open_vectors
from tests.robustness.children import Case
from tests.robustness.mutated.damage import check_damaged, flips, instead, spread
from tests.robustness.mutated.indexes import E, N, check_answers, vectors, write_index
from tests.support.bundles import rewrite_manifest

_HEADERS = {
    "object": "{'descr': '|O', 'fortran_order': False, 'shape': (60, 16), }",
    "texts": "{'descr': '<U8', 'fortran_order': False, 'shape': (60, 16), }",
    "a structure": "{'descr': [('a', '<f2')], 'fortran_order': False, 'shape': (60, 16), }",
    "a structure so deep": "{'descr': "
    + "[('a', " * 90
    + "'<f2'"
    + ")]" * 90
    + ", 'fortran_order': False, 'shape': (60, 16)}",
    "a large structure": f"{{'descr': [('a', '<f2', {2**31})], 'fortran_order': False, 'shape': (60, 16)}}",
    "Fortran's order": "{'descr': '<f2', 'fortran_order': True, 'shape': (60, 16), }",
    "the other byte order": "{'descr': '>f2', 'fortran_order': False, 'shape': (60, 16), }",
    "no type": "{'descr': '', 'fortran_order': False, 'shape': (60, 16), }",
    "a number as type": "{'descr': 7, 'fortran_order': False, 'shape': (60, 16), }",
    "a dictionary as type": "{'descr': {'names': 7}, 'fortran_order': False, 'shape': (60, 16), }",
    "a size of nothing": "{'descr': '|V0', 'fortran_order': False, 'shape': (60, 16), }",
    "a type of 2 GiB": "{'descr': '|V2147483647', 'fortran_order': False, 'shape': (60, 16), }",
    "an order that is none": "{'descr': '<f2', 'fortran_order': 7, 'shape': (60, 16), }",
    "a negative shape": "{'descr': '<f2', 'fortran_order': False, 'shape': (-60, -16), }",
    "a huge shape": f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({2**40}, 16), }}",
    "a shape that overflows": f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({2**62}, 16), }}",
    "a shape of no int64": f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({10**30}, 16), }}",
    "a shape that wraps around": f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({2**60 + 60}, 16), }}",
    "a shape of nothing": "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 16), }",
    "a shape without axes": "{'descr': '<f2', 'fortran_order': False, 'shape': (), }",
    "many axes": "{'descr': '<f2', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
    "a shape of truths": "{'descr': '<f2', 'fortran_order': False, 'shape': (True, 16), }",
    "a shape of floats": "{'descr': '<f2', 'fortran_order': False, 'shape': (60.0, 16), }",
    "a shape of texts": "{'descr': '<f2', 'fortran_order': False, 'shape': ('60', 16), }",
    "no shape": "{'descr': '<f2', 'fortran_order': False, }",
    "one name more": "{'descr': '<f2', 'fortran_order': False, 'shape': (60, 16), 'x': 1}",
    "a name that is a set": "{'descr': '<f2', 'fortran_order': False, 'shape': (60, 16), (1, 2): {3}}",
    "a name that cannot be one": "{[1]: 2}",
    "a list": "[1, 2]",
    "a call": "__import__('os').abort()",
    "nothing": "",
    "NUL": "\0" * 50,
    "brackets": "(" * 9000,
    "signs": "-" * 9000 + "1",
    "signs apart": "- " * 4500 + "1",
    "additions": "1" + "+1j" * 3000,
    "lambdas": "lambda:" * 1200 + "1",
    "attributes": "a" + ".a" * 4000,
    "texts side by side": "'a'" * 3000,
    "escapes": "{'\x1b[2J\r\n': 1}",
    "an unfinished text": "{'descr",
    "no Latin-1": "{'descr': '\xff\xfe', 'fortran_order': False, 'shape': (60, 16), }",
    "a huge number": "{'descr': '<f2', 'fortran_order': False, 'shape': (" + "9" * 5000 + ", 16), }",
    "a number of Python 2": "{'descr': '<f2', 'fortran_order': False, 'shape': (60L, 16L), }",
    "a tab at a line's begin": "\n\t \n  {'descr': '<f2'\n}",
}
_FINE = ("Fortran's order",)  # the same numbers as other vectors; only verify() can notice
_SAMPLED, _SAMPLED_MANY = 60, 3000
"""Bits of each file in the default and in the exhaustive run."""


def prepare(base: Path) -> None:
    index = write_index(base / "index", "IVF4,PQ4x4")
    np.save(index / QUERIES_FILE, vectors(5, 10))
    tuning = {"target": 0.9, "n_docs": 5, "queries": 10, "source": "file", "points": []}
    content = json.loads((index / MANIFEST).read_text("utf-8")) | {"tuning": tuning, "recall": 0.01}
    (index / MANIFEST).write_text(json.dumps(content), "utf-8")
    rewrite_manifest(index)


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    index = base / "index"
    right = vectors().astype(np.float16)
    yield Case(
        "as it was written", partial(check_damaged, index, VECTORS_FILE, bytes, check_answers), "answered"
    )
    for version in ((1, 0), (2, 0), (3, 0)):
        for what, header in _HEADERS.items():
            content = _npy(header, right.tobytes(), version)
            for name in (VECTORS_FILE, QUERIES_FILE):
                run = partial(check_damaged, index, name, partial(instead, content), check_answers)
                if what in _FINE:
                    yield Case(f"{name} {version[0]}: {what}", run)
                else:
                    yield Case(f"{name} {version[0]}: {what}", run, "refused", mentions=name)
            yield Case(
                f"embeddings {version[0]}: {what}", partial(_open, content), "refused", "embeddings.npy"
            )
    for what, version, length in (("version 9", (9, 0), None), ("a length of 4 GiB", (2, 0), 2**32 - 1)):
        content = _npy(_header(), right.tobytes(), version, length)
        run = partial(check_damaged, index, VECTORS_FILE, partial(instead, content), check_answers)
        yield Case(what, run, "refused", mentions=VECTORS_FILE)
    for what, value in (("NaN", np.nan), ("infinite", np.inf), ("65504", 65504.0)):
        for rows in (slice(None), slice(7, 8)):
            wrong = right.copy()
            wrong[rows] = value
            content = _npy(_header(), wrong.tobytes(), (1, 0))
            run = partial(check_damaged, index, VECTORS_FILE, partial(instead, content), check_answers)
            yield Case(f"{what} in {len(wrong[rows])} vectors", run, "refused")
    for name in (VECTORS_FILE, QUERIES_FILE):
        most = _SAMPLED_MANY if exhaustive else _SAMPLED
        for what, damage in flips(spread((index / name).stat().st_size, most, header=80), seed=4):
            yield Case(f"{name}: {what}", partial(check_damaged, index, name, damage, check_answers))


def _header() -> str:
    return f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({N}, {E}), }}"


def _npy(header: str, data: bytes, version: tuple[int, int], length: int | None = None) -> bytes:
    """An ``.npy`` file with any text as its header; ``length`` is the stated length of the header."""
    text = header.encode("utf-8" if version == (3, 0) else "latin-1")
    width = 2 if version == (1, 0) else 4
    padding = -(8 + width + len(text) + 1) % 64
    text += b" " * padding + b"\n"
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + size.to_bytes(width, "little") + text + data


def _open(content: bytes, folder: Path) -> None:
    (folder / "embeddings.npy").write_bytes(content)
    found = open_vectors(folder / "embeddings.npy", np.float32, PassagesError)
    np.asarray(found).sum()
