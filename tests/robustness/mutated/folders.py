"""Every file of a bundle and of an index: cut, extended, with a flipped bit, or replaced.

With ``verify="sha256"`` the error names the file before any library reads it.  If the manifest has the new
hash, onnxruntime, tokenizers, SQLite, numpy and FAISS read the file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ragengine.bundle.bundle import Bundle
from ragengine.retrieval.index import PassageIndex
from ragengine.storage.folders import MANIFEST
from tests.robustness.children import Case
from tests.robustness.mutated.asking import check_engine
from tests.robustness.mutated.damage import (
    OTHERS,
    become_other,
    check_damaged,
    damaged_copy,
    drawing,
    extensions,
    flips,
    linked_copy,
    spread,
    truncations,
)
from tests.robustness.mutated.indexes import check_answers, write_index
from tests.support.paths import GOLDEN

_FLIPS = 12
"""Bits of each file in the default run; 300 in the exhaustive one."""


def prepare(base: Path) -> None:
    shutil.copytree(GOLDEN / "bundle_v4", base / "bundle")
    write_index(base / "index", "IVF4,PQ4x4")


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    for kind, open_folder, ask in (
        ("bundle", Bundle.open, check_engine),
        ("index", PassageIndex.open, check_answers),
    ):
        folder = base / kind
        yield Case(
            f"{kind}: as it was written", partial(check_damaged, folder, MANIFEST, bytes, ask), "answered"
        )
        for path in sorted(folder.rglob("*.*")):
            name = path.relative_to(folder).as_posix()
            yield from _unlike_the_hash(folder, name, open_folder)
            if name != MANIFEST:
                yield from _behind_a_right_hash(folder, name, ask, exhaustive)


def _unlike_the_hash(folder: Path, name: str, open_folder: Callable[..., object]) -> Iterator[Case]:
    """Damage that the hash reveals, and files that are not plain files."""
    size = (folder / name).stat().st_size
    damages = [*truncations(size), *extensions()]
    if name == MANIFEST:
        damages = list(truncations(size - 1))  # without its final line feed it is valid, too
    else:
        damages += flips(spread(size, _FLIPS, header=16), seed=size)
    for what, damage in damages:
        run = partial(_open_damaged, folder, name, damage, open_folder)
        yield Case(f"{name} unlike its hash: {what}", run, "refused", mentions=name)
    for kind in OTHERS:
        run = partial(_open_other, folder, name, kind, open_folder)
        yield Case(f"{name} is {kind}", run, "refused", mentions=name)


def _behind_a_right_hash(
    folder: Path, name: str, ask: Callable[[Path], object], exhaustive: bool
) -> Iterator[Case]:
    size = (folder / name).stat().st_size
    places = spread(size, 300 if exhaustive else _FLIPS, header=64 if exhaustive else 0, seed=size)
    for what, damage in [*truncations(size), *extensions(), *flips(places, seed=size)]:
        yield Case(f"{name} with a right hash: {what}", partial(check_damaged, folder, name, damage, ask))
    for number in range(20 if exhaustive else 2):
        yield Case(
            f"{name} with a right hash: noise {number}",
            partial(check_damaged, folder, name, partial(_with_noise, number), ask),
        )


def _with_noise(seed: int, content: bytes) -> bytes:
    """Replace a hundred bytes at a random place."""
    drawn = drawing(seed)
    place = drawn.randrange(len(content))
    return (content[:place] + drawn.randbytes(100) + content[place + 100 :])[: len(content)]


def _open_damaged(
    whole: Path, name: str, damage: Callable[[bytes], bytes], open_folder: Callable[..., object], folder: Path
) -> None:
    open_folder(damaged_copy(whole, name, damage, folder / "damaged"))


def _open_other(whole: Path, name: str, kind: str, open_folder: Callable[..., object], folder: Path) -> None:
    copy = linked_copy(whole, folder / "other")
    become_other(copy / name, kind)
    open_folder(copy)
