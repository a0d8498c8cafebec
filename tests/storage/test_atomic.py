"""Files that take their place in one step, locks, and what is said where something cannot be written."""

import contextlib
import ctypes
import errno
import os
import signal
import stat
import sys
import threading
from pathlib import Path

import pytest

from ragengine.errors import InputError
from ragengine.storage import atomic
from tests.robustness.forks import in_fork

posix = pytest.mark.skipif(os.name != "posix", reason="locks and pipes of POSIX")


def write(path: Path, text: str) -> None:
    with atomic.output_file(path) as file:
        file.write(text.encode())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_replaced_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write(target, "a first text")
    write(target, "second")
    assert target.read_text() == "second"

    def interrupted() -> None:
        with atomic.output_file(target) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "second"
    assert names(tmp_path) == ["report.json"]


def test_leftover_of_a_killed_run_is_written_over(tmp_path: Path) -> None:
    def killed() -> None:
        with atomic.output_file(tmp_path / "report.json") as file:
            file.write(b"what a killed run has written, longer than the new text")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed).signal == signal.SIGKILL
    assert names(tmp_path) == [".report.json.writing"]
    write(tmp_path / "report.json", "new")
    assert (tmp_path / "report.json").read_text() == "new"
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_somebody_else_has_at_the_hidden_name_stays(tmp_path: Path, kind: str) -> None:
    hidden = tmp_path / ".report.json.writing"
    if kind == "file":
        hidden.write_text("mine")
    elif kind == "folder":
        hidden.mkdir()
        (hidden / "report.json").write_text("mine")
    else:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "report.json").write_text("mine")
        hidden.symlink_to("mine")
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"\.report\.json\.writing"):
        write(tmp_path / "report.json", "new")
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for text in ("old", "new"):
        write(tmp_path / "link", text)
        assert (tmp_path / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()


@posix
def test_what_others_may_not_read_stays_so(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    write(target, "old")
    target.chmod(0o600)
    write(target, "new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@posix
def test_pipes_and_devices_are_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    write(pipe, "through")
    reader.join()
    assert heard == ["through"]
    assert pipe.is_fifo()
    write(Path("/dev/null"), "nothing")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_full_disk_is_said() -> None:
    with pytest.raises(InputError, match=r"^/dev/full cannot be written: No space left on device; make room"):
        write(Path("/dev/full"), "x" * 100_000)


@pytest.mark.parametrize("name", ["missing/file", "folder", "file/below", "x" * 256, "a\0b", "half\ud800"])
def test_paths_that_cannot_be_written_are_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "file", "text")
    with pytest.raises(InputError, match=r"cannot be written: .*\.$"):
        write(tmp_path / name, "new")
    assert names(tmp_path) == ["file", "folder"]


@posix
def test_two_writers_of_one_file(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    with atomic.output_file(target) as file:
        file.write(b"first")
        with pytest.raises(InputError, match=r"another process is writing it .*; wait for it or stop it"):
            write(target, "second")
    assert target.read_text() == "first"


@posix
@posix
def test_a_file_is_locked_until_it_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer would else write into what takes its place."""
    target, replace, refused = tmp_path / "file", Path.replace, []

    def tried(self: Path, to: Path) -> Path:
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            atomic.lock(self, os.O_RDWR)
        refused.append(self)
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", tried)
    with atomic.replaced_file(target) as file:
        file.write(b"text")
    assert refused == [tmp_path / ".file.writing"]
    assert target.read_bytes() == b"text"


def test_the_error_of_the_block_is_raised_where_its_file_is_gone(tmp_path: Path) -> None:
    def failing() -> None:
        with atomic.replaced_file(tmp_path / "file"):
            (tmp_path / ".file.writing").unlink()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert names(tmp_path) == []


def test_lock_goes_with_the_process(tmp_path: Path) -> None:
    def held() -> None:
        atomic.lock(tmp_path, os.O_RDONLY)

    handle = atomic.lock(tmp_path, os.O_RDONLY)
    assert "another process is writing it" in (in_fork(held).error or "")
    os.close(handle)
    assert in_fork(held).error is None
    os.close(atomic.lock(tmp_path, os.O_RDONLY))


def test_folders_change_places(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    first, second = tmp_path / "first", tmp_path / "second"
    rename = atomic._renameat2()
    if rename is None or rename(-100, os.fsencode(first), -100, os.fsencode(second), 2):
        pytest.skip("this system or disk cannot exchange folders")
    assert (first / "name").read_text() == "second"
    assert atomic.exchange(first, second)
    assert (first / "name").read_text() == "first"
    assert (second / "name").read_text() == "second"
    with pytest.raises(FileNotFoundError, match=r"first.*absent") as caught:
        atomic.exchange(first, tmp_path / "absent")
    assert (caught.value.filename, caught.value.filename2) == (str(first), str(tmp_path / "absent"))


def test_a_disk_that_cannot_exchange_says_so_and_others_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EIO]

    def refuse(*_: object) -> int:
        ctypes.set_errno(numbers.pop(0))
        return -1

    monkeypatch.setattr(atomic, "_renameat2", lambda: refuse)
    for _ in range(3):
        assert not atomic.exchange(tmp_path, tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        atomic.exchange(tmp_path, tmp_path)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are synced, in order."""
    found: list[str] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        found.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@linux
def test_a_file_is_synced_before_and_its_name_after_it_takes_its_place(
    tmp_path: Path, synced: list[str]
) -> None:
    with atomic.replaced_file(tmp_path / "file") as file:
        file.write(b"text")
    assert synced == [str(tmp_path / ".file.writing"), str(tmp_path)]


@linux
@pytest.mark.parametrize("replaced", [True, False])
def test_a_folder_is_synced_before_and_its_name_after_it_takes_its_place(
    tmp_path: Path, synced: list[str], replaced: bool
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("new")
    if replaced:
        target.mkdir()
        (target / "file").write_text("old")
    old = atomic.put_in_place(source, target, tmp_path / "aside")
    assert synced == [str(path) for path in (source / "sub", source / "sub" / "file", source, tmp_path)]
    assert (target / "sub" / "file").read_text() == "new"
    if not replaced:
        assert old is None
        return
    assert old is not None
    assert (old / "file").read_text() == "old"
    atomic.take_back(source, target, old)
    assert (target / "file").read_text() == "old"
    assert (source / "sub" / "file").read_text() == "new"


def test_where_nothing_can_be_exchanged_the_old_folder_goes_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_renameat2", lambda: None)
    source, target, aside = (tmp_path / name for name in ("source", "target", "aside"))
    for folder in (source, target):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    assert atomic.put_in_place(source, target, aside) == aside
    assert ((target / "name").read_text(), (aside / "name").read_text()) == ("source", "target")
    atomic.take_back(source, target, aside)
    assert ((target / "name").read_text(), (source / "name").read_text()) == ("target", "source")


@pytest.mark.parametrize(
    ("number", "raised"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)]
)
def test_only_a_disk_that_cannot_sync_folders_is_forgiven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error") if raised else contextlib.nullcontext():
        atomic.sync(tmp_path)


def test_a_name_that_cannot_be_synced_is_there_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail_for_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    write(tmp_path / "report.json", "new")
    assert (tmp_path / "report.json").read_text() == "new"


def test_folders_above_are_made_on_demand(tmp_path: Path) -> None:
    for _ in range(2):
        with atomic.output_file(tmp_path / "a" / "b" / "file", parents=True) as file:
            file.write(b"text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"
    assert names(tmp_path / "a" / "b") == ["file"]


def test_a_held_folder_is_locked_and_goes_when_it_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    with atomic.held_folder(folder):
        assert folder.is_dir()
        with pytest.raises(BlockingIOError), atomic.held_folder(folder):
            pass
    assert not folder.exists()
    with atomic.held_folder(folder):
        (folder / "file").touch()
    assert names(folder) == ["file"]
    handles = names(Path("/dev/fd"))
    with atomic.held_folder(folder):
        pass
    assert names(Path("/dev/fd")) == handles


def test_what_cannot_be_written_and_what_to_do() -> None:
    full = OSError(errno.ENOSPC, "No space left", "/disk/file")
    assert atomic.explained(full) == "No space left (/disk/file); make room there or write to another disk"
    assert atomic.explained(OSError(errno.ELOOP, "Loop")) == "Loop; choose another path"
    assert atomic.explained(ValueError("odd")) == "odd; choose another path"
    assert atomic.explained(OSError(errno.EIO, "x", "n" * 500)).startswith(f"x ({'n' * 200}); check")


@posix
def test_locks_and_syncs_leave_nothing_open_and_files_are_not_executable(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    handle = atomic.lock(path, os.O_RDWR | os.O_CREAT)
    assert not stat.S_IMODE(path.stat().st_mode) & 0o111
    before = names(Path("/dev/fd"))
    with pytest.raises(BlockingIOError):
        atomic.lock(path, os.O_RDWR)
    atomic.sync(tmp_path)
    assert names(Path("/dev/fd")) == before
    os.close(handle)
