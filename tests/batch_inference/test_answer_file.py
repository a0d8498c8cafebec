"""`answer_file` and `ragengine ask --file`: the same file however often it is killed and whoever answers."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ragengine import RagEngine, answer_file
from ragengine.batch_inference.records import answered_records
from ragengine.errors import DeadlineError, InputError, OptionsError, PassagesError, ProcessError
from tests.support.commands import COMMAND, run
from tests.support.paths import WORLDFACTS

BUNDLE, INDEX = WORLDFACTS / "bundle", WORLDFACTS / "index"
QUICK: dict[str, Any] = {"n_docs": 2, "max_length": 8, "num_beams": 1, "threads": 1, "verify": "size"}
FLAGS = ["--n-docs=2", "--max-length=8", "--num-beams=1", "--threads=1", "--verify=size", "--batch-size=2"]
COUNT = 31  # the last batch is not a whole one


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    lines = (WORLDFACTS / "questions.jsonl").read_text("utf-8").splitlines()[:COUNT]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def whole(questions: Path) -> bytes:
    """What an uninterrupted run of one process writes."""
    output = questions.with_name("whole.jsonl")
    answer_file(BUNDLE, INDEX, questions, output, batch_size=2, **QUICK)
    assert [path.name for path in output.parent.glob(".*")] == []
    return output.read_bytes()


def test_lines_are_the_answers_of_generate(questions: Path, whole: bytes) -> None:
    lines = [json.loads(line) for line in whole.splitlines()]
    texts = [json.loads(line)["question"] for line in questions.read_text("utf-8").splitlines()]
    assert [line["question"] for line in lines] == texts
    assert [line["line"] for line in lines] == list(range(1, COUNT + 1))
    options = {name: QUICK[name] for name in ("n_docs", "max_length", "num_beams")}
    with RagEngine.load(BUNDLE, index=INDEX, threads=1, verify="size") as engine:
        for start in range(0, COUNT, 2):
            for answer, line in zip(
                engine.generate(texts[start : start + 2], **options), lines[start : start + 2], strict=True
            ):
                expected = {name: value for name, value in answer.to_dict().items() if name != "timings_ms"}
                assert {name: line[name] for name in expected} == expected


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_moments_the_file_is_the_same(
    processes: int, questions: Path, whole: bytes, tmp_path: Path
) -> None:
    output, rng = tmp_path / "answers.jsonl", random.Random(processes)
    part = tmp_path / ".answers.jsonl.writing/answers.part"
    command = [*COMMAND, "ask", BUNDLE, INDEX, "--file", questions, "--output", output, *FLAGS]
    command += ["--processes", str(processes)]
    kills = grown = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        begun, wanted = part.stat().st_size if part.exists() else 0, rng.choice([0, 1, 9000, 30000])
        if kills < 7:
            while process.poll() is None and (part.stat().st_size if part.exists() else 0) < begun + wanted:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        kills += process.returncode == -signal.SIGKILL
        now = part.read_bytes() if part.exists() else b""
        grown += len(now) > begun
        lines = [line for line in now.splitlines(keepends=True) if line.endswith(b"\n")]
        assert b"".join(lines) == whole[: sum(map(len, lines))]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
        assert not output.exists() or output.read_bytes() == whole
    assert kills >= 3
    assert grown >= 2, "no killed run had written anything"
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_half_a_line_is_cut_off_and_half_a_batch_is_answered_again(
    questions: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    interrupt_after(questions, output, 6)
    part = tmp_path / ".answers.jsonl.writing/answers.part"
    lines = whole.splitlines(keepends=True)
    assert part.read_bytes() == b"".join(lines[:6])
    part.write_bytes(b"".join(lines[:5]) + lines[5][:100])
    done = answer_file(BUNDLE, INDEX, questions, output, batch_size=2, **QUICK)
    assert (done.questions, done.resumed, done.failed) == (COUNT, 4, 0)
    assert output.read_bytes() == whole
    again = answer_file(BUNDLE, INDEX, questions, output, batch_size=2, **QUICK)
    assert (again.resumed, output.read_bytes()) == (COUNT, whole)


def interrupt_after(questions: Path, output: Path, count: int, **changes: Any) -> None:
    def stop(done: int, total: int | None) -> None:
        if done >= count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        answer_file(BUNDLE, INDEX, questions, output, batch_size=2, progress=stop, **QUICK, **changes)
    assert f"{count} of {COUNT} questions are answered" in interrupt.value.__notes__[0]


def test_other_settings_are_refused_by_name_and_begin_anew_with_force(
    questions: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    interrupt_after(questions, output, 4)
    part = tmp_path / ".answers.jsonl.writing/answers.part"
    kept = part.read_bytes()
    for change, said in (
        ({"max_length": 9}, "max_length was 8, is 9"),
        ({"doc_pruning": 0.5}, "doc_pruning was null, is 0.5"),
        ({"filter": {"a": "b"}}, "filter was null, is"),
        ({"batch_size": 4}, "batch_size was 2, is 4"),
        ({"deadline": 9.0}, "deadline was None, is 9.0"),
    ):
        settings: dict[str, Any] = {"batch_size": 2, **QUICK, **change}
        with pytest.raises(InputError, match=f"cannot be gone on with: {said}.*--force"):
            answer_file(BUNDLE, INDEX, questions, output, **settings)
    others = tmp_path / "others.txt"
    others.write_text("Is it another file?\n")
    with pytest.raises(InputError, match=r"questions was .* is "):
        answer_file(BUNDLE, INDEX, others, output, batch_size=2, **QUICK)
    assert part.read_bytes() == kept
    done = answer_file(BUNDLE, INDEX, questions, output, batch_size=4, force=True, **QUICK)
    assert done.resumed == 0
    assert len(output.read_bytes().splitlines()) == COUNT
    with pytest.raises(InputError, match="exists and does not hold these answers; give --force"):
        answer_file(BUNDLE, INDEX, questions, output, batch_size=2, **QUICK)
    answer_file(BUNDLE, INDEX, questions, output, batch_size=2, force=True, **QUICK)
    assert output.read_bytes() == whole


def test_a_failing_question_does_not_lose_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question fails whenever it is asked, alone or among others."""
    source, output = tmp_path / "q.txt", tmp_path / "a.jsonl"
    source.write_text("What is the capital of Iceland?\nslow\nWhat is the capital of Peru?\n")
    generate = RagEngine.generate

    def failing(self: RagEngine, question: Any, **settings: Any) -> Any:
        if "slow" in question:
            raise DeadlineError("The deadline passed before the search.")
        return generate(self, question, **settings)

    monkeypatch.setattr(RagEngine, "generate", failing)
    done = answer_file(BUNDLE, INDEX, source, output, **QUICK)
    assert (done.questions, done.failed) == (3, 1)
    first, second, third = (json.loads(line) for line in output.read_text("utf-8").splitlines())
    assert (first["answer"], third["answer"]) == ("Reykjavik", "Lima")
    error = {"type": "DeadlineError", "message": "The deadline passed before the search."}
    assert second == {"line": 2, "id": None, "run": first["run"], "question": "slow", "error": error}
    assert answer_file(BUNDLE, INDEX, source, output, **QUICK).failed == 1
    with pytest.raises(DeadlineError, match=r"q\.txt line 2: The deadline passed"):
        answer_file(BUNDLE, INDEX, source, tmp_path / "b.jsonl", on_error="stop", **QUICK)


def test_a_real_deadline_is_an_error_in_every_line(tmp_path: Path) -> None:
    source, output = tmp_path / "q.jsonl.gz", tmp_path / "a.jsonl"
    with gzip.open(source, "wt") as file:
        file.write('{"question": "What?", "id": "x"}\n\n{"question": "Who?", "id": 7, "answers": []}\n')
    asked = run(
        "ask", BUNDLE, INDEX, "--file", source, "--output", output, "--deadline", "1e-6", "--threads", "1"
    )
    assert asked.returncode == 1
    assert "2 of 2 have an error instead of an answer" in asked.stderr
    lines = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [(line["line"], line["id"], line["error"]["type"]) for line in lines] == [
        (1, "x", "DeadlineError"),
        (3, 7, "DeadlineError"),
    ]


def test_a_process_that_dies_is_named_and_nothing_is_lost(
    questions: Path, whole: bytes, tmp_path: Path
) -> None:
    output, killed = tmp_path / "answers.jsonl", False

    def kill(done: int, total: int | None) -> None:
        nonlocal killed
        if done >= 4 and not killed:
            os.kill(child_pids()[0], signal.SIGKILL)
            killed = True

    with pytest.raises(ProcessError, match=r"ended by signal 9; .*fewer processes"):
        answer_file(BUNDLE, INDEX, questions, output, batch_size=2, processes=2, progress=kill, **QUICK)
    assert child_pids() == []
    done = answer_file(BUNDLE, INDEX, questions, output, batch_size=2, **QUICK)
    assert done.resumed >= 4
    assert output.read_bytes() == whole


def child_pids() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [
        int(pid) for pid in text.split() if b"batch_inference" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"question": "a"}\nb\n', r'q.jsonl line 2 is not \{"question": str\}'),
        ("q.jsonl", '{"question": "a"}\n\n{"answers": []}\n', "q.jsonl line 3 is not"),
        ("q.jsonl", '{"question": "a", "id": 1.5}\n', 'line 1: "id" is 1.5; write a string'),
        ("q.jsonl", '{"question": "a", "id": true}\n', 'line 1: "id" is True'),
        ("q.jsonl", '{"question": "\\ud800"}\n', "line 1: the question has half a surrogate pair"),
        ("q", 'plain?\n{"question": "a"}\n', "q line 2 begins with a brace among plain lines"),
        ("q.txt", "\n \n", "holds no questions"),
        ("q.txt", "x" * 1_000_001, "line 1: the question has 1000001 characters"),
    ],
)
def test_a_wrong_line_is_named_before_anything_runs(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(PassagesError, match=said):
        answer_file(tmp_path / "no bundle", INDEX, tmp_path / name, tmp_path / "a.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"processes": 0}, InputError, "processes is 0; it must be a whole number from 1 to 256"),
        ({"batch_size": 2.0}, InputError, r"batch_size is 2\.0; it must be a whole number from 1 to 9"),
        ({"on_error": "skip"}, InputError, "on_error is 'skip'; it must be record or stop"),
        ({"deadline": 0}, InputError, "deadline is 0; it must be seconds above 0"),
        ({"num_beam": 2}, OptionsError, "did you mean 'num_beams'"),
        ({"options": {"num_beams": 2}}, OptionsError, "options is dict; it must be GenerationOptions"),
        ({"batch_size": 10**5000}, InputError, "batch_size is a number of 16610 bits; it must be a whole"),
        ({"force": "no"}, InputError, "force is str; it must be True, False"),
        ({"threads": 0}, InputError, "threads is 0; it must be a whole number"),
        (
            {"adaptive_reading": True, "num_beams": 2},
            OptionsError,
            "adaptive_reading cannot follow num_beams=2",
        ),
        ({"num_beams": 0, "processes": 2}, OptionsError, "num_beams is 0"),
        ({"filter": {"no": "such"}, "processes": 2}, InputError, "No passage matches the filter"),
    ],
)
def test_wrong_settings(
    settings: dict[str, Any], error: type[Exception], said: str, questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        answer_file(
            BUNDLE, INDEX, questions, tmp_path / "a.jsonl", **{"threads": 1, "verify": "size", **settings}
        )
    assert not (tmp_path / "a.jsonl").exists()


def test_an_output_that_cannot_be(questions: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(questions.read_bytes())
    for path, said in (
        (copy, "is the file of questions, too"),
        (tmp_path, "is not a plain file"),
        (tmp_path / "no/a.jsonl", "cannot be written: No such file"),
    ):
        with pytest.raises(InputError, match=said):
            answer_file(BUNDLE, INDEX, copy, path, force=True, **QUICK)
    assert copy.read_bytes() == questions.read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["b", "i", "--file", "f"],
        ["b", "i", "q", "--file", "f", "--output", "o"],
        ["b", "i", "--file", "f", "--output", "o", "--explain"],
        ["b", "i", "q", "--processes", "2"],
    ],
)
def test_which_arguments_go_together(arguments: list[str]) -> None:
    assert run("ask", *arguments).returncode == 2


def test_one_failing_question_is_asked_alone() -> None:
    """A real deadline that the batch cannot meet: every question gets its own try."""
    with RagEngine.load(BUNDLE, index=INDEX, threads=1, verify="size") as engine:
        records = answered_records(engine, ["a?", "b?"], {}, deadline=1e-9)
    assert [record["error"]["type"] for record in records] == ["DeadlineError"] * 2


@pytest.mark.parametrize("path", [None, 5, b"q.jsonl", "\0", "\ud800"], ids=ascii)
def test_what_is_no_path(path: Any, questions: Path, tmp_path: Path) -> None:
    with pytest.raises(PassagesError, match=r"is not a path"):
        answer_file(BUNDLE, INDEX, path, tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"is not a path"):
        answer_file(BUNDLE, INDEX, questions, path)
