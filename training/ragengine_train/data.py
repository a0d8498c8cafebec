"""Training examples and the passages that they name."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragengine.corpus.corpus import Corpus as PassageFiles
from ragengine.corpus.passage import Passage, checked_passage
from ragengine.errors import PassagesError
from ragengine.evaluation.questions import question_entry, text_of, texts_of
from ragengine.storage.foreign_files import json_lines
from ragengine_train.config import StageConfig, TrainConfig, listed
from ragengine_train.example_order import check_groups


@dataclass(frozen=True)
class Example:
    """One question of a questions file; passages are rows of a :class:`TrainingPassages`."""

    question: str
    answers: tuple[str, ...]
    passage: int | None
    hard_negatives: tuple[int, ...]
    group: str
    others: tuple[int, ...] = ()
    """Further passages that answer the question, and so are no negatives of it."""
    answers_known: bool = True


@dataclass
class TrainingPassages:
    """The passages of the file, rows 0 to ``indexed`` - 1, and after them those that examples contain.

    ``copy_of`` says which rows are one passage: equal text, or a changed copy that an example contains under
    the ``passage_id`` of the original.  Copies are never each other's negatives.
    """

    passages: list[Passage] = field(default_factory=list)
    copy_of: list[int] = field(default_factory=list)
    indexed: int = 0
    _rows: dict[str, int] = field(default_factory=dict)
    _contents: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "TrainingPassages":
        """Read a passage file; raises :class:`PassagesError`."""
        corpus = cls()
        for passage in PassageFiles.open(path).read():
            corpus._rows[passage.id] = corpus._append(passage, None)
        corpus.indexed = len(corpus.passages)
        if not corpus.indexed:
            raise PassagesError(f"{path} holds no passages; training needs at least one.")
        return corpus

    def scratch(self) -> "TrainingPassages":
        """A copy to read examples with, which leaves this one as it is."""
        return TrainingPassages(list(self.passages), list(self.copy_of), self.indexed, self._rows)

    def row(self, passage_id: str) -> int | None:
        """The row of an id of the file."""
        return self._rows.get(passage_id)

    def find(self, passage: Passage) -> str | None:
        """The id in the file of a passage of this content; its own, if that is one of several."""
        row = self.row(passage.id)
        if row is None or (self.passages[row].title, self.passages[row].text) != (
            passage.title,
            passage.text,
        ):
            row = self._contents.get((passage.title, passage.text))
        return None if row is None or row >= self.indexed else self.passages[row].id

    def add(self, title: str, text: str, original: int | None) -> int:
        """The row of a passage that an example contains; a known text is not added again."""
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


def read_examples(paths: Sequence[str | Path], corpus: TrainingPassages) -> list[Example]:
    """Read JSONL files of questions; passages that they contain are added to ``corpus``.

    Raises :class:`PassagesError` with file and line for the first that cannot be used.
    """
    examples = []
    for path in paths:
        examples += [
            _example(text, corpus, f"{path}, line {number}")
            for number, text in json_lines(Path(path), PassagesError)
        ]
    if not examples:
        raise PassagesError(
            f"{', '.join(map(str, paths))}: no questions; one JSON object a line was expected."
        )
    return examples


def _example(text: str, corpus: TrainingPassages, where: str) -> Example:
    entry = question_entry(text, where)
    return Example(
        entry["question"],
        tuple(entry["answers"] or ()),
        _gold(entry, corpus, where),
        (
            *(_known(corpus, name, where) for name in texts_of(entry, "hard_negative_ids", where)),
            *_inline_negatives(entry, corpus, where),
        ),
        text_of(entry, "group", where) or "",
        tuple(row for name in texts_of(entry, "passage_ids", where) if (row := corpus.row(name)) is not None),
        entry["answers"] is not None,
    )


def _gold(entry: dict[str, Any], corpus: TrainingPassages, where: str) -> int | None:
    name, inline = text_of(entry, "passage_id", where), entry.get("passage")
    if inline is None:
        return None if name is None else _known(corpus, name, where)
    return _added(
        inline, corpus, f'{where}, "passage"', None if name is None else _known(corpus, name, where)
    )


def _inline_negatives(entry: dict[str, Any], corpus: TrainingPassages, where: str) -> list[int]:
    inline = entry.get("hard_negatives")
    if inline is not None and not isinstance(inline, list):
        raise PassagesError(f'{where}: "hard_negatives" is not a list of {{"title": str, "text": str}}.')
    return [_added(one, corpus, f'{where}, "hard_negatives"', None) for one in inline or []]


def _added(inline: Any, corpus: TrainingPassages, where: str, original: int | None) -> int:
    if not isinstance(inline, dict):
        raise PassagesError(f'{where} is not {{"title": str, "text": str}}.')
    passage = checked_passage({**inline, "id": ""}, where)
    return corpus.add(passage.title, passage.text, original)


def _known(corpus: TrainingPassages, name: str, where: str) -> int:
    row = corpus.row(name)
    if row is None:
        raise PassagesError(
            f"{where}: the passage {name!r:.100} is not in the passages file; correct its id."
        )
    return row


def training_examples(
    config: TrainConfig,
    stage: StageConfig,
    corpus: TrainingPassages,
    *,
    needs_passage: bool,
    needs_answer: bool = True,
) -> list[Example]:
    """The examples that a stage can use: of its groups, with an answer and a passage where these are needed.

    Empty answers are left out.  Raises :class:`PassagesError` where no example is left.
    """
    files = listed(config.data.train if stage.train is None else stage.train)
    examples = [
        dataclasses.replace(example, answers=tuple(filter(None, example.answers)))
        for example in read_examples(files, corpus)
    ]
    usable = [
        one
        for one in examples
        if (one.answers or not (needs_answer or one.answers_known))
        and (one.passage is not None or not needs_passage)
    ]
    if usable and stage.sample:
        check_groups([one.group for one in usable], stage.sample)
        usable = [one for one in usable if one.group in stage.sample]
    if not usable:
        raise PassagesError(
            f"{', '.join(files)}: no line has "
            + " and ".join(["an answer"] * needs_answer + ["a passage_id"] * needs_passage)
            + "."
        )
    return usable
