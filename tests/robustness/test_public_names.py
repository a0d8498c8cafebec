"""The public names and signatures are those in public_names.txt, so that none changes by accident."""

import dataclasses
import difflib
from typing import Any

import ragengine
from tests.robustness.public_names import PINNED, described, render

REMEDY = "meant?  python -m tests.robustness.public_names, then docs/reference/versioning.md and CHANGELOG.md"


def test_public_names_are_as_written_down() -> None:
    pinned, found = PINNED.read_text("utf-8").splitlines(), render().splitlines()
    changed = list(difflib.unified_diff(pinned, found, "written down", "found", lineterm="", n=1))
    assert not changed, "\n".join([*changed, REMEDY])


def test_every_public_name_is_there() -> None:
    for name in ragengine.__all__:
        assert getattr(ragengine, name).__name__ == name


def test_what_is_written_down_of_a_name_changes_with_it() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sample:
        size: int = 3
        names: list[str] = dataclasses.field(default_factory=list)

        @property
        def double(self) -> int:
            return self.size * 2

        def add(self, other: "Sample", *, times: int = 1, **rest: Any) -> None: ...

        def _own(self) -> None: ...

    assert list(described("Sample", Sample)) == [
        "Sample: dataclass frozen class",
        "    size: int = 3",
        "    names: list[str] = list()",
        "    add(self, other: 'Sample', *, times: int=1, **rest: Any) -> None",
        "    double: property(self) -> int",
    ]
