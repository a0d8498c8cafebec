"""The examples run as they stand, and the guide shows them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.integrations.conftest import BUNDLE, INDEX, QUESTION, TEXT
from tests.support.paths import ROOT

PACKAGES = {
    "with_langchain": "langchain_core",
    "with_llama_index": "llama_index",
    "with_haystack": "haystack",
}
EXAMPLES = sorted((ROOT / "examples" / "integrations").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_answers_with_its_sources(path: Path) -> None:
    package = PACKAGES[path.stem]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed here; see make test-integrations")
    command = [sys.executable, str(path), BUNDLE, INDEX, QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer, source, *_ = done.stdout.splitlines()
    assert answer == TEXT
    assert source.endswith("  Lizhi")
    assert 0.7 < float(source.split()[0]) <= 1


def test_examples_are_short_and_one_for_each_framework() -> None:
    assert {path.stem for path in EXAMPLES} == PACKAGES.keys()
    assert all(len(path.read_text("utf-8").splitlines()) < 40 for path in EXAMPLES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_guide_shows_the_example_as_it_is(path: Path) -> None:
    shown = [block.code for block in blocks(ROOT / "docs" / "guides" / "integrations.md")]
    code = path.read_text("utf-8").partition('"""\n\n')[2].partition("\n\nif __name__")[0]
    assert code.strip() in [block.strip() for block in shown]
