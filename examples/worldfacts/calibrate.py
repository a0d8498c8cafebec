"""Calibrate the shipped index: writes `index/calibration.json` and `data/calibration.png`.

The answerable and the unanswerable test questions are split by their pattern, the wording of `asking.py`
that they were made from: one half is what the calibration is fitted to, the other half judges it. No wording
is in both, so that what the figures say holds for wordings that the calibration has not seen.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from asking import HELD_OUT, OF_THE_COUNTRY, QUESTIONS, UNSTATED
from common import Row, read_jsonl, write_jsonl

HERE = Path(__file__).parent
_PLACE = re.compile(r"\{(?:x|iata|icao)\}")


@cache
def wordings() -> dict[str, re.Pattern[str]]:
    """Every wording, with the expression that its questions match."""
    sources = (QUESTIONS, HELD_OUT, OF_THE_COUNTRY, UNSTATED)
    texts = {text for source in sources for group in source.values() for text in group}
    return {
        text: re.compile("(.+)".join(map(re.escape, _PLACE.split(text))), re.IGNORECASE)
        for text in sorted(texts)
    }


@cache
def pattern(question: str) -> str:
    """The wording of a question; of one with a typing error, the nearest."""
    matches = [text for text, expression in wordings().items() if expression.fullmatch(question)]
    return max(matches, key=len) if matches else max(wordings(), key=lambda text: _likeness(question, text))


def _likeness(question: str, wording: str) -> float:
    """How alike a question and a wording are before and after the place, from 0 to 1."""
    before, after = (part.lower() for part in _PLACE.split(wording))
    head, tail = question.lower()[: len(before) + 1], question.lower()[-len(after) - 1 :]
    alike = difflib.SequenceMatcher(None, head, before).ratio() * len(before)
    return (alike + difflib.SequenceMatcher(None, tail, after).ratio() * len(after)) / len(before + after)


def half(question: str, salt: str = "split") -> str:
    """``dev`` or ``test``, by the hash of the pattern; another ``salt`` makes another split."""
    return "test" if hashlib.sha256(f"{salt}:{pattern(question)}".encode()).digest()[0] % 2 else "dev"


def split(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of both halves."""
    halves: dict[str, list[Row]] = {"dev": [], "test": []}
    for row in rows:
        halves[half(row["question"])].append(row)
    return halves


def main() -> None:
    """Split, calibrate, and print the figures."""
    from ragengine import calibrate
    from ragengine.cli.calibration_table import print_report

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, help="threads of a graph")
    threads = parser.parse_args().threads
    files = ("questions.jsonl", "questions_unanswerable.jsonl")
    (HERE / "data").mkdir(exist_ok=True)
    paths = {}
    for name, rows in split(row for file in files for row in read_jsonl(HERE / file)).items():
        paths[name] = HERE / "data" / f"calibration_{name}.jsonl"
        write_jsonl(paths[name], rows)
    report = calibrate(
        HERE / "bundle",
        HERE / "index",
        paths["dev"],
        test=paths["test"],
        plot=HERE / "data" / "calibration.png",
        threads=threads,
    )
    print_report(report, HERE / "index")


if __name__ == "__main__":
    main()
