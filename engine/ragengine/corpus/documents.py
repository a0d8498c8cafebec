"""Documents: files of running text, each of which becomes passages with its title."""

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal, TypeAlias

from ragengine.corpus.html_pages import read_html
from ragengine.corpus.markdown import read_markdown
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.corpus.pdf_files import read_pdf
from ragengine.corpus.splitting import Part, Text, document_title, split_document
from ragengine.corpus.word_files import read_docx
from ragengine.errors import PassagesError, RagEngineError
from ragengine.installation import pip_install
from ragengine.storage.foreign_files import open_unpacked, shown_path, utf8_lines, why
from ragengine.storage.unpacking import GZIP_SUFFIX

DocumentKind: TypeAlias = Literal["text", "markdown", "html", "pdf", "docx"]

DOCUMENT_SUFFIXES: Final[dict[str, DocumentKind]] = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}
_READERS: Final = {"html": read_html, "pdf": read_pdf, "docx": read_docx}
_PACKAGES: Final = {"html": ("lxml", "lxml"), "pdf": ("pypdf", "pypdf"), "docx": ("docx", "python-docx")}
"""The module that reads a kind, and the package that has it."""


@dataclass(frozen=True)
class DocumentFile:
    """The document at ``path``, found in the folder ``within`` or named by the user."""

    path: Path
    within: Path | None
    kind: DocumentKind
    options: ReadingOptions

    def read(self) -> Iterator[Passage]:
        """Stream the passages; ids begin with the path in the folder, or with the name of the file."""
        name = self.path.name if self.within is None else self.path.relative_to(self.within).as_posix()
        title = file_title(self.path)
        if self.kind == "pdf":  # it has no headings to look for
            title = document_title(islice(self._parts(), 1), title)
        elif self.kind != "text":
            title = document_title(self._parts(), title)
        yield from split_document(self._parts(), name, title, self.options)

    def missing(self) -> str | None:
        """The package that is missing to read it."""
        module, package = _PACKAGES.get(self.kind, (None, ""))
        if module is None or importlib.util.find_spec(module) is not None:
            return None
        return f"needs {package}: {pip_install('documents')}"

    def _parts(self) -> Iterable[Part]:
        if self.kind == "text":
            return (Text(line) for line in utf8_lines(self.path, PassagesError, self.within))
        if self.kind == "markdown":
            return read_markdown(utf8_lines(self.path, PassagesError, self.within))
        return self._foreign_parts()

    def _foreign_parts(self) -> Iterator[Part]:
        """The parts of a file that is not lines of UTF-8."""
        try:
            with open_unpacked(self.path, within=self.within) as file:
                yield from _READERS[self.kind](file)
        except (OSError, ValueError) as reason:
            if isinstance(reason, RagEngineError):
                raise
            raise PassagesError(f"{shown_path(self.path)} cannot be read: {why(reason)}.") from reason


def file_title(path: Path) -> str:
    """The title of a document that has none of its own: the name of its file without the endings."""
    name = path.name
    if name.lower().endswith(GZIP_SUFFIX):
        name = name[: -len(GZIP_SUFFIX)]
    return Path(name).stem
