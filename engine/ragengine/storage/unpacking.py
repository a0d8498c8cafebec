"""gzip files, unpacked as they are read: never whole, and not without end."""

import gzip
import io
import os
import zlib
from io import BufferedReader
from typing import Final

from ragengine.messages import one_line

GZIP_SUFFIX: Final = ".gz"
UNPACKED_FREELY: Final = 1 << 28
"""The bytes that any gzip file may unpack to."""
UNPACKED_RATIO: Final = 100
"""How many times its size a larger one may unpack to: texts shrink to a third, a bomb to a thousandth."""


def unpacked(file: BufferedReader) -> BufferedReader:
    """The content of a gzip file as a file to read; closing it closes ``file``.

    Its methods raise :class:`ValueError` where the file is no gzip file, is damaged or cut off, or unpacks to
    much more than its size.
    """
    return BufferedReader(_Unpacked(file))


class _Unpacked(io.RawIOBase):
    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._content = gzip.GzipFile(fileobj=file, mode="rb")
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]  # RawIOBase gives it a memoryview
        try:
            content = self._content.read(len(buffer))
        except gzip.BadGzipFile as reason:
            if not self._done and str(reason).startswith("Not a gzipped file"):
                raise ValueError("it is not a gzip file, whatever its name says; rename it") from reason
            raise ValueError(f"it is a damaged gzip file ({one_line(reason)}); copy it again") from reason
        except EOFError as reason:
            raise ValueError("it is a gzip file that is cut off") from reason
        except zlib.error as reason:
            raise ValueError(f"it is a damaged gzip file ({one_line(reason)})") from reason
        self._done += len(content)
        if self._done > max(UNPACKED_FREELY, UNPACKED_RATIO * self._size):
            raise ValueError(
                f"its {self._size} bytes unpack to more than {UNPACKED_RATIO} times as many, which no text "
                "does; unpack it and see what it holds"
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._content.close()
            self._file.close()
        super().close()


_MAGIC: Final = (
    (b"\x1f\x8b", f"a gzip file; give it a name that ends in {GZIP_SUFFIX}"),
    (b"\xff\xfe", "text in UTF-16; convert it to UTF-8"),
    (b"\xfe\xff", "text in UTF-16; convert it to UTF-8"),
    (b"%PDF-", "a PDF; give it a name that ends in .pdf"),
    (b"PAR1", "a Parquet file; give it a name that ends in .parquet"),
    (b"PK\3\4", "a zip archive, as .docx and .xlsx are; unpack it, or give it the name of its kind"),
    (b"BZh", "compressed with bzip2; unpack it, or compress it with gzip"),
    (b"\xfd7zXZ", "compressed with xz; unpack it, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it, or compress it with gzip"),
    (b"\xd0\xcf\x11\xe0", "an old Office file; save it as .docx, or as .csv with UTF-8"),
    (b"SQLite format 3", "an SQLite database; write its rows as .jsonl"),
    (b"ARROW1", "an Arrow file; save it as .parquet"),
)


def binary_kind(start: bytes) -> str | None:
    """What a file that is no UTF-8 text is, with the remedy, by its first bytes; None if that is unknown."""
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), None)
