"""DPR's training files: `biencoder-nq-train.json`, `nq-train.json`, and what its retriever found."""

import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

from ragengine.errors import PassagesError
from ragengine.messages import one_line
from ragengine.storage.foreign_files import LONGEST_LINE, open_plain, why
from ragengine_train.formats.record import Context, Record, Records, record_or_dropped, required, unique

_IDS: Final = ("passage_id", "psg_id", "id")  # the names that DPR's files use, which differ
_CHUNK: Final = 1 << 20


def read_dpr(path: Path) -> Records:
    """Questions with answers, positive contexts and hard negatives; or with `ctxs`, which have `has_answer`.

    Negatives that only share the batch (`negative_ctxs`) are left out, as in DPR's recipe.
    """
    for number, entry in enumerate(json_array(path)):
        where = f"{path}, entry {number}"
        if "ctxs" in entry:
            found = required(entry, "ctxs", where, list)
            positives = [one for one in found if one.get("has_answer")]
            negatives = [one for one in found if not one.get("has_answer")]
        else:
            positives = required(entry, "positive_ctxs", where, list)
            negatives = entry.get("hard_negative_ctxs") or []
        right = _contexts(positives, where)
        yield record_or_dropped(
            Record(
                where,
                required(entry, "question", where).strip(),
                unique(required(entry, "answers", where, list), where),
                right,
                _contexts(negatives, where),
                titles=unique((one.title for one in right), where),
            )
        )


def _contexts(contexts: list[Any], where: str) -> tuple[Context, ...]:
    return tuple(
        Context(required(one, "title", where), required(one, "text", where), _id(one)) for one in contexts
    )


def _id(context: dict[str, Any]) -> str | None:
    given = next((context[name] for name in _IDS if context.get(name) is not None), None)
    return None if given is None else str(given)


def json_array(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, one in memory at a time: such a file may have gigabytes.

    Raises:
        PassagesError: it cannot be read, or is no array of objects.
    """
    try:
        with open_plain(path) as file, TextIOWrapper(file, "utf-8-sig") as text:
            stream = _Stream(text)
            following = _expected(stream.sign(), "[")
            while following != "]":
                if _expected(stream.sign(), "{]" if following == "[" else "{") == "]":
                    return
                yield stream.rest_of_object()
                following = _expected(stream.sign(), ",]")
    except (OSError, ValueError, RecursionError) as reason:
        raise PassagesError(
            f"{path} cannot be read as a JSON array of objects: {one_line(why(reason))}; give DPR's file."
        ) from reason


def _expected(sign: str, signs: str) -> str:
    if sign not in signs:
        raise ValueError(f"found {sign!a}, where one of {signs} was expected")
    return sign


class _Stream:
    """The characters of a file, of which a chunk is in memory."""

    def __init__(self, text: TextIOWrapper) -> None:
        self._text, self._buffer, self._at = text, "", 0
        self._decoder = json.JSONDecoder()

    def sign(self) -> str:
        """Take the next character that is not white space."""
        while (found := _SIGN.search(self._buffer, self._at)) is None:
            self._read(0)
        self._at = found.end()
        return found[0]

    def rest_of_object(self) -> dict[str, Any]:
        """Take an object, of which the brace has been taken."""
        self._at -= 1
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._buffer, self._at)
            except ValueError:
                self._read(len(self._buffer) - self._at)
            else:
                return dict(value)

    def _read(self, kept: int) -> None:
        """Read as many characters as are ``kept``, or more; so no object is decoded often."""
        chunk = self._text.read(max(_CHUNK, kept))
        if not chunk or kept > LONGEST_LINE:
            raise ValueError("it ends in the middle" if not chunk else "an entry is too long, or broken")
        self._buffer, self._at = self._buffer[len(self._buffer) - kept :] + chunk, 0


_SIGN: Final = re.compile(r"\S")
