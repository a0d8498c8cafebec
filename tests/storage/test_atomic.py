"""Files that take their place in one step, locks, and what is said where something cannot be written."""

import os
import signal
import stat
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
    if not atomic.exchange(tmp_path / "first", tmp_path / "second"):
        pytest.skip("this system or disk cannot exchange folders")
    assert (tmp_path / "first" / "name").read_text() == "second"
    assert (tmp_path / "second" / "name").read_text() == "first"
    with pytest.raises(FileNotFoundError):
        atomic.exchange(tmp_path / "first", tmp_path / "absent")
