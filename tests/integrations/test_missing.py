"""Where a framework is not installed: one sentence, and an engine that does not miss it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ragengine.integrations
from ragengine.errors import DependencyError
from ragengine.installation import pip_install
from tests.support.project import PROJECT

# the adapter -> the framework's name, its package, the extra that brings it
ADAPTERS = {
    "langchain": ("LangChain", "langchain_core", "langchain"),
    "llama_index": ("LlamaIndex", "llama_index", "llama-index"),
    "haystack": ("Haystack", "haystack", "haystack"),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_missing_framework_is_one_sentence_with_the_remedy(
    adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework, package, extra = ADAPTERS[adapter]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"ragengine.integrations.{adapter}", raising=False)
    with pytest.raises(DependencyError) as raised:
        importlib.import_module(f"ragengine.integrations.{adapter}")
    assert str(raised.value) == (
        f"The adapters for {framework} need the package {package}, which is not installed; "
        f"run {pip_install(extra)}."
    )
    assert extra in PROJECT["optional-dependencies"]


def test_every_adapter_is_listed_here() -> None:
    (folder,) = ragengine.integrations.__path__
    modules = {path.stem for path in Path(folder).glob("*.py")}
    assert modules - {"__init__", "common"} == ADAPTERS.keys()


def test_the_engine_imports_no_framework() -> None:
    """Not even where one is installed: adapters are imported when they are asked for."""
    program = "import sys, ragengine.engine, ragengine.cli.main, ragengine.integrations; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "ragengine" in loaded
    assert loaded & {package for _, package, _ in ADAPTERS.values()} == set()
