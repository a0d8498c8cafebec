"""Training questions and the passages they are about."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragengine.corpus.corpus import Corpus as PassageFiles
from ragengine.corpus.passage import Passage, checked_passage, utf8_lines
from ragengine.errors import PassagesError
from ragengine.evaluation.questions import question_entry, text_of, texts_of
from ragengine_train.config import StageConfig, TrainConfig, listed
from ragengine_train.example_order import check_groups


@dataclass(frozen=True)
class Line:
    """One line of a questions file; passages are rows of a :class:`Corpus`."""

    question: str
    answers: tuple[str, ...]
    passage: int | None
    hard_negatives: tuple[int, ...]
    group: str


@dataclass
class Corpus:
    """The passages of the file, rows 0 to ``indexed`` - 1, and after them those that lines bring along.

    ``copy_of`` says which rows are one passage: equal text, or a changed copy that a line brings along under
    the ``passage_id`` of the original.  Copies are never each other's negatives.
    """

    passages: list[Passage] = field(default_factory=list)
    copy_of: list[int] = field(default_factory=list)
    indexed: int = 0
    _rows: dict[str, int] = field(default_factory=dict)
    _contents: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "Corpus":
        """Read a passage file; raises :class:`PassagesError`."""
        corpus = cls()
        for passage in PassageFiles.open(path).read():
            corpus._rows[passage.id] = corpus._append(passage, None)
        corpus.indexed = len(corpus.passages)
        if not corpus.indexed:
            raise PassagesError(f"{path} holds no passages; training needs at least one.")
        return corpus

    def scratch(self) -> "Corpus":
        """A copy that lines can be read with and that is then thrown away."""
        return Corpus(list(self.passages), list(self.copy_of), self.indexed, self._rows)

    def row(self, passage_id: str) -> int | None:
        """The row of an id of the file."""
        return self._rows.get(passage_id)

    def add(self, title: str, text: str, original: int | None) -> int:
        """The row of a passage that a line brings along; a text that is known is not added again."""
        known = self._contents.get((title, text))
        return (
            self._append(Passage(f"line-{len(self.passages)}", title, text), original)
            if known is None
            else known
        )

    def _append(self, passage: Passage, original: int | None) -> int:
        row = len(self.passages)
        first = self._contents.setdefault((passage.title, passage.text), row)
        original = first if original is None else original
        self.passages.append(passage)
        self.copy_of.append(row if original == row else self.copy_of[original])
        return row


def read_lines(paths: Sequence[str | Path], corpus: Corpus) -> list[Line]:
    """Read JSONL files of questions; passages that lines bring along are added to ``corpus``.

    Raises :class:`PassagesError` with file and line for the first that is not what it should be.
    """
    lines = []
    for path in paths:
        for number, text in enumerate(utf8_lines(Path(path)), 1):
            if text.strip():
                lines.append(_line(text, corpus, f"{path}, line {number}"))
    if not lines:
        raise PassagesError(
            f"{', '.join(map(str, paths))}: no questions; one JSON object a line was expected."
        )
    return lines


def _line(text: str, corpus: Corpus, where: str) -> Line:
    entry = question_entry(text, where)
    return Line(
        entry["question"],
        tuple(entry["answers"]),
        _gold(entry, corpus, where),
        tuple(_known(corpus, name, where) for name in texts_of(entry, "hard_negative_ids", where)),
        text_of(entry, "group", where) or "",
    )


def _gold(entry: dict[str, Any], corpus: Corpus, where: str) -> int | None:
    name, inline = text_of(entry, "passage_id", where), entry.get("passage")
    if inline is None:
        return None if name is None else _known(corpus, name, where)
    if not isinstance(inline, dict):
        raise PassagesError(f'{where}: "passage" is not {{"title": str, "text": str}}.')
    passage = checked_passage({**inline, "id": ""}, f'{where}, "passage"')
    return corpus.add(passage.title, passage.text, None if name is None else _known(corpus, name, where))


def _known(corpus: Corpus, name: str, where: str) -> int:
    row = corpus.row(name)
    if row is None:
        raise PassagesError(
            f"{where}: the passage {name!r:.100} is not in the passages file; correct its id."
        )
    return row


def training_lines(
    config: TrainConfig, stage: StageConfig, corpus: Corpus, *, needs_passage: bool
) -> list[Line]:
    """The training questions a stage can use: of its groups, with an answer, with a passage if needed.

    Answers without a character are left out.  Raises :class:`PassagesError` where there are no lines.
    """
    files = listed(config.data.train if stage.train is None else stage.train)
    lines = [
        dataclasses.replace(line, answers=tuple(filter(None, line.answers)))
        for line in read_lines(files, corpus)
    ]
    usable = [line for line in lines if line.answers and (line.passage is not None or not needs_passage)]
    if usable and stage.sample:
        check_groups([line.group for line in usable], stage.sample)
        usable = [line for line in usable if line.group in stage.sample]
    if not usable:
        raise PassagesError(
            f"{', '.join(files)}: no line has an answer" + (" and a passage_id." if needs_passage else ".")
        )
    return usable
