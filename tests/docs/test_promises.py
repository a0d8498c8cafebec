"""Every promise of SECURITY.md names the tests that hold it, and they are there."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TEXT = (ROOT / "SECURITY.md").read_text("utf-8")
PROMISES = re.findall(
    r"^\* \*\*(.+?)\.?\*\*", TEXT.partition("## What is promised")[2].partition("\n## ")[0], re.M
)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.partition("## Where this is tested")[2].splitlines()
    if line.startswith("| ")
][1:]


def files_of(promise: str) -> list[Path]:
    """The files that the table links for a promise."""
    links = [re.findall(r"\]\((.+?)\)", tests) for named, _, tests in ROWS if promise.startswith(named)]
    return [ROOT / path for row in links for path in row]


def runs_always(test: ast.stmt) -> bool:
    """Whether a statement is a test that `make test` runs."""
    if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
        return False
    markers = {ast.unparse(decorator).partition("(")[0] for decorator in test.decorator_list}
    return not markers & {"pytest.mark.slow", "pytest.mark.gpu", "pytest.mark.skip"}


def test_there_are_promises_and_each_row_names_one() -> None:
    assert len(PROMISES) >= 10
    assert [named for named, _, _ in ROWS if not any(promise.startswith(named) for promise in PROMISES)] == []


@pytest.mark.parametrize("promise", PROMISES)
def test_promise_is_held_by_tests_that_are_run(promise: str) -> None:
    files = files_of(promise)
    assert files, f"no row of the table names a test of {promise!r}"
    for file in files:
        assert file.is_file(), file
        assert file.match("tests/**/test_*.py"), f"pytest does not collect {file}"
        tree = ast.parse(file.read_text("utf-8"))
        assert any(runs_always(statement) for statement in tree.body), f"{file} has no test that always runs"
