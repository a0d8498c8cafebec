"""JSONL with one passage a line: ``{"id", "title", "text"}``, or BEIR's ``{"_id", "title", "text"}``."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage, checked_passage, shown_names
from ragengine.corpus.splitting import split_record
from ragengine.errors import PassagesError
from ragengine.messages import one_line, short_repr
from ragengine.storage.foreign_files import check_line_ends, json_lines


@dataclass(frozen=True)
class JsonLines:
    """The JSONL file at ``path``, found in the folder ``within`` or named by the user."""

    path: Path
    within: Path | None
    options: ReadingOptions

    def read(self) -> Iterator[Passage]:
        """Stream the passages; the title may be missing from any line, the id from all."""
        title = self.options.title_field
        titled = title is None
        for where, record in self._records():
            titled = titled or title in record
            yield from split_record(checked_passage(record, where, self.options), self.options)
        if not titled:
            raise PassagesError(
                f"{self.path}: no line has the field {short_repr(title)}; correct --title-field."
            )

    def missing(self) -> str | None:
        """What the first line lacks, for a file that nobody named: one of something else than passages."""
        for _, record in self._records():
            text = self.options.text_field or "text"
            return None if text in record else f"no field {short_repr(text)}; it has {shown_names(record)}"
        return "it is empty"

    def _records(self) -> Iterator[tuple[str, dict[str, object]]]:
        """The objects, each with how an error message names its line."""
        for number, line in json_lines(self.path, PassagesError, self.within):
            where = f"{self.path}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as reason:
                if number == 1:
                    check_line_ends(self.path, line, PassagesError)
                said = one_line(reason)
                raise PassagesError(f"{where}: not JSON ({said}); write one object a line.") from reason
            if not isinstance(record, dict):
                raise PassagesError(f"{where}: found {type(record).__name__}; write one object a line.")
            yield where, record
