"""What `ragengine eval` compares, and whether it can answer, before hours of asking."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.checks import option_errors
from ragengine.errors import OptionsError
from ragengine.evaluation.run import checked_ks
from ragengine.options import GenerationOptions, check_names
from ragengine.retrieval.index import PassageIndex
from ragengine.storage.folders import Verify


@dataclass(frozen=True)
class System:
    """A bundle, an index, and the generation options that differ from the bundle's own, by name."""

    bundle: Path
    index: Path
    options: dict[str, Any]


def check_systems(systems: Sequence[System], *, ks: Sequence[int], verify: Verify) -> None:
    """Raise what keeps one of ``systems`` from answering, without loading a model.

    Each bundle and each index is opened once and checked as ``verify`` says, and an index must belong to its
    bundle; options must be right and fit the bundle, and ``ks`` their n_docs.  Raises :class:`OptionsError`,
    :class:`InputError`, :class:`BundleError` or :class:`IndexFolderError`.
    """
    for system in systems:  # names need no file
        check_names(system.options)
    bundles = {path: Bundle.open(path, verify=verify) for path in _once(one.bundle for one in systems)}
    for system in systems:
        checked_ks(ks, _checked_options(bundles[system.bundle], system.options).n_docs)
    for path in _once(one.index for one in systems):
        with PassageIndex.open(path, verify=verify) as index:
            for bundle in _once(one.bundle for one in systems if one.index == path):
                index.check_belongs_to(bundles[bundle])


def _once(paths: Iterable[Path]) -> list[Path]:
    """``paths`` in their order, each once."""
    return list(dict.fromkeys(paths))


def _checked_options(bundle: Bundle, changes: dict[str, Any]) -> GenerationOptions:
    """The options of a bundle with some of them changed."""
    options = GenerationOptions.from_dict(bundle.manifest.generation).replace(**changes)
    if faults := option_errors(options, bundle.manifest.generator):
        raise OptionsError(f"Generation options do not fit {bundle.path}: {'; '.join(faults)}.")
    return options
