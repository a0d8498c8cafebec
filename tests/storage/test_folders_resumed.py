"""What a run that goes on where another ended may replace."""

from pathlib import Path

import pytest

from ragengine.errors import IndexFolderError
from ragengine.storage import folders


def test_a_resumed_run_replaces_what_the_first_was_allowed_to(tmp_path: Path) -> None:
    """Without ``force`` a folder stays, unless a run that had it is gone on with."""
    target, everything = tmp_path / "t", (BaseException,)

    def write(text: str, *, resume: bool, force: bool, kill: bool = False) -> None:
        with folders.resumable_folder(
            target, "f", IndexFolderError, resume=resume, hopeless=() if kill else everything, force=force
        ) as workspace:
            (workspace / folders.OUTPUT).mkdir(exist_ok=True)
            (workspace / folders.OUTPUT / "text").write_text(text)
            if kill:
                raise KeyboardInterrupt
            folders.write_manifest(workspace / folders.OUTPUT, {"format": "f"})

    write("first", resume=False, force=False)
    for resume in (False, True):
        with pytest.raises(IndexFolderError, match="exists; give --force"):
            write("second", resume=resume, force=False)
    assert (target / "text").read_text() == "first"
    with pytest.raises(KeyboardInterrupt):
        write("third", resume=False, force=True, kill=True)
    assert (target / "text").read_text() == "first"
    write("fourth", resume=True, force=False)
    assert (target / "text").read_text() == "fourth"
