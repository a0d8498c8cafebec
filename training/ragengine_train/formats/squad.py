"""SQuAD 1.1 and 2.0: articles of paragraphs with their questions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ragengine.errors import PassagesError
from ragengine.messages import one_line
from ragengine.storage.foreign_files import read_plain, why
from ragengine_train.formats.record import Context, Record, Records, record_or_dropped, required, unique

_LARGEST: Final = 1 << 30


def read_squad(path: Path) -> Records:
    """Questions with their paragraph; SQuAD 2.0's impossible ones have no answer and no passage."""
    for where, title, paragraph in _paragraphs(path):
        context = Context(title, required(paragraph, "context", where))
        for question in required(paragraph, "qas", where, list):
            impossible = question.get("is_impossible") is True
            given = [] if impossible else required(question, "answers", where, list)
            answers = unique((required(one, "text", where) for one in given), where)
            text = required(question, "question", where).strip()
            positives = () if impossible else (context,)
            yield record_or_dropped(
                Record(
                    f"{where}, {question.get('id')}",
                    text,
                    answers,
                    positives,
                    titles=(title,) * bool(answers),
                ),
                unanswered=impossible,
            )


def _paragraphs(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    try:
        content = json.loads(read_plain(path, _LARGEST, links=True).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as reason:
        raise PassagesError(
            f"{path} cannot be read as JSON: {one_line(why(reason))}; give SQuAD's file."
        ) from reason
    for article in required(content, "data", str(path), list):
        title = required(article, "title", str(path))
        for number, paragraph in enumerate(required(article, "paragraphs", str(path), list)):
            yield f"{path}, {title!a:.60}, paragraph {number}", title, paragraph
