"""The command that a message gives for an extra: true for where this ragengine came from."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ragengine import installation
from ragengine.errors import DependencyError
from ragengine.installation import TORCH_FOR_CPU, check_packages, missing_package, pip_install
from tests.support.paths import ROOT

WHEEL = "/srv/wheels/ragengine-0.1.0-py3-none-any.whl"
PRINT = "from ragengine.installation import pip_install; print(pip_install('serve'))"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as an installer leaves it: the package and its metadata, and no clone around."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "engine" / "ragengine", tmp_path / "site" / "ragengine", ignore=ignored)
    info = tmp_path / "site" / "ragengine-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ragengine\nVersion: 0.1.0\n")
    return tmp_path / "site"


@pytest.mark.parametrize(
    ("recorded", "requirement"),
    [
        (None, "ragengine[serve]"),
        ({"url": f"file://{WHEEL}", "archive_info": {}}, f"{WHEEL}[serve]"),
        ({"url": "file:///srv/a%20clone", "dir_info": {}}, "/srv/a clone[serve]"),
        (
            {"url": "https://git.test/r", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "ragengine[serve] @ git+https://git.test/r@abc",
        ),
        (
            {"url": "https://files.test/r.whl", "archive_info": {}},
            "ragengine[serve] @ https://files.test/r.whl",
        ),
        ([], "ragengine[serve]"),  # not PEP 610
    ],
)
def test_the_command_installs_from_where_the_package_came(
    site: Path, recorded: object, requirement: str
) -> None:
    if recorded is not None:
        (site / "ragengine-0.1.0.dist-info" / "direct_url.json").write_text(json.dumps(recorded))
    child = subprocess.run(
        [sys.executable, "-c", PRINT],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shlex.split(child.stdout) == ["pip", "install", requirement]


def test_in_a_clone_the_clone_is_installed() -> None:
    assert pip_install("serve") == f'pip install -e "{ROOT}[serve]"'


def test_a_path_that_a_shell_would_expand_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_clone", lambda: Path("/srv/$HOME/`x`"))
    assert shlex.split(pip_install("cpu")) == ["pip", "install", "-e", "/srv/$HOME/`x`[cpu]"]
    assert "'" in pip_install("cpu")


@pytest.mark.parametrize("extra", ["export", "train", "bench"])
def test_an_extra_with_torch_says_how_to_do_without_cuda(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TORCH_FOR_CPU not in pip_install(extra)  # it is installed
    monkeypatch.setitem(sys.modules, "torch", None)
    assert f"(without a GPU run {TORCH_FOR_CPU} before it)" in pip_install(extra)
    assert TORCH_FOR_CPU not in pip_install("serve")


def test_pages_install_what_is_there_and_list_every_extra() -> None:
    """There is no release: a page names a clone or a wheel."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    assert [page for page in pages if 'install "ragengine[' in page.read_text("utf-8")] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    table = (ROOT / "docs" / "guides" / "installing.md").read_text("utf-8").partition("| extra |")[2]
    for_developers = {"test", "serve-test", "docs"}
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = set(re.findall(r"`([a-z-]+)`", "".join(first_cells)))
    assert listed == project["optional-dependencies"].keys() - for_developers


def test_missing_packages_are_named() -> None:
    check_packages("A test needs", ["numpy", "click"], "serve")
    with pytest.raises(DependencyError) as raised:
        check_packages("A test needs", ["numpy", "nowhere_to_be_found"], "serve")
    expected = (
        f"A test needs the package nowhere_to_be_found, which is not installed; run {pip_install('serve')}."
    )
    assert str(raised.value) == expected
    reason = ModuleNotFoundError("No module", name="nowhere_to_be_found.below")
    assert str(missing_package("A test needs", reason, "serve")) == expected
