"""Whose a folder is: ours by its mark or its manifest, and nothing else is replaced."""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from ragengine.errors import InputError
from ragengine.storage.ownership import MANIFEST, MARK, check_nothing_foreign, check_replaceable, marked
from tests.robustness.forks import in_fork

FORMAT = "a-format"


def ours(folder: Path) -> Path:
    """A folder of ``FORMAT`` with one file in a subfolder."""
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").touch()
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": {"sub/file": {}}}))
    return folder


def foreign(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        check_nothing_foreign(folder, folder, FORMAT, InputError)
    return str(caught.value)


def test_the_mark_is_there_as_long_as_something_else_is(tmp_path: Path) -> None:
    with marked(tmp_path, InputError):
        assert (tmp_path / MARK).is_file()
    assert not (tmp_path / MARK).exists()
    with marked(tmp_path, InputError):
        (tmp_path / "left").touch()
    assert (tmp_path / MARK).is_file()
    with marked(tmp_path, InputError):  # by the mark it is ours, whatever is in it
        (tmp_path / "left").unlink()
    assert not any(tmp_path.iterdir())


def test_a_workspace_of_somebody_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis").touch()
    with pytest.raises(InputError, match="is not a folder that ragengine made"), marked(tmp_path, InputError):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_what_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "absent", tmp_path / "empty", ours(tmp_path / "ours")):
        check_replaceable(folder, FORMAT, InputError)
    with pytest.raises(InputError, match="exists and is not a other-format"):
        check_replaceable(tmp_path / "ours", "other-format", InputError)
    (tmp_path / "dangling").symlink_to("absent")
    with pytest.raises(InputError, match="exists and is not a a-format"):
        check_replaceable(tmp_path / "dangling", FORMAT, InputError)
    (tmp_path / "ours" / "mine").touch()
    with pytest.raises(InputError, match="holds mine beside the a-format"):
        check_replaceable(tmp_path / "ours", FORMAT, InputError)


@pytest.mark.parametrize("content", ["[]", "{", '{"format": "other"}', "[" * 100_000])
def test_another_manifest_makes_nothing_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InputError, match="exists and is not a a-format"):
        check_replaceable(tmp_path, FORMAT, InputError)
    assert "holds manifest.json" in foreign(tmp_path)


def test_a_manifest_without_a_list_has_itself_alone(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": 1}))
    check_replaceable(tmp_path, FORMAT, InputError)
    (tmp_path / "file").touch()
    assert "holds file beside" in foreign(tmp_path)


def test_foreign_files_are_named_by_the_deepest_and_at_most_three(tmp_path: Path) -> None:
    folder = ours(tmp_path / "ours")
    check_nothing_foreign(folder, folder, FORMAT, InputError)
    (folder / "a" / "b").mkdir(parents=True)
    assert "holds a/b beside" in foreign(folder)
    for name in "cde":
        (folder / "sub" / name).touch()
    assert "holds a/b, sub/c, sub/d and more beside" in foreign(folder)
    (folder / "sub" / "e").unlink()
    assert "holds a/b, sub/c, sub/d beside" in foreign(folder)


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ours(tmp_path / "ours")
    for inside in (folder, folder / "sub"):
        monkeypatch.chdir(inside)
        with pytest.raises(InputError, match="is or holds the current folder"):
            check_replaceable(folder, FORMAT, InputError)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a mount point")
def test_a_mount_point_is_not_replaced() -> None:
    with pytest.raises(InputError, match="/proc is a mount point"):
        check_replaceable(Path("/proc"), FORMAT, InputError)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_what_may_not_be_written_is_refused_before_the_work() -> None:
    def check() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        check_replaceable(folder, FORMAT, InputError)

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = ours(Path(name, "ours"))
        folder.chmod(0o555)
        said = in_fork(check).error or ""
        folder.chmod(0o755)
    assert "PermissionError" in said
    assert str(folder) in said


def test_without_force_only_what_is_empty_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "absent", tmp_path / "empty"):
        check_replaceable(folder, FORMAT, InputError, force=False)
    folder = ours(tmp_path / "ours")
    with pytest.raises(InputError) as raised:
        check_replaceable(folder, FORMAT, InputError, force=False)
    assert str(raised.value) == (
        f"{folder} exists; give --force to replace it (in Python force=True), or another path."
    )
    with pytest.raises(InputError, match="is not a other-format"):  # force would not help
        check_replaceable(folder, "other-format", InputError, force=False)
