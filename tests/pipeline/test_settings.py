"""The typed keyword arguments: those that the calls take, and what a type checker makes of them."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from ragengine import GenerationOptions, RagEngine
from ragengine.options import GenerationOverrides
from ragengine.pipeline.settings import GenerateSettings, ScoreSettings
from tests.support.paths import ROOT

SNIPPET = """
from ragengine import GenerationOptions, RagEngine
from typing import reveal_type

engine = RagEngine.load("bundle")
reveal_type(engine.generate("q", num_beams=4, deadline=1.0))
reveal_type(engine.generate(["q"], bad_words_ids=[[1, 2]], eos_token_id=[2, 3]))
reveal_type(engine.score("q", "a", n_docs=2, exclude_bos_score=None))
engine.stream("q", num_beams=1)
engine.classify("q", ["a", "b"], n_docs=3)
GenerationOptions().replace(num_beams=2)
engine.generate("q", num_beam=4)  # wrong
engine.generate(["q"], num_beam=4)  # wrong
engine.generate("q", num_beams="4")  # wrong
engine.score("q", "a", num_beam=4)  # wrong
engine.stream("q", num_beam=1)  # wrong
engine.classify("q", ["a", "b"], search="quick")  # wrong
GenerationOptions().replace(num_beam=2)  # wrong
"""


def test_the_overrides_are_the_fields_of_the_options() -> None:
    typed = get_type_hints(GenerationOverrides)
    assert typed.keys() == {field.name for field in fields(GenerationOptions)}
    for name, hint in get_type_hints(GenerationOptions).items():
        expected = str(hint).replace("tuple[int, ...]", "Sequence[int]").replace("tuple[", "Sequence[")
        assert str(typed[name]).replace("collections.abc.", "") == expected.replace("], ...]", "]]"), name


@pytest.mark.parametrize(
    ("call", "settings"), [(RagEngine.generate, GenerateSettings), (RagEngine.score, ScoreSettings)]
)
def test_the_settings_are_the_keyword_arguments_of_the_call(call: Callable[..., Any], settings: type) -> None:
    parameters = inspect.signature(call).parameters.values()
    named = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    assert get_type_hints(settings).keys() == named | get_type_hints(GenerationOverrides).keys()


def test_a_type_checker_knows_the_names_and_refuses_others(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path / "snippet.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    lines = SNIPPET.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    # Not by the folder: from its cache mypy repeats the messages of the run before, with that one's path.
    said = re.findall(r"snippet\.py:(\d+): (\w+): (.*)", done.stdout)
    assert {int(number) for number, kind, _ in said if kind == "error"} == wrong, done.stdout
    revealed = [text for _, _, text in said if "Revealed type" in text]
    assert ["Answer" in text for text in revealed] == [True, True, False]
    assert ["list[" in text for text in revealed] == [False, True, False]
    assert '"builtins.float"' in revealed[2] or '"float"' in revealed[2]
