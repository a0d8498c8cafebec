"""The report of the GPU measurements."""

import json
import re
from pathlib import Path

import pytest

from ragengine.errors import InputError
from ragengine_bench.gpu.report import (
    JSON_FILE,
    MARKDOWN_FILE,
    GpuReport,
    Recorder,
    Step,
    Table,
    Target,
    markdown_table,
    step_markdown,
)

MACHINE = {"processor": "one", "cores": 2, "threads": 2, "date": "today", "versions": {}, "gpus": ["a GPU"]}


def test_targets_beside_what_was_measured() -> None:
    assert Target.at_least("ratio", 15, 15.0) == Target("ratio", ">= 15 x", "15 x", True)
    assert Target.at_least("ratio", 15, 14.9).met is False
    assert Target.below("step", 1.2, 1.1994) == Target("step", "< 1.2 ms", "1.2 ms", True)
    assert Target.below("step", 1.2, 1.2).verdict == "no"
    missing = Target.below("step", 1.2, None)
    assert (missing.measured, missing.met, missing.verdict) == ("not measured", None, "")


def test_a_table_is_read_in_a_terminal_and_as_markdown() -> None:
    table = Table("T", ["", "one", "empty", "n|m"])
    table.add("row", 1, "", "12345")
    table.add("longer", "", "", 2)
    assert markdown_table(table).splitlines() == [
        "**T**",
        "",
        "|        | one |   n/m |",
        "| ------ | --: | ----: |",
        "| row    |   1 | 12345 |",
        "| longer |     |     2 |",
    ]
    with pytest.raises(ValueError, match="4 columns, this row 2"):
        table.add("row", 1)


def test_steps_share_a_file_and_keep_their_place(tmp_path: Path) -> None:
    for name in ("first", "second", "first"):
        step = Step(name, "what it is", {"device": "cpu"})
        recorder = Recorder(tmp_path, MACHINE, step)
        table = Table("T", ["", "figure"])
        step.tables.append(table)
        table.add("row", "1")
        recorder.compare(
            Target.at_least("speed", 10, 11.0), Target.at_least("more", 2, 1.0), counts=name == "first"
        )
        recorder.end("" if name == "first" else "no room")
    report = GpuReport.read(tmp_path)
    assert report is not None
    assert [step.name for step in report.steps] == ["first", "second"]
    assert [(step.complete, step.failure) for step in report.steps] == [(True, ""), (False, "no room")]
    assert [[target.met for target in step.targets] for step in report.steps] == [[True, False], [None, None]]
    assert report.steps[0] == Step.from_json(json.loads((tmp_path / JSON_FILE).read_text())["steps"][0])
    text = (tmp_path / MARKDOWN_FILE).read_text("utf-8")
    assert text.startswith("a GPU, one, 2 cores")
    assert "| first: speed | >= 10 x | 11 x | yes |" in re.sub(" +", " ", text)
    assert "## second: what it is (failed)" in text
    assert "Failed: no room" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [JSON_FILE, MARKDOWN_FILE]


def test_a_step_that_was_killed_left_what_it_had(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, MACHINE, Step("first", "what it is"))
    recorder.step.notes.append("a sentence")
    recorder.save()
    report = GpuReport.read(tmp_path)
    assert report is not None
    assert step_markdown(report.steps[0]).startswith("# first: what it is (not finished)\n\na sentence")


def test_a_report_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / JSON_FILE).write_text('{"schema": 99}')
    with pytest.raises(InputError, match="schema 99; this version reads 2"):
        GpuReport.read(tmp_path)
