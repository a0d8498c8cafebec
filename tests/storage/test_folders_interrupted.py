"""What a run leaves that is killed, interrupted or late: never a file of somebody else's is lost."""

import os
from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import IndexFolderError
from ragengine.storage import atomic, folders
from tests.storage.test_folders import FORMAT, read, siblings, write


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("when", ["before the exchange", "at the exchange"])
def test_files_of_others_that_come_meanwhile_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, exchanges: bool
) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    name = {"before the exchange": "write_manifest", "at the exchange": "put_in_place"}[when]
    real = getattr(folders, name)

    def late(*given: Any) -> Any:
        (target / "thesis").write_text("years of work")
        return real(*given)

    monkeypatch.setattr(folders, name, late)
    if not exchanges:
        monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    with pytest.raises(IndexFolderError, match="thesis"):
        write(target, "new")
    assert (target / "thesis").read_text() == "years of work"
    assert read(target).note == "old"
    assert siblings(target) == ["folder"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork")
@pytest.mark.parametrize("exchanges", [True, False])
def test_files_of_others_in_what_a_killed_run_left_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(folders, "_remove", lambda *_: os._exit(9))
        if not exchanges:
            monkeypatch.setattr(atomic, "exchange", lambda *_: False)
        try:
            write(target, "new")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert read(target).note == "new"
    (left,) = [path for path in (tmp_path / ".folder.writing").iterdir() if path.is_dir()]
    (left / "thesis").write_text("years of work")
    with pytest.raises(IndexFolderError, match="thesis"):
        write(target, "newer")
    assert (left / "thesis").read_text() == "years of work"
    (left / "thesis").unlink()
    write(target, "newer")
    assert read(target).note == "newer"
    assert siblings(target) == ["folder"]


def test_files_of_others_stay_where_a_run_is_interrupted_as_it_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, check = tmp_path / "folder", folders.check_nothing_foreign
    write(target, "old")

    def interrupted(old: Path, *_: Any) -> None:
        monkeypatch.setattr(folders, "check_nothing_foreign", check)
        (old / "thesis").write_text("years of work")
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "check_nothing_foreign", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(target, "new")
    assert read(target).note == "new"
    (kept,) = (tmp_path / ".folder.writing").rglob("thesis")
    assert kept.read_text() == "years of work"


def test_a_workspace_is_kept_for_the_next_run_unless_it_is_hopeless(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write(target, "old")

    def run(error: BaseException | None, *, resume: bool) -> str:
        with folders.resumable_folder(
            target, FORMAT, IndexFolderError, resume=resume, hopeless=(ValueError,)
        ) as workspace:
            found = (workspace / "state").read_text() if (workspace / "state").exists() else "nothing"
            (workspace / "state").write_text("half")
            if error is not None:
                raise error
            (workspace / folders.OUTPUT).mkdir()
            content = {"format": FORMAT, "format_version": 1, "note": "new"}
            folders.write_manifest(workspace / folders.OUTPUT, content)
        return found

    said = "nothing was changed, and the same command with --resume goes on from here"
    with pytest.raises(IndexFolderError, match=f"No space left .*; {said}"):
        run(OSError(28, "No space left on device"), resume=False)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(KeyboardInterrupt(), resume=True)
    assert caught.value.__notes__ == [f"{target}: {said}"]
    assert siblings(target) == [".folder.writing", "folder"]
    assert run(None, resume=True) == "half"
    assert siblings(target) == ["folder"]
    for error, resume, kept in ((KeyboardInterrupt(), True, True), (ValueError(), False, False)):
        with pytest.raises(type(error)):
            run(error, resume=resume)
        assert (tmp_path / ".folder.writing").exists() is kept
    with pytest.raises(KeyboardInterrupt):
        run(KeyboardInterrupt(), resume=True)
    assert run(None, resume=False) == "nothing"
    assert read(target).note == "new"


def test_what_was_not_removed_before_a_kill_is_no_obstacle(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    resumed = folders.resumable_folder(target, FORMAT, IndexFolderError, resume=True, hopeless=())
    with resumed as workspace:
        (workspace / folders.REMOVED).mkdir()
        (workspace / folders.REMOVED / "data").touch()
        (workspace / folders.OUTPUT).mkdir()
        content = {"format": FORMAT, "format_version": 1, "note": "new"}
        folders.write_manifest(workspace / folders.OUTPUT, content)
    assert read(target).note == "new"
    assert siblings(target) == ["folder"]
