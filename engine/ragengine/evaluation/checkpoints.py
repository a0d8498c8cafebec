"""The models in a folder, such as the output of a training: bundles, and checkpoints, which are exported."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ragengine.bundle.bundle import Bundle
from ragengine.errors import IndexFolderError, InputError
from ragengine.indexing.build import build_index
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.storage.folders import MANIFEST, sha256_of
from ragengine.storage.foreign_files import read_plain
from ragengine.storage.strict_json import parse_json

EXPORTED: Final = "exported"
"""In the folder that is evaluated: the bundles of its checkpoints, and indexes that were built for them."""

_INDEXES: Final = ("checkpoint_index", "index")  # of a training: that of its result, and the one before
_DEEPEST: Final = 3
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.h5", "*.msgpack")
_OF_TRAINING: Final = re.compile(
    r"(optimizer|scheduler|scaler|rng_state.*)\.\w+|trainer_state\.json|training_args\.bin"
)
"""What transformers' Trainer writes to go on from, and is no part of the model."""
_CONFIG_BYTES: Final = 1 << 20
_ROWS: Final = 1024


@dataclass(frozen=True)
class Candidate:
    """A bundle with the index to search."""

    bundle: Path
    index: Path


def find_candidates(
    folder: Path,
    indexes: Sequence[Path],
    export: Callable[[Path, Path], object],
    *,
    first: Candidate | None = None,
    threads: int | None = None,
) -> list[Candidate]:
    """The models in a folder in the order of the numbers in their names, each with its index.

    RAG checkpoints are exported to ``folder / EXPORTED``, under names with their fingerprints, and not again.
    The index of a bundle is the folder `index` beside it, else the first of ``indexes`` that its encoder has
    made.  Where its passage encoder has made none, an exported bundle gets an index of the passages of the
    first.

    Args:
        folder: is searched three levels deep.
        indexes: at least one.
        export: writes the bundle, its second argument, of a checkpoint.
        first: what comes before them.
        threads: to build an index with.

    Raises:
        InputError: there is none.
        BundleError: a bundle is not whole.
        IndexFolderError: an index is not whole.
    """
    kept = folder / EXPORTED
    exported: dict[str, Bundle] = {}
    for checkpoint in sorted(_checkpoints(folder, kept), key=_natural):
        path = kept / f"{checkpoint.name}-{checkpoint_fingerprint(checkpoint)[:12]}" / "bundle"
        if not (path / MANIFEST).is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            export(checkpoint, path)
        bundle = Bundle.open(path, verify="size")
        exported[bundle.fingerprint] = bundle
    own = [Bundle.open(path, verify="size") for path in _bundles(folder, kept)]
    # A training has a bundle of its result, which is one of the checkpoints, too.
    bundles = [*exported.values(), *(one for one in own if one.fingerprint not in exported)]
    if not bundles:
        raise InputError(f"{folder} holds no bundles and no RAG checkpoints; name the output of a training.")
    before = [] if first is None else [first]
    known = {one.bundle.resolve() for one in before}
    return before + [
        Candidate(bundle.path, _index_of(bundle, indexes, kept, threads))
        for bundle in sorted(bundles, key=lambda one: _natural(one.path))
        if bundle.path.resolve() not in known
    ]


def training_indexes(folder: Path) -> list[Path]:
    """The indexes in the output of a training, that of its result first."""
    return [path for name in _INDEXES if (path := folder / name).is_dir()]


def checkpoint_fingerprint(checkpoint: Path) -> str:
    """What identifies the model of a checkpoint: sha256 over its files, in hexadecimal."""
    files = sorted(
        path for path in checkpoint.rglob("*") if path.is_file() and not _OF_TRAINING.fullmatch(path.name)
    )
    known = {path.relative_to(checkpoint).as_posix(): sha256_of(path) for path in files}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _bundles(folder: Path, kept: Path) -> list[Path]:
    """Bundles, but for those of checkpoints that have been exported, now or before."""
    found = _holders(folder, MANIFEST)
    return [path for path in found if (path / "question_encoder").is_dir() and kept not in path.parents]


def _checkpoints(folder: Path, kept: Path) -> Iterator[Path]:
    """RAG checkpoints with weights, but for those of a training that has their bundles."""
    for path in _holders(folder, "config.json"):
        has_bundle = (path.parent / "bundle").is_dir() or (
            path.parent / "work" / path.name / "bundle"
        ).is_dir()
        if kept in path.parents or has_bundle or not any(any(path.glob(name)) for name in _WEIGHTS):
            continue
        try:
            config = parse_json(read_plain(path / "config.json", _CONFIG_BYTES, links=True).decode())
        except (OSError, ValueError, RecursionError):
            continue  # of something else
        if isinstance(config, dict) and config.get("model_type") == "rag":
            yield path


def _holders(folder: Path, name: str) -> list[Path]:
    """The folders that hold a file ``name``."""
    patterns = ["/".join(["*"] * depth) for depth in range(1, _DEEPEST + 1)]
    return [path.parent for pattern in patterns for path in folder.glob(f"{pattern}/{name}")]


def _index_of(bundle: Bundle, indexes: Sequence[Path], kept: Path, threads: int | None) -> Path:
    """The index that a bundle searches; whether it fits is checked with all others."""
    beside = bundle.path.parent / "index"
    if beside.is_dir():
        return beside
    for path in indexes:
        with open_index(path, verify="size") as index:
            if _belongs(index, bundle):
                return path
    if kept not in bundle.path.parents or bundle.manifest.passage_encoder is None:
        return indexes[0]
    with open_index(indexes[0], verify="size") as index:
        build_index(_passages(index), beside, bundle=bundle, threads=threads, force=False)
    return beside


def _belongs(index: SearchedIndex, bundle: Bundle) -> bool:
    try:
        index.check_belongs_to(bundle)
    except IndexFolderError:
        return False
    return True


def _passages(index: SearchedIndex) -> Iterator[dict[str, str]]:
    """Everything that an index knows of its passages, in their order."""
    for start in range(0, index.count, _ROWS):
        for passage in index.passages(range(start, min(start + _ROWS, index.count))):
            yield {**passage.metadata, "id": passage.id, "title": passage.title, "text": passage.text}


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key that puts step-20 before step-100."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]
