"""The README and the tutorials: every block runs, and prints what the page shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ragengine_train import read_config
from tests.docs.extras import main as pip
from tests.docs.pages import LANGUAGES, ROOT, blocks, difference, name_of, run_page

README = ROOT / "README.md"
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
SLOW = [ROOT / "docs/tutorials/training.md", ROOT / "docs/tutorials/your-documents.md"]
"""Tutorials that take longer than a minute."""


def test_readme_runs(tmp_path: Path) -> None:
    assert run_page(README, tmp_path) == 1


@pytest.mark.parametrize("page", [page for page in TUTORIALS if page not in SLOW], ids=name_of)
def test_tutorial_runs(page: Path, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=name_of)
def test_long_tutorial_runs(page: Path, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) >= 3


@pytest.mark.parametrize("page", [README, *TUTORIALS], ids=name_of)
def test_no_block_escapes_the_runner(page: Path) -> None:
    """A shell block that calls itself `sh`, `console` or nothing would not be run."""
    found = blocks(page)
    assert {block.language for block in found} <= LANGUAGES
    assert page.read_text("utf-8").count("```") == 2 * len(found)
    assert any(block.language in ("bash", "python") and block.title is None for block in found)


def test_training_tutorial_has_a_configuration_that_is_read(tmp_path: Path) -> None:
    """The run itself is slow; its data, and that its settings are known, can be seen in a second."""
    page = ROOT / "docs/tutorials/training.md"
    files = {block.title: block.code for block in blocks(page) if block.title and block.language != "text"}
    assert files.keys() == {"world.py", "start.py", "train.toml"}
    compile(files["start.py"], "start.py", "exec")
    for name, text in files.items():
        (tmp_path / str(name)).write_text(text, "utf-8")
    subprocess.run([sys.executable, "world.py"], cwd=tmp_path, check=True)
    config = read_config(tmp_path / "train.toml")
    assert None not in (config.encoders, config.generator, config.joint)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a 1.00 b", "a  1.01   b"),
        ("79%", "80%"),
        ("first\n...\nlast", "first\nx\ny\nlast"),
        ("first\n...", "first\nx"),
        ("...\nlast", "x\nlast"),
        ("  28.0 ms (search 1.0, generate 27.0)", "  31.5 ms (search 0.2, generate 31.3)"),
        ("made in 0.0 s", "made in 12.5 s"),
        ("│ ──── │", "│ ────── │"),
    ],
)
def test_outputs_that_are_the_same(shown: str, printed: str) -> None:
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a 1.00 b", "a 1.02 b"),
        ("31,407", "31,408"),
        ("79%", "81%"),
        ("first\nlast", "first\nx\nlast"),
        ("first\n...\nlast", "first\nx"),
        ("first", "first\nx"),
        ("first\nx", "first"),
        ("", "x"),
        ("first\n...\nlast", "first\nlast\nx"),
    ],
)
def test_outputs_that_differ(shown: str, printed: str) -> None:
    assert difference(shown, printed) is not None


def test_numbers_under_a_title_may_be_any_but_not_the_words() -> None:
    assert difference("loss 0.5, 1.0e-07", "loss 3.25, 0.0e+00", any_numbers=True) is None
    assert difference("loss 0.5", "cost 0.5", any_numbers=True) is not None


def test_a_page_whose_command_fails_or_prints_otherwise_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for number, (text, reason) in enumerate(
        [
            ("```bash\nfalse\n```\n", "exit code 1"),
            ("```bash\necho a\n```\n\n```text\nb\n```\n", "'b' is shown and 'a' printed"),
            ("```text\nb\n```\n", "output of no command"),
            ('```bash\npip install ".[cpu,nothing]"\n```\n', "no extra nothing"),
            ("```bash\nmake nothing\n```\n", "exit code 2"),
            ("```python\nimport ragengine.nothing\n```\n", "exit code 1"),
        ]
    ):
        page.write_text(text)
        (tmp_path / str(number)).mkdir()
        with pytest.raises(AssertionError, match=reason):
            run_page(page, tmp_path / str(number))


def test_extras_are_those_of_the_project() -> None:
    assert pip(["install", ".[cpu,train]"]) is None
    assert pip(["install", "--quiet", "ragengine[gpu]"]) is None
    assert pip(["install", ".[nothing]"]) == "there is no extra nothing"
    assert pip(["install", "something"]) == "something is not ragengine with extras"
    assert pip(["download", "."]) is not None
