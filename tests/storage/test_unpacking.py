"""gzip files are unpacked as they are read; bombs, cuts and other files are refused."""

import gzip
import io
import itertools
from pathlib import Path

import pytest

from ragengine.errors import PassagesError
from ragengine.storage import unpacking
from ragengine.storage.foreign_files import json_lines, open_unpacked, utf8_lines
from ragengine.storage.unpacking import unpacked


def packed(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def test_lines_of_a_gzip_file_of_several_members(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("\ufeffé\nb\n".encode()) + gzip.compress(b"c"))
    assert list(utf8_lines(path, PassagesError)) == ["é\n", "b\n", "c"]
    assert list(json_lines(packed(tmp_path / "a.jsonl.GZ", b"{}\n\n[]\n"), PassagesError)) == [
        (1, "{}\n"),
        (3, "[]\n"),
    ]
    assert list(utf8_lines(packed(tmp_path / "empty.gz", b""), PassagesError)) == []


def test_a_file_that_is_closed_early_leaves_nothing_open(tmp_path: Path) -> None:
    lines = utf8_lines(packed(tmp_path / "a.gz", b"a\nb\n"), PassagesError)
    assert next(lines) == "a\n"
    lines.close()


def test_a_bomb_is_refused_without_being_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.txt.gz", b"word word\n" * 400_000)
    assert sum(1 for _ in utf8_lines(path, PassagesError)) == 400_000  # a small one may
    monkeypatch.setattr(unpacking, "UNPACKED_FREELY", 1 << 20)
    lines = utf8_lines(path, PassagesError)
    assert len(list(itertools.islice(lines, 100_000))) == 100_000
    message = r"a\.txt\.gz cannot be read: its \d+ bytes unpack to more than 100 times as many"
    with pytest.raises(PassagesError, match=message):
        list(itertools.islice(lines, 200_000))


def test_a_text_that_shrinks_well_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "UNPACKED_FREELY", 1000)
    rows = b"".join(b"%d,name of row %d\n" % (row, row) for row in range(20_000))
    with open_unpacked(packed(tmp_path / "a.csv.gz", rows)) as file:
        assert file.read() == rows


CONTENT = bytes(range(256)) * 40
PACKED = gzip.compress(CONTENT, mtime=0)  # in names of tests, which two processes collect


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "it is not a gzip file, whatever its name says; rename it"),
        (PACKED + b"more", r"it is a damaged gzip file \(Not a gzipped file .*\); copy it again"),
        (PACKED[:-8] + b"\0" * 8, r"it is a damaged gzip file \(CRC check failed .*\); copy it again"),
        (PACKED[:-1], "it is a gzip file that is cut off"),
        (PACKED[:9], "it is a gzip file that is cut off"),
        (PACKED[:12] + b"\xff" * 40 + PACKED[52:], r"it is a damaged gzip file \(Error .*\)$"),
    ],
)
def test_what_is_no_whole_gzip_file_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with unpacked((tmp_path / "a.gz").open("rb")) as file, pytest.raises(ValueError, match=message):
        file.read()


def test_as_much_as_may_be_is_unpacked_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = packed(tmp_path / "a.gz", b"\0" * 50_000).stat().st_size
    times = 50_000 // size
    for freely, ratio, longest in ((3_000, 1, 3_000), (0, times, times * size), (3_000, times, times * size)):
        monkeypatch.setattr(unpacking, "UNPACKED_FREELY", freely)
        monkeypatch.setattr(unpacking, "UNPACKED_RATIO", ratio)
        with unpacked((tmp_path / "a.gz").open("rb")) as file:
            raw = file.raw
            assert raw.read(longest) == b"\0" * longest
            with pytest.raises(
                ValueError, match=f"its {size} bytes unpack to more than {ratio} times as many"
            ):
                raw.read(1)


def test_closing_closes_the_file_below(tmp_path: Path) -> None:
    below = packed(tmp_path / "a.gz", b"abc").open("rb")
    file = unpacked(below)
    assert file.readable()
    assert (file.read(2), file.read(5), file.read(5)) == (b"ab", b"c", b"")
    assert not below.closed
    file.close()
    file.close()
    assert file.closed
    assert below.closed


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (gzip.compress(b"x", mtime=0), "a gzip file"),
        ("x".encode("utf-16"), "text in UTF-16"),
        (b"%PDF-1.7", "a PDF"),
        (b"PAR1", "a Parquet file"),
        (b"PK\3\4", "a zip archive"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Office file"),
        (b"text", None),
        (b"", None),
    ],
)
def test_kinds_of_files_that_are_no_text(start: bytes, kind: str | None) -> None:
    found = unpacking.binary_kind(start)
    assert (found is None) if kind is None else (found or "").startswith(f"{kind}")
    assert found is None or "; " in found  # with a remedy


def test_a_pipe_is_not_waited_for_and_no_link_leads_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    packed(tmp_path / "secret.gz", b"secret\n")
    (tmp_path / "in" / "a.gz").symlink_to("../secret.gz")
    with pytest.raises(PassagesError, match="leads out of"):
        list(utf8_lines(tmp_path / "in" / "a.gz", PassagesError, tmp_path / "in"))
    with pytest.raises(io.UnsupportedOperation):
        open_unpacked(tmp_path / "secret.gz").seek(0)
