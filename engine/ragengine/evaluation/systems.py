"""What `ragengine eval` compares, and whether it can answer: checked before hours of answering."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.checks import option_errors
from ragengine.errors import OptionsError
from ragengine.evaluation.run import checked_ks
from ragengine.options import GenerationOptions, check_names
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.storage.folders import Verify


@dataclass(frozen=True)
class System:
    """A bundle, an index, and the generation options that differ from the bundle's defaults, by name.

    With ``closed_book`` the generator answers alone.
    """

    bundle: Path
    index: Path
    options: dict[str, Any]
    closed_book: bool = False


def check_systems(
    systems: Sequence[System], *, ks: Sequence[int], verify: Verify, remote: RemoteOptions | None = None
) -> None:
    """Raise what prevents one of ``systems`` from answering, without loading a model.

    Each bundle and each index is opened once.

    Args:
        systems: what is to answer.
        ks: the k of recall and precision, each at most n_docs.
        verify: how the files are compared with their manifests.
        remote: how shards of the indexes on other machines are asked; None: they are not.

    Raises:
        OptionsError: a generation option is wrong or does not fit its bundle.
        InputError: a k is above n_docs.
        BundleError: a bundle is not whole.
        IndexFolderError: an index is not whole, or does not belong to its bundle.
    """
    for system in systems:  # the names first, since they need no file
        check_names(system.options)
    bundles = {path: Bundle.open(path, verify=verify) for path in _once(one.bundle for one in systems)}
    for system in systems:
        checked_ks(ks, _checked_options(bundles[system.bundle], system.options).n_docs)
    for path in _once(one.index for one in systems):
        with open_index(path, verify=verify, remote=remote) as index:
            for bundle in _once(one.bundle for one in systems if one.index == path):
                index.check_belongs_to(bundles[bundle])


def _once(paths: Iterable[Path]) -> list[Path]:
    """``paths`` in their order, each once."""
    return list(dict.fromkeys(paths))


def _checked_options(bundle: Bundle, changes: dict[str, Any]) -> GenerationOptions:
    """The default options of a bundle with some of them changed."""
    options = GenerationOptions.from_dict(bundle.manifest.generation).replace(**changes)
    if errors := option_errors(options, bundle.manifest.generator):
        raise OptionsError(f"Generation options do not fit {bundle.path}: {'; '.join(errors)}.")
    return options
