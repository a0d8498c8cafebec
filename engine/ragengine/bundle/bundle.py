"""A bundle: the folder that holds an exported model, and the manifest that describes it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ragengine.bundle.checks import bundle_errors
from ragengine.bundle.manifest import (
    FORMAT,
    FORMAT_VERSION,
    GENERATOR_GRAPHS,
    OLDEST_VERSION,
    BundleManifest,
    EncoderSpec,
)
from ragengine.errors import BundleError
from ragengine.storage import folders
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.schema import join_errors


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files have been checked against its manifest."""

    path: Path
    manifest: BundleManifest

    @classmethod
    def open(cls, path: str | Path, *, verify: folders.Verify = "sha256") -> "Bundle":
        """Open a bundle folder and check it before any library reads one of its files.

        The graphs are inspected: they refer to nothing outside of the bundle, and fit the manifest, the
        tokenizers and each other.  The folder must not change while it is in use: what was checked must stay.

        Args:
            path: the folder.
            verify: ``"sha256"`` reads every file once and so finds every change since the export; ``"size"``
                compares sizes only and starts faster.

        Raises:
            BundleError: the bundle is not whole; the message lists everything that is wrong.
        """
        folder = checked_path(path, BundleError)
        manifest = _read_manifest(folder)
        bundle = cls(folder, manifest)
        folders.check_files(folder, manifest.files, BundleError, needed=bundle._needed(), verify=verify)
        if errors := bundle_errors(folder, manifest):
            raise BundleError(f"{folder} does not fit together: {join_errors(errors)}; export it again.")
        return bundle

    def check_unchanged(self) -> None:
        """Check that the folder holds what was opened, before more of it is read.

        Raises:
            BundleError: another bundle has taken its place, or it is gone.
        """
        try:
            same = _read_manifest(self.path) == self.manifest
        except BundleError as reason:
            raise BundleError(f"The bundle that was loaded is gone: {reason}") from reason
        if not same:
            raise BundleError(f"{self.path} holds another bundle than was loaded; load it again.")

    def file(self, *parts: str) -> Path:
        """The path of a file inside the bundle."""
        return self.path.joinpath(*parts)

    @property
    def index_encoder(self) -> EncoderSpec:
        """The encoder that an index is bound to: the passage encoder, or the question encoder without one."""
        return self.manifest.passage_encoder or self.manifest.question_encoder

    @property
    def fingerprint(self) -> str:
        """What identifies the model, wherever and whenever it was exported: sha256 in hexadecimal."""
        files = {name: entry.sha256 for name, entry in self.manifest.files.items()}
        text = json.dumps([files, asdict(self.manifest.rag)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _needed(self) -> set[str]:
        """The files that will be opened: the manifest must list them, since only listed files are checked."""
        generator = self.manifest.generator.path
        needed = {
            f"{encoder.path}/{name}"
            for encoder in (self.manifest.question_encoder, self.index_encoder)
            for name in (encoder.graph, "tokenizer.json")
        }
        return needed | {f"{generator}/{name}" for name in (*GENERATOR_GRAPHS, "tokenizer.json")}


def _read_manifest(folder: Path) -> BundleManifest:
    return folders.read_manifest(
        folder,
        BundleManifest,
        FORMAT,
        FORMAT_VERSION,
        BundleError,
        oldest=OLDEST_VERSION,
        writer="ragengine export CHECKPOINT BUNDLE",
    )
