"""Fuzz the manifests of bundles and indexes, the files that they list, and the checkpoint of a build."""

import atheris

from tests.support.paths import GOLDEN

with atheris.instrument_imports(include=["ragengine"]):
    from ragengine.bundle.manifest import FORMAT, FORMAT_VERSION, BundleManifest
    from ragengine.errors import BundleError
    from ragengine.indexing.build_state import BuildState
    from ragengine.retrieval.manifest import IndexManifest
    from ragengine.storage import folders

from pathlib import Path

from tests.fuzz.fuzzing import fuzz


def read_manifest_file(folder: Path, data: bytes) -> None:
    """The first byte chooses the kind."""
    (folder / folders.MANIFEST).write_bytes(data[1:])
    if data[:1] == b"i":
        IndexManifest.read(folder)
        return
    if data[:1] == b"s":
        (folder / "state.json").write_bytes(data[1:])
        BuildState.open(folder, {"factory": "Flat"})
        return
    manifest = folders.read_manifest(folder, BundleManifest, FORMAT, FORMAT_VERSION, BundleError)
    folders.check_files(folder, manifest.files, BundleError, needed=set(), verify="sha256")


if __name__ == "__main__":
    kinds = {b"b": "bundle_v4", b"i": "index_v1"}
    fuzz(
        read_manifest_file,
        [
            *(kind + (GOLDEN / name / folders.MANIFEST).read_bytes() for kind, name in kinds.items()),
            b's{"settings": {"factory": "Flat"}, "count": 7, "rows": 3, "max_norm": 1.0}',
        ],
    )
