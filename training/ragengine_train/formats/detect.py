"""Which format a file has, and its records."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from ragengine.errors import PassagesError
from ragengine.storage.foreign_files import open_plain, why
from ragengine_train.formats.beir import read_beir
from ragengine_train.formats.dpr import read_dpr
from ragengine_train.formats.line_files import read_lines, read_qa, read_source_target
from ragengine_train.formats.open_qa import json_objects, read_kilt, read_nq_open
from ragengine_train.formats.record import Records
from ragengine_train.formats.squad import read_squad

FormatName: TypeAlias = Literal["source-target", "dpr", "qa", "lines", "squad", "nq-open", "kilt", "beir"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)
_READERS: Final[dict[FormatName, Callable[[Path], Records]]] = {
    "source-target": read_source_target,
    "dpr": read_dpr,
    "qa": read_qa,
    "squad": read_squad,
    "nq-open": read_nq_open,
    "kilt": read_kilt,
    "beir": read_beir,
}
_SPLITS: Final = dict.fromkeys(("val", "dev", "validation"), ("val", "dev", "validation"))
_PEEKED: Final = 4096


def read_records(
    path: Path,
    name: FormatName | None = None,
    *,
    split: str = "train",
    answers: Path | None = None,
    titles: Path | None = None,
) -> tuple[FormatName, Records]:
    """The format of a file or folder, and its entries as they are read.

    Args:
        path: a file, or a folder of source and target files or of BEIR.
        name: the format, by default found from names and first characters.
        split: which part of a folder.
        answers: of ``lines``, the file with an answer a line.
        titles: of ``lines``, the file with the titles of a question's pages, between tabs, a line.

    Raises:
        PassagesError: there is no such file, or its format is not known.
    """
    path = _split_file(path, split) if path.is_dir() else path
    if answers is not None or titles is not None or name == "lines":
        if name not in (None, "lines") or (answers is None and titles is None):
            raise PassagesError(
                f"{path}: files of answers and titles go with the format lines, and it with them."
            )
        return "lines", read_lines(path, answers=answers, titles=titles)
    name = name or detected(path)
    if name is None:
        raise PassagesError(f"{path} has our own format already; use it as it is.")
    return name, _READERS[name](path)


def is_foreign(path: Path) -> bool:
    """Whether a path has the format of another project; a format that is not known is left as ours."""
    if path.is_dir():
        return True
    try:
        return detected(path) is not None
    except PassagesError:
        return False


def detected(path: Path) -> FormatName | None:
    """The format of a file; None for our own.

    Raises:
        PassagesError: it is of no known format.
    """
    suffix = path.suffix.lower()
    if suffix == ".source":
        return "source-target"
    if suffix == ".tsv" and path.parent.name == "qrels":
        return "beir"
    if suffix in (".tsv", ".csv"):
        return "qa"
    sign = _first_sign(path)
    if sign == "[":
        return "dpr"
    if sign == "{":
        fields = _first_fields(path)
        if fields is None or "data" in fields:  # an object over several lines
            return "squad"
        if "input" in fields:
            return "kilt"
        if "question" in fields:
            return "nq-open" if "answer" in fields and "answers" not in fields else None
    raise PassagesError(f"{path} has no known format; name it: {', '.join(FORMATS)}.")


def _first_fields(path: Path) -> Iterable[str] | None:
    """The names in the object of the first line; None where the line does not hold a whole object."""
    try:
        return next((entry.keys() for _, entry in json_objects(path)), ())
    except PassagesError:
        return None


def _first_sign(path: Path) -> str:
    try:
        with open_plain(path) as file:
            return file.read(_PEEKED).decode("utf-8-sig", "replace").lstrip()[:1]
    except (OSError, ValueError) as reason:
        raise PassagesError(f"{path} cannot be read: {why(reason)}.") from reason


def _split_file(folder: Path, split: str) -> Path:
    """The file of a folder that a split is read from."""
    patterns = [f"{name}.source" for name in _SPLITS.get(split, (split,))]
    patterns += [f"qrels/{name}.tsv" for name in _SPLITS.get(split, (split,))]
    for pattern in patterns:
        if (folder / pattern).exists():
            return folder / pattern
    raise PassagesError(f"{folder} has none of {', '.join(patterns)}; give a file, or another split.")
