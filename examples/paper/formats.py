"""The public formats of the paper's data, as lines of ``ragengine eval``'s QUESTIONS.jsonl.

Each reader takes a text file and yields ``{"question", "answers", ...}``; ``FORMATS`` names them.  Files that
end in .gz are unpacked while they are read.
"""

import ast
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ragengine.errors import PassagesError

Line = dict[str, Any]
_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()"]*))\)')
_NOT_OF_THE_FORMAT = (
    *(ValueError, LookupError, TypeError, AttributeError, SyntaxError, RecursionError),
    csv.Error,
)
_NO_ANSWER = "No Answer Present."


def convert(path: Path, name: str, labels: dict[str, str] | None = None) -> Iterator[Line]:
    """Read a file of the format ``name``; with ``labels``, only records with these, renamed to their values.

    Raises :class:`PassagesError` for a file or record that is not of the format.
    """
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(FORMATS[name](file), 1):  # noqa: B007 (an error names it)
                if labels is None:
                    yield line
                elif line["answers"][0] in labels:
                    yield line | {"answers": [labels[line["answers"][0]]]}
    except _NOT_OF_THE_FORMAT as reason:
        raise PassagesError(
            f"{path}: the record after question {number} is not of the format {name} "
            f"({type(reason).__name__}: {reason}); see examples/paper/README.md."
        ) from reason
    except (OSError, EOFError, zlib.error) as reason:
        raise PassagesError(f"{path} cannot be read: {reason}.") from reason


def read_qas(file: TextIO) -> Iterator[Line]:
    """DPR's ``*.qa.csv``: question, tab, a Python list of answers."""
    for question, answers in csv.reader(file, delimiter="\t"):
        yield {"question": question, "answers": _texts(ast.literal_eval(answers))}


def read_qas_regex(file: TextIO) -> Iterator[Line]:
    """The same, the answers being regular expressions: CuratedTREC."""
    return (line | {"regex": True} for line in read_qas(file))


def read_jsonl(file: TextIO) -> Iterator[Line]:
    """``{"question", "answer": [...]}`` a line: NQ-open and DrQA's ``*.txt``."""
    for entry in _json_lines(file):
        yield {"question": entry["question"], "answers": _texts(entry["answer"])}


def read_jsonl_regex(file: TextIO) -> Iterator[Line]:
    """The same, the answers being regular expressions: DrQA's ``CuratedTrec-test.txt``."""
    return (line | {"regex": True} for line in read_jsonl(file))


def read_triviaqa(file: TextIO) -> Iterator[Line]:
    """TriviaQA's JSON (``unfiltered-web-dev.json``): the value first, then its aliases and human answers."""
    for entry in json.load(file)["Data"]:
        answer = entry["Answer"]
        texts = [answer["Value"], *answer.get("Aliases", []), *answer.get("HumanAnswers", [])]
        yield {"question": entry["Question"], "answers": list(dict.fromkeys(_texts(texts)))}


def read_webquestions(file: TextIO) -> Iterator[Line]:
    """WebQuestions' JSON: ``utterance``; ``targetValue`` as ``(list (description "a") (description b))``."""
    for entry in json.load(file):
        found = _DESCRIPTION.findall(entry["targetValue"])
        answers = [re.sub(r"\\(.)", r"\1", quoted) or bare.strip() for quoted, bare in found]
        yield {"question": entry["utterance"], "answers": _texts(answers)}


def read_msmarco(file: TextIO) -> Iterator[Line]:
    """MS-MARCO v2.1 (``dev_v2.1.json``), the NLG task: questions that have well-formed answers."""
    data = json.load(file)
    for key, question in data["query"].items():
        # a question without answers has the text "[]"
        answers = data["wellFormedAnswers"][key]
        answers = (
            [text for text in _texts(answers) if text != _NO_ANSWER] if isinstance(answers, list) else []
        )
        if answers:
            yield {"question": question, "answers": answers, "type": data["query_type"][key]}


def read_jeopardy(file: TextIO) -> Iterator[Line]:
    """SearchQA: the question is the answer entity, the answer its clue.

    A line is either ``snippets ||| clue ||| answer`` or a clue's JSON, ``{"question", "answer"}``.
    """
    for text in filter(str.strip, file):
        if text.lstrip().startswith("{"):
            entry = json.loads(text)
            clue, answer = entry["question"], entry["answer"]
        else:
            _, clue, answer = text.rsplit("|||", 2)
        yield {"question": answer.strip(), "answers": _texts([clue.strip()])}


def read_fever(file: TextIO) -> Iterator[Line]:
    """FEVER's JSONL, or KILT's of it: a claim, its label, and the titles of its evidence."""
    for entry in _json_lines(file):
        if "claim" in entry:
            pages = [sentence[2] for evidence in entry.get("evidence", []) for sentence in evidence]
            titles = [_page_title(page) for page in pages if page]
            yield {"question": entry["claim"], "answers": _texts([entry["label"]]), "titles": _unique(titles)}
        else:
            outputs = entry["output"]
            titles = [source["title"] for output in outputs for source in output.get("provenance", [])]
            labels = [output["answer"] for output in outputs if "answer" in output]
            yield {"question": entry["input"], "answers": _texts(labels[:1]), "titles": _unique(titles)}


FORMATS: dict[str, Callable[[TextIO], Iterator[Line]]] = {
    "qas": read_qas,
    "qas-regex": read_qas_regex,
    "jsonl": read_jsonl,
    "jsonl-regex": read_jsonl_regex,
    "triviaqa": read_triviaqa,
    "webquestions": read_webquestions,
    "msmarco": read_msmarco,
    "jeopardy": read_jeopardy,
    "fever": read_fever,
}


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), "utf-8")
    return path.open(encoding="utf-8", newline="")


def _json_lines(file: TextIO) -> Iterator[Any]:
    return (json.loads(text) for text in file if text.strip())


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not values or not all(isinstance(text, str) for text in values):
        raise ValueError(f"{values!r:.60} is not a list of texts, at least one")
    return values


def _unique(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _page_title(page: str) -> str:
    """A page's title as in DPR's passages; FEVER escapes it."""
    for escaped, sign in (("-LRB-", "("), ("-RRB-", ")"), ("-LSB-", "["), ("-RSB-", "]"), ("-COLON-", ":")):
        page = page.replace(escaped, sign)
    return page.replace("_", " ")
