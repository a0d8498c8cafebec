"""What makes training useless and raises no error, found in the files of a configuration beforehand."""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from ragengine.evaluation.metrics import normalize_answer
from ragengine.evaluation.questions import question_entry, text_of, texts_of
from ragengine.messages import short_repr
from ragengine.pipeline.prompts import format_prompt
from ragengine.storage.foreign_files import json_lines
from ragengine_export.tokenization import load_tokenizer
from ragengine_train.checkpoint import generator_config, load_encoder_tokenizer
from ragengine_train.config import STAGES, TrainConfig, listed
from ragengine_train.config_file import read_config
from ragengine_train.data import TrainingPassages
from ragengine_train.foreign_data import as_jsonl
from ragengine_train.generator import answer_tokens, rag_spec

_SHOWN: Final = 3  # examples of a finding


@dataclass(frozen=True)
class Finding:
    """One kind of mistake in the data.

    kind      its name: ``unknown_words``, ``unwritable_answers``, ``absent_answers``, ``shared_questions``,
              ``unknown_passages``, ``cut_prompts`` or ``cut_answers``
    count     how many lines have it
    of        of how many
    message   a sentence that says what it does to the training, and what to do
    examples  the first few lines that have it, as ``file line: text``
    """

    kind: str
    count: int
    of: int
    message: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class _Line:
    """A line of a file of questions."""

    where: str
    question: str
    answers: tuple[str, ...]
    passage_id: str | None
    named: tuple[str, ...]
    inline: Passage | None


@dataclass(frozen=True)
class _Data:
    """What a configuration is about: lines to train on and to measure, passages, and the two tokenizers."""

    config: TrainConfig
    train: list[_Line]
    dev: list[_Line]
    passages: TrainingPassages
    encoder: PreTrainedTokenizerBase
    generator: PreTrainedTokenizerBase
    prefix: str | None

    @property
    def lines(self) -> list[_Line]:
        return [*self.train, *self.dev]

    def passage(self, line: _Line) -> Passage | None:
        """The passage that a line names or contains."""
        row = None if line.passage_id is None else self.passages.row(line.passage_id)
        return line.inline or (None if row is None else self.passages.passages[row])


def check_data(config: str | Path | TrainConfig) -> tuple[Finding, ...]:
    """Look for mistakes in the questions and passages of a configuration that make its training useless.

    Args:
        config: the TOML file of `ragengine train`, or what :func:`read_config` has read.

    Returns:
        What was found, a finding a kind; nothing where all is well.

    Raises:
        OptionsError: the configuration is wrong.
        PassagesError: a file cannot be read, or a line of it is no question.
        ExportError: a tokenizer cannot be loaded.
    """
    settings = config if isinstance(config, TrainConfig) else read_config(config)
    with tempfile.TemporaryDirectory() as folder:
        data = _read(settings, Path(folder))
    checks = (
        _unknown_words,
        _unwritable_answers,
        _absent_answers,
        _shared_questions,
        _unknown_passages,
        _cut_prompts,
        _cut_answers,
    )
    return tuple(finding for check in checks if (finding := check(data)) is not None)


def _read(config: TrainConfig, folder: Path) -> _Data:
    """Read the files; those of other projects are converted in ``folder``."""
    passages = TrainingPassages.read(config.data.passages)
    config = as_jsonl(config, passages, folder, lambda report: None)
    stages = [getattr(config, name) for name in STAGES]
    files = listed(config.data.train) + [
        file for stage in stages if stage is not None and stage.train for file in listed(stage.train)
    ]
    return _Data(
        config=config,
        train=[line for file in dict.fromkeys(files) for line in _lines(Path(file))],
        dev=[] if config.data.dev is None else list(_lines(Path(config.data.dev))),
        passages=passages,
        encoder=load_encoder_tokenizer(config.model.question_encoder),
        generator=load_tokenizer(config.model.generator),
        prefix=config.model.prefix or getattr(generator_config(config.model.generator), "prefix", None),
    )


def _lines(path: Path) -> Iterator[_Line]:
    for number, text in json_lines(path, PassagesError):
        where = f"{path}, line {number}"
        entry = question_entry(text, where)
        given: Any = entry.get("passage")
        inline = None
        if isinstance(given, dict) and all(isinstance(given.get(name), str) for name in ("title", "text")):
            inline = Passage("", given["title"], given["text"])
        passage_id = text_of(entry, "passage_id", where)
        others = (*texts_of(entry, "hard_negative_ids", where), *texts_of(entry, "passage_ids", where))
        named = (*(() if passage_id is None else (passage_id,)), *others)
        yield _Line(where, entry["question"], tuple(entry["answers"] or ()), passage_id, named, inline)


def _unknown_words(data: _Data) -> Finding | None:
    """Questions that are the same tokens as many others to a tokenizer that does not know their words."""
    token, number = data.encoder.unk_token, data.encoder.unk_token_id
    if number is None:
        return None
    ids = data.encoder([line.question for line in data.lines], add_special_tokens=False)["input_ids"]
    found = [line for line, one in zip(data.lines, ids, strict=True) if number in one]
    return _finding(
        "unknown_words",
        found,
        data.lines,
        f"questions hold words that the question encoder's tokenizer turns into {token}, so that neither "
        "encoder nor generator reads them: take an encoder whose vocabulary fits the questions",
        lambda line: line.question,
    )


def _unwritable_answers(data: _Data) -> Finding | None:
    """Answers that the generator cannot write: no tokens, or tokens that are another text."""
    answers = [(line, answer) for line in data.lines for answer in line.answers[:1] if answer]
    ids = (
        answer_tokens([answer for _, answer in answers], data.generator, data.config.model) if answers else []
    )
    found = [
        (line, answer)
        for (line, answer), one in zip(answers, ids, strict=True)
        if len(one) < data.config.model.max_answer_length  # a cut one is another finding
        and data.generator.decode(list(one), skip_special_tokens=True).split() != answer.split()
    ]
    return _finding(
        "unwritable_answers",
        found,
        answers,
        "answers come out of the generator's tokenizer as nothing or as another text, so that no training "
        "reaches them: spell them with letters that it knows, or take another generator",
        lambda pair: pair[1],
        lambda pair: pair[0].where,
    )


def _absent_answers(data: _Data) -> Finding | None:
    """Answers that do not stand in their passage, or, where none is named, in any."""
    texts = [f"{one.title} {one.text}" for one in data.passages.passages]
    everything = _searchable(" ".join(texts))
    asked = [line for line in data.lines if line.answers]
    found = []
    for line in asked:
        passage = data.passage(line)
        if passage is None and line.passage_id is not None:
            continue  # its id is another finding
        text = everything if passage is None else _searchable(f"{passage.title} {passage.text}")
        if not any(_searchable(answer) in text for answer in line.answers):
            found.append(line)
    return _finding(
        "absent_answers",
        found,
        asked,
        "answers stand in no passage (in their own one, where passage_id names it): a generator that copies "
        "learns to invent from them; write answers as the documents do, or leave these lines out",
        lambda line: f"{line.question} {short_repr(line.answers[0])}",
    )


def _shared_questions(data: _Data) -> Finding | None:
    """Questions to measure that are also trained on: the figures are then too good."""
    trained = {normalize_answer(line.question) for line in data.train}
    found = [line for line in data.dev if normalize_answer(line.question) in trained]
    return _finding(
        "shared_questions",
        found,
        data.dev,
        "questions of dev are trained on, too (apart from case and punctuation), so that its figures say "
        "nothing about new questions: take them out of one of the two",
        lambda line: line.question,
    )


def _unknown_passages(data: _Data) -> Finding | None:
    """Ids of passages that there are not; `ragengine train` stops at the first of them."""
    naming = [line for line in data.lines if line.named]
    found = [line for line in naming if any(data.passages.row(name) is None for name in line.named)]
    return _finding(
        "unknown_passages",
        found,
        naming,
        f"lines name passages that {data.config.data.passages} does not have: correct their ids",
        lambda line: ", ".join(name for name in line.named if data.passages.row(name) is None),
    )


def _cut_prompts(data: _Data) -> Finding | None:
    """Prompts that are too long: what is cut off is the question, which stands at their end."""
    model = data.config.model
    spec = rag_spec(model, data.prefix)
    given = [(line, passage) for line in data.lines if (passage := data.passage(line)) is not None]
    texts = [format_prompt(spec, passage.title, passage.text, line.question) for line, passage in given]
    lengths = [len(ids) for ids in data.generator(texts)["input_ids"]] if texts else []
    found = [
        line for (line, _), length in zip(given, lengths, strict=True) if length > model.max_combined_length
    ]
    return _finding(
        "cut_prompts",
        found,
        [line for line, _ in given],
        f"questions have more than max_combined_length = {model.max_combined_length} tokens together with "
        "their passage, and are cut at their end: make passages shorter, or raise it",
        lambda line: line.question,
    )


def _cut_answers(data: _Data) -> Finding | None:
    """Answers whose end is never learned."""
    longest = data.config.model.max_answer_length
    asked = [line for line in data.lines if line.answers and line.answers[0]]
    ids = data.generator([data.config.model.answer_prefix + line.answers[0] for line in asked])["input_ids"]
    found = [line for line, one in zip(asked, ids, strict=True) if len(one) > longest]
    return _finding(
        "cut_answers",
        found,
        asked,
        f"answers have more than max_answer_length = {longest} tokens, and their end is cut off: raise it",
        lambda line: line.answers[0],
    )


def _searchable(text: str) -> str:
    """A text as answers are compared, between spaces, so that a word is found as a whole."""
    return f" {normalize_answer(re.sub(r'[-/]', ' ', text))} "


def _finding(
    kind: str,
    found: Sequence[Any],
    among: Sequence[Any],
    message: str,
    text: Any,
    where: Any = lambda line: line.where,
) -> Finding | None:
    """A finding about ``found``; None where there is none."""
    if not found:
        return None
    examples = tuple(f"{where(one)}: {text(one)}" for one in found[:_SHOWN])
    return Finding(kind, len(found), len(among), message, examples)


def described(findings: Iterable[Finding]) -> Iterator[str]:
    """The findings as lines of text."""
    for finding in findings:
        yield f"{finding.count} of {finding.of} {finding.message}"
        yield from (f"  {example}" for example in finding.examples)
        if finding.count > len(finding.examples):
            yield f"  and {finding.count - len(finding.examples)} more"
