"""The bundles in a folder, such as those that a training leaves, each with its index."""

import re
from pathlib import Path

from ragengine.errors import InputError
from ragengine.storage.folders import MANIFEST

_DEEPEST = 3


def find_bundles(folder: Path, index: Path) -> list[tuple[Path, Path]]:
    """The bundles in a folder, in the order of the numbers in their names, each with the index to search.

    Args:
        folder: is searched three levels deep.
        index: of every bundle that has no folder `index` beside it.

    Raises:
        InputError: there is none.
    """
    patterns = ["/".join(["*"] * depth) for depth in range(1, _DEEPEST + 1)]
    manifests = [path for pattern in patterns for path in folder.glob(f"{pattern}/{MANIFEST}")]
    bundles = [path.parent for path in manifests if (path.parent / "question_encoder").is_dir()]
    if not bundles:
        raise InputError(
            f"{folder} holds no bundles; export checkpoints to folders there with ragengine export."
        )
    return [
        (bundle, beside if (beside := bundle.parent / "index").is_dir() else index)
        for bundle in sorted(bundles, key=lambda path: _natural(str(path)))
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts step-20 before step-100."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
