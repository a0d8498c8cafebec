"""Ways to damage the bytes of a file, and the file itself."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from tests.robustness.children import SEED
from tests.support.bundles import rewrite_manifest

Damage: TypeAlias = tuple[str, Callable[[bytes], bytes]]
"""A name, and a function from a file's bytes to others."""

WORDS = (0, -1, 1, 2**31, 2**31 - 1, 2**32, 2**63 - 1, -(2**63), 10**6)
"""Numbers that overflow, wrap around, are negative, or are too large."""


def drawing(name: str | int) -> random.Random:
    """A generator for what is drawn under ``name``: always the same, or that of the variable ``SEED``."""
    seed = os.environ.get(SEED)
    return random.Random(f"{seed}:{name}" if seed else name)


def replace(path: Path, content: bytes) -> None:
    """Write a new file, because the old one may have other links (:func:`linked_copy`)."""
    path.unlink()
    path.write_bytes(content)


def linked_copy(folder: Path, target: Path) -> Path:
    """A fast copy of a folder: its files are hard links."""
    shutil.copytree(folder, target, copy_function=os.link)
    return target


def damaged_copy(folder: Path, name: str, damage: Callable[[bytes], bytes], target: Path) -> Path:
    """A linked copy of a folder with the file ``name`` damaged."""
    copy = linked_copy(folder, target)
    replace(copy / name, damage((folder / name).read_bytes()))
    return copy


def check_damaged(
    whole: Path, name: str, damage: Callable[[bytes], bytes], check: Callable[[Path], object], folder: Path
) -> None:
    """Damage a file of a copy, give the manifest its new hash, and ``check`` the copy."""
    copy = damaged_copy(whole, name, damage, folder / "damaged")
    rewrite_manifest(copy)
    check(copy)


def instead(content: bytes, _: bytes) -> bytes:
    """A damage: ``content`` takes the place of the file's."""
    return content


def truncations(size: int) -> Iterator[Damage]:
    for length in sorted({0, 1, size // 2, size - 1}):
        yield f"cut to {length}", lambda content, length=length: content[:length]


def extensions() -> Iterator[Damage]:
    for more in (1, 4096):
        yield f"longer by {more}", lambda content, more=more: content + b"\0" * more


def flips(places: list[int], seed: int) -> Iterator[Damage]:
    """Flip one bit, drawn with ``seed``, of each of these bytes."""
    drawn = drawing(seed)
    for place in places:
        bit = drawn.randrange(8)
        yield f"bit {bit} of byte {place}", lambda content, p=place, b=bit: flipped(content, p, b)


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def words(places: list[int], width: int, values: tuple[int, ...] = WORDS) -> Iterator[Damage]:
    """Write each of ``values`` as a little-endian number of ``width`` bytes at each of these places."""
    for place in places:
        for value in dict.fromkeys(value % 256**width for value in values):
            number = value.to_bytes(width, "little")
            yield (
                f"{value:#x} at {place}",
                lambda content, p=place, n=number: content[:p] + n + content[p + len(n) :],
            )


def spread(size: int, most: int, *, header: int = 0, seed: int = 0) -> list[int]:
    """About ``most`` places of ``size`` bytes: the header, the last byte, and others drawn with ``seed``."""
    drawn = drawing(seed)
    rest = range(min(header, size), size)
    sampled = drawn.sample(rest, min(most, len(rest)))
    return sorted({*range(min(header, size)), *sampled, size - 1})


def become_other(path: Path, kind: str) -> None:
    """Replace a file with something other than a plain file."""
    moved = path.with_name("moved")
    path.rename(moved)
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(moved)
    elif kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")


OTHERS = ("nothing", "directory", "pipe", "link", "broken link", "link to itself", "device")
