"""Cut the pages of `documents/` into short passages, and say of each question which passage answers it.

    python passages.py [FOLDER]       FOLDER has documents/ and questions/; by default this script's own

writes `passages.jsonl`, and of each file in `questions/` one with the same name, to the working folder.

A passage is as many whole sentences of a page as have at most `MOST_WORDS` words together, and at least one.
The encoder has read much English and finds the sentence that a question is about; the generator has not, and
copies best from a single one.  A question names its page and its answer as it stands there, so that nobody
has to count passages.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

MOST_WORDS = 1
SENTENCE_END = re.compile(r"(?<=[.?!]) (?=[A-Z0-9])")

Record = dict[str, Any]


def passages(folder: Path) -> list[Record]:
    """The passages of all pages, with ids such as ``systems/beacon.md#1`` and the page's heading as title."""
    found = []
    for page in sorted(folder.rglob("*.md")):
        heading, _, text = page.read_text("utf-8").partition("\n")
        name, title = page.relative_to(folder).as_posix(), heading.removeprefix("# ")
        for number, part in enumerate(pieces(" ".join(text.split()))):
            found.append({"id": f"{name}#{number}", "title": title, "text": part})
    return found


def pieces(text: str) -> list[str]:
    """Whole sentences, together at most ``MOST_WORDS`` words where no sentence is longer."""
    parts: list[str] = []
    for sentence in SENTENCE_END.split(text):
        if parts and len(f"{parts[-1]} {sentence}".split()) <= MOST_WORDS:
            parts[-1] += f" {sentence}"
        else:
            parts.append(sentence)
    return parts


def with_passage(question: Record, known: list[Record]) -> Record:
    """The question with ``passage_id``: the passage of its page with the first answer, if it has any."""
    if not question["answers"]:
        return question
    page, answer = question["page"], question["answers"][0]
    for passage in known:
        if passage["id"].startswith(f"{page}#") and holds(passage["text"], answer):
            kept = {name: question[name] for name in ("question", "answers", "type")}
            return {**kept, "passage_id": passage["id"]}
    raise SystemExit(f"{page} has no passage with the answer {answer!r} to {question['question']!r}")


def holds(text: str, answer: str) -> bool:
    """Whether an answer stands in a text as words of its own: `C` is not in `Calloway`."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) is not None


def read(path: Path) -> list[Record]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, records: list[Record]) -> None:
    """Write objects as JSONL."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


def main(folder: Path) -> None:
    """Write the passages and the questions of ``folder``."""
    known = passages(folder / "documents")
    write(Path("passages.jsonl"), known)
    print(f"{len(known)} passages")
    for file in sorted((folder / "questions").glob("*.jsonl")):
        asked = [with_passage(question, known) for question in read(file)]
        write(Path(file.name), asked)
        print(f"{file.name}: {len(asked)} questions")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
