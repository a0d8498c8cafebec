"""A folder is whole or not there, whatever happens while it is written."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import IndexFolderError, InputError
from ragengine.storage import atomic, folders

FORMAT = "test-format"


@dataclass(frozen=True)
class Manifest:
    note: str
    files: dict[str, folders.FileEntry]


def write(target: Path, note: str) -> None:
    with folders.replaced_folder(target, FORMAT, IndexFolderError) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "data").write_text(note)
        folders.write_manifest(folder, {"format": FORMAT, "format_version": 1, "note": note})


def fail_while_writing(target: Path, error: type[BaseException] = ValueError) -> None:
    with folders.replaced_folder(target, FORMAT, IndexFolderError) as folder:
        (folder / "half").write_text("new")
        raise error


def read(target: Path) -> Manifest:
    manifest = folders.read_manifest(target, Manifest, FORMAT, 1, IndexFolderError)
    folders.check_files(target, manifest.files, IndexFolderError)
    return manifest


def siblings(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_write_read_and_replace(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    write(target, "first")
    assert read(target).note == "first"
    write(target, "second")
    assert read(target).note == "second"
    assert list(read(target).files) == ["sub/data"]
    assert siblings(target) == ["folder"]


@pytest.mark.parametrize("force", ["no", 0, None], ids=repr)
def test_what_neither_forces_nor_does_not_replaces_nothing(tmp_path: Path, force: Any) -> None:
    target = tmp_path / "folder"
    write(target, "first")
    with (
        pytest.raises(IndexFolderError, match=r"force is ('no'|0|None); it must be True or False\.$"),
        folders.replaced_folder(target, FORMAT, IndexFolderError, force=force),
    ):
        pytest.fail("the block was entered")
    assert read(target).note == "first"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_exception_inside_leaves_the_old_one_whole(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    with pytest.raises((error, IndexFolderError)):
        fail_while_writing(target, error)
    assert read(target).note == "old"
    assert siblings(target) == ["folder"]


def test_exception_inside_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        fail_while_writing(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["while writing", "between the renames"])
def test_killed_process_leaves_the_old_one_for_the_next_write(tmp_path: Path, when: str) -> None:
    """Also where a system cannot exchange two folders in one step."""
    target = tmp_path / "folder"
    write(target, "old")
    code = f"""
import os, sys
from pathlib import Path
from ragengine.storage import atomic, folders
atomic.exchange = lambda *_: False
real = os.rename
def rename(old, new):
    real(old, new)
    os._exit(9)
with folders.replaced_folder(Path(sys.argv[1]), {FORMAT!r}, Exception) as folder:
    (folder / "half").write_text("new")
    if {when!r} == "while writing":
        os._exit(9)
    folders.write_manifest(folder, {{}})
    os.rename = rename
"""
    run = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert run.returncode == 9
    with pytest.raises(ValueError):
        fail_while_writing(target)
    assert read(target).note == "old"
    assert siblings(target) == ["folder"]


def test_where_folders_cannot_be_exchanged_the_old_one_is_moved_away_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    target = tmp_path / "folder"
    for note in ("old", "new"):
        write(target, note)
        assert read(target).note == note
    assert siblings(target) == ["folder"]


def test_failing_last_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    real = os.rename

    def rename(old: Path, new: Path) -> None:
        if old.name == folders.OUTPUT:
            raise OSError(28, "No space left on device")
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        patch.setattr(atomic, "exchange", lambda *_: False)
        with pytest.raises(IndexFolderError, match=r"No space left .*; make room .*; nothing was changed"):
            write(target, "new")
    assert read(target).note == "old"
    assert siblings(target) == ["folder"]


@pytest.mark.parametrize("replaced", [False, True])
def test_disk_that_fails_for_good_at_the_exchange_is_not_said_to_have_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    put_in_place = folders.put_in_place

    def fail(*_: object, **__: object) -> Any:
        raise OSError(5, "Input/output error")

    def exchanged(*paths: Path) -> None:
        if replaced:
            put_in_place(*paths)
        monkeypatch.setattr(folders, "read_plain", fail)
        fail()

    monkeypatch.setattr(folders, "put_in_place", exchanged)
    with pytest.raises(IndexFolderError, match="Input/output error") as caught:
        write(target, "new")
    assert "the disk does not tell whether the new one is in place" in str(caught.value)
    assert "nothing was changed" not in str(caught.value)
    monkeypatch.undo()
    assert read(target).note == ("new" if replaced else "old")


def test_disk_that_fails_for_good_before_the_exchange_has_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    write(target, "old")

    def fail(*_: object, **__: object) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(folders, "read_plain", fail)
    with (
        pytest.raises(IndexFolderError, match="nothing was changed"),
        folders.replaced_folder(target, FORMAT, IndexFolderError),
    ):
        fail()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_others_may_not_read_stays_so_while_it_is_written_too(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write(target, "old")
    target.chmod(0o700)
    with folders.replaced_folder(target, FORMAT, IndexFolderError) as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        folders.write_manifest(folder, {"format": FORMAT, "format_version": 1, "note": "new"})
    assert read(target).note == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "folder", tmp_path / "link"
    write(target, "old")
    link.symlink_to(target)
    for note in ("new", "newer"):
        write(link, note)
        assert link.is_symlink()
        assert read(target).note == note
    assert siblings(target) == ["folder", "link"]


@pytest.mark.parametrize("content", ["other format", "no manifest", "damaged manifest", "a file"])
def test_what_is_not_ours_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    target = tmp_path / "thesis"
    if content == "a file":
        target.write_text("years of work")
    else:
        target.mkdir()
        (target / "chapter").write_text("years of work")
    if content == "other format":
        (target / "manifest.json").write_text(json.dumps({"format": "something else"}))
    if content == "damaged manifest":
        (target / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(IndexFolderError, match="exists and is not a test-format; choose another path"):
        write(target, "new")
    assert (target if content == "a file" else target / "chapter").read_text() == "years of work"


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", "new")
    assert read(tmp_path / "folder").note == "new"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "says format 'list'"),
        ("{}", "says format None"),
        ({"format": FORMAT}, "has format_version None"),
        ({"format": FORMAT, "format_version": True}, "has format_version True"),
        ({"format": FORMAT, "format_version": 2}, "reads up to 1; upgrade"),
        ({"format": FORMAT, "format_version": 1}, "note: missing; files: missing"),
    ],
)
def test_wrong_manifest_is_named(tmp_path: Path, content: str | dict[str, Any], message: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(IndexFolderError, match=message):
        read(tmp_path)


def test_missing_folder_and_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="is not a folder"):
        read(tmp_path / "absent")
    with pytest.raises(IndexFolderError, match=r"cannot be read: .*File name too long"):
        read(tmp_path / ("x" * 256))
    with pytest.raises(IndexFolderError, match=r"has no manifest\.json"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a\\b", "a\0b", "", "x" * 5000, "\ud800", "sub/../../outside"]
)
def test_listed_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("")
    folder = tmp_path / "folder"
    folder.mkdir()
    empty = folders.FileEntry(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    with pytest.raises(IndexFolderError, match="is damaged"):
        folders.check_files(folder, {name: empty}, IndexFolderError)


def test_every_damaged_file_is_reported(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with folders.replaced_folder(target, FORMAT, IndexFolderError) as folder:
        for name in ("cut", "flipped", "linked", "removed", "whole"):
            (folder / name).write_text("content")
        folders.write_manifest(folder, {"format": FORMAT, "format_version": 1, "note": ""})
    (target / "cut").write_text("conten")
    (target / "flipped").write_text("cOntent")
    (target / "removed").unlink()
    (target / "linked").unlink()
    (target / "linked").symlink_to(target / "whole")
    with pytest.raises(IndexFolderError) as caught:
        read(target)
    message = str(caught.value)
    for part in (
        "cut has 6 bytes instead of 7",
        "flipped has another sha256",
        "linked is missing",
        "removed is missing",
    ):
        assert part in message
    assert "whole" not in message


def test_another_writer_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with folders.replaced_folder(target, FORMAT, IndexFolderError) as folder:
        folders.write_manifest(folder, {"format": FORMAT, "format_version": 1, "note": "first"})
        with pytest.raises(IndexFolderError, match="is being written by another process; wait for it or"):
            write(target, "second")
    assert read(target).note == "first"


def test_folders_above_are_made_and_other_targets_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "folder", "new")
    (tmp_path / "file").touch()
    for target, message in ((tmp_path / "file" / "folder", "cannot be written: "), ("a\0b", "is not a path")):
        with pytest.raises(IndexFolderError, match=message):
            write(Path(target), "new")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (0, "has format_version 0; a whole number from 1 to 3 was expected"),
        (1, "has format version 1, this ragengine reads 2 to 3; write the folder again"),
        (2, None),
        (3, None),
        (4, "has format version 4, this ragengine reads up to 3; upgrade"),
    ],
)
def test_versions_between_the_oldest_and_the_newest_are_read(
    tmp_path: Path, version: int, message: str | None
) -> None:
    folders.write_manifest(tmp_path, {"format": FORMAT, "format_version": version, "note": "é"})

    def note() -> str:
        return folders.read_manifest(tmp_path, Manifest, FORMAT, 3, IndexFolderError, oldest=2).note

    if message is None:
        assert note() == "é"
    else:
        with pytest.raises(IndexFolderError, match=message):
            note()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, r"nothing is not a folder; a tests was expected there"),
        ({}, r"nothing has no manifest.json, so it is not a tests"),
        ({"format": "other"}, r"manifest.json says format 'other'; 'tests' was expected"),
    ],
)
def test_what_is_no_such_folder_is_told_with_the_command_that_writes_one(
    tmp_path: Path, made: dict[str, Any] | None, message: str
) -> None:
    folder = tmp_path / "nothing"
    if made is not None:
        folder.mkdir()
    if made:
        folders.write_manifest(folder, made)
    for writer, end in ((None, r"\.$"), ("make it", r" \(make it writes one\)\.$")):
        with pytest.raises(IndexFolderError, match=message + end):
            folders.read_manifest(folder, Manifest, "tests", 1, IndexFolderError, writer=writer)


def test_what_a_check_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").touch()
    entry = folders.FileEntry(0, "0" * 64)
    folders.check_files(tmp_path, {"data": entry}, IndexFolderError, needed=["data"], verify="size")
    with pytest.raises(IndexFolderError, match="data has another sha256 than the manifest"):
        folders.check_files(tmp_path, {"data": entry}, IndexFolderError)
    with pytest.raises(IndexFolderError, match="the manifest does not list more"):
        folders.check_files(tmp_path, {"data": entry}, IndexFolderError, needed=["more"], verify="size")
    with pytest.raises(InputError, match="verify is 'none'; it must be 'sha256' or 'size'"):
        folders.check_files(tmp_path, {}, IndexFolderError, verify="none")

    def fail(*_: object) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", fail)
        with pytest.raises(IndexFolderError, match=r"'data' cannot be read \(Input/output error\)"):
            folders.check_files(tmp_path, {"data": entry}, IndexFolderError)
