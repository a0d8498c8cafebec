"""Opening files of strangers: the edges of what is read, and what is said of the rest."""

import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ragengine.errors import InputError, PassagesError
from ragengine.storage import foreign_files
from ragengine.storage.foreign_files import (
    checked_path,
    file_mode,
    json_lines,
    open_plain,
    plain_size,
    read_plain,
    shown_path,
    utf8_lines,
    why,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"12345")
    return path


def test_a_file_of_the_most_bytes_is_read_and_one_byte_more_is_not(file: Path) -> None:
    assert read_plain(file, 5) == b"12345"
    with pytest.raises(ValueError, match="it has 5 bytes, more than the 4 that are read"):
        read_plain(file, 4)
    assert plain_size(file) == 5


@posix
def test_links_are_followed_where_a_user_names_them(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to("file")
    with open_plain(link) as opened:
        assert opened.read() == b"12345"
    assert read_plain(link, 5, links=True) == b"12345"
    assert plain_size(link) == 5
    for refused in (lambda: open_plain(link, links=False), lambda: read_plain(link, 5)):
        with pytest.raises(ValueError, match="it is not a plain file"):
            refused()


@posix
def test_links_in_a_folder_stay_inside(file: Path, tmp_path: Path) -> None:
    inside, outside, secret = file.with_name("inside"), file.with_name("outside"), tmp_path / "secret"
    secret.write_bytes(b"secret")
    inside.symlink_to("file")
    outside.symlink_to("../secret")
    (tmp_path / "way").symlink_to(file.parent)
    for folder in (file.parent, tmp_path / "way"):  # which may be reached by a link itself
        assert read_plain(inside, 5, within=folder) == b"12345"
        assert plain_size(inside, within=folder) == 5
        for reader in (
            lambda folder=folder: open_plain(outside, within=folder),
            lambda folder=folder: read_plain(outside, 9, within=folder),
            lambda folder=folder: plain_size(outside, within=folder),
        ):
            with pytest.raises(ValueError, match="it is a link that leads out of"):
                reader()
        with pytest.raises(PassagesError, match="it is a link that leads out of"):
            list(utf8_lines(outside, PassagesError, within=folder))
    with pytest.raises(FileNotFoundError):
        plain_size(file.with_name("absent"), within=file.parent)


@posix
@pytest.mark.parametrize("read", [open_plain, plain_size, lambda path: read_plain(path, 9)])
def test_folders_pipes_and_devices_are_refused(file: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(file.with_name("pipe"))
    for path in (file.parent, file.with_name("pipe"), Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is not a plain file"):
            read(path)


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@posix
def test_what_took_the_place_of_a_file_after_the_look_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = file.stat()
    pipe = file.with_name("pipe")
    os.mkfifo(pipe)
    before = open_files()
    monkeypatch.setattr(os, "stat", lambda path: looked)
    monkeypatch.setattr(os, "lstat", lambda path: looked)
    for links in (True, False):
        with pytest.raises(ValueError, match="it is not a plain file"):
            open_plain(pipe, links=links)
    link = file.with_name("link")
    link.symlink_to("file")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_plain(link, links=False)
    assert open_files() == before  # nothing stays open


@posix
def test_what_became_a_link_after_the_look_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = file.with_name("link")
    link.symlink_to("file")
    monkeypatch.setattr(foreign_files, "_real_path", lambda path, within: link)
    with pytest.raises(ValueError, match="it is not a plain file"):
        open_plain(file, within=file.parent)


def test_lines_and_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_files, "LONGEST_LINE", 8)
    path = tmp_path / "lines"
    path.write_bytes("\ufeffab\r\n\ufeffé\n12345678".encode())
    assert list(utf8_lines(path, PassagesError)) == ["ab\r\n", "\ufeffé\n", "12345678"]
    path.write_bytes(b"1\n12345678\n")
    with pytest.raises(PassagesError, match=rf"^{re.escape(str(path))}, line 2: it has more than 8 bytes"):
        list(utf8_lines(path, PassagesError))
    path.write_bytes(b"1\nab\xff\n")
    for error in (PassagesError, InputError):
        with pytest.raises(error, match=rf"^{re.escape(str(path))}, line 2: byte 0xff at position 2 is not"):
            list(utf8_lines(path, error))
    with pytest.raises(InputError, match=r"absent cannot be read: No such file or directory\.$"):
        list(utf8_lines(tmp_path / "absent", InputError))
    with pytest.raises(InputError, match=r"cannot be read: it is not a plain file\.$"):
        list(utf8_lines(tmp_path, InputError))


def test_json_lines_are_counted_with_the_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes("\ufeff1\n \n\ufeff\n\ufeff2\n".encode())
    assert list(json_lines(path, InputError)) == [(1, "1\n"), (4, "2\n")]


def test_paths_that_can_be_named(tmp_path: Path) -> None:
    assert checked_path(str(tmp_path), InputError) == tmp_path
    with pytest.raises(InputError, match=r"'a\\x00b' is not a path \(it holds a null character\)"):
        checked_path("a\0b", InputError)
    with pytest.raises(InputError, match=r"'\\udcff' is not a path in UTF-8 \(surrogates not allowed\)"):
        checked_path("\udcff", InputError)


@posix
def test_the_mode_of_what_is_there(file: Path) -> None:
    assert stat.S_ISREG(file_mode(file))
    assert stat.S_ISDIR(file_mode(file.parent))
    for absent in (file.with_name("absent"), file / "below"):
        assert file_mode(absent) == 0
    with pytest.raises(OSError, match="File name too long"):
        file_mode(file.with_name("x" * 300))


def test_a_path_is_shown_in_one_line() -> None:
    for shown in ("a/b", "x" * 300, "é"):
        assert shown_path(shown) == shown
    assert shown_path("a\nb") == r"'a\nb'"
    assert shown_path("x" * 301) == f"'{'x' * 200}'..."
    assert shown_path("\n" * 200) == repr("\n" * 200)
    assert shown_path("\n" * 201) == repr("\n" * 200) + "..."


def test_why_says_neither_number_nor_path() -> None:
    assert why(FileNotFoundError(2, "No such file", "/secret")) == "No such file"
    assert why(ValueError("it is large")) == "it is large"
