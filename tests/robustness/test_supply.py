"""Supply chain: what our source never does, and that no package imports an undeclared dependency."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.robustness.distributions import closure
from tests.robustness.source_rules import sources, third_party, violations
from tests.support.paths import ROOT
from tests.support.project import PROJECT, packages

PACKAGES = packages()
# What each package may import: the extras that bring it.  `peers` and `optimum` are other engines, measured
# where somebody has installed them (benchmarks/README.md), and what a configuration's `report_to` may name.
EXTRAS = {
    "ragengine": {"cpu", "documents", "calibrate", "plot", "eval", "langchain", "llama-index", "haystack"},
    "ragengine_export": {"cpu", "export"},
    "ragengine_train": {"cpu", "export", "plot", "train"},
    "ragengine_serve": {"cpu", "serve", "client", "otel"},
    "ragengine_ray": {"cpu", "export", "train", "serve", "ray"},
    "ragengine_bench": {"cpu", "export", "plot", "peers", "serve", "client"},
}
# Frameworks that are installed in environments of their own, by the distribution that brings a module.
ELSEWHERE = {
    "langchain_core": "langchain-core",
    "llama_index": "llama-index-core",
    "haystack": "haystack-ai",
    "ray": "ray",
}
# Of the extra export: scripts make graphs with it.
ONLY_INSIDE = {"ragengine": {"onnx_ir", "onnx"}}
# Rooms of the engine that may: the client of shards, which a caller has to ask for, and adapters (asyncio).
CONNECTING = ("retrieval/sharding/remote", "integrations")
PROMISES = [ROOT / "SECURITY.md", *(ROOT / "docs").rglob("versioning.md")]
PEERS = {"ragengine_bench": {"optimum", "onnx"}, "ragengine_train": {"wandb"}}


@pytest.mark.parametrize(
    ("snippet", "named"),
    [
        ("import pickle\npickle.load(open('x', 'rb'))", "2: pickle.load"),
        ("import pickle as p\ndef f(b):\n    return p.Unpickler(b)", "3: pickle.Unpickler"),
        ("from pickle import loads", "1: pickle.loads"),
        ("import marshal", "1: marshal"),
        ("from joblib import load", "1: joblib.load"),
        ("import shelve", "1: shelve"),
        ("x = eval('1')", "1: builtins.eval"),
        ("run = exec", "1: builtins.exec"),
        ("import builtins\nbuiltins.compile('1', '', 'eval')", "2: builtins.compile"),
        ("import torch\ntorch.load('x')", "2: torch.load without weights_only"),
        ("import torch\ntorch.load('x', weights_only=False)", "2: weights_only="),
        ("from torch import load as f\nf('x')", "2: torch.load without weights_only"),
        ("import numpy as np\nnp.load('x')", "2: numpy.load without allow_pickle=False"),
        ("import numpy as np\nnp.load('x', allow_pickle=flag)", "2: allow_pickle="),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "2: yaml.load"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "2: shell="),
        ("import os\nos.system('ls')", "2: os.system"),
        ("from tempfile import mktemp", "1: tempfile.mktemp"),
        ("model.from_pretrained('x', trust_remote_code=True)", "1: trust_remote_code"),
        ("model(**{'trust_remote_code': True})", "1: trust_remote_code"),
        (
            "from transformers import AutoConfig\nAutoConfig.from_pretrained('x')",
            "2: transformers.AutoConfig.",
        ),
        (
            "import transformers\nload(transformers.AutoTokenizer.from_pretrained)",
            "2: transformers.AutoToken",
        ),
        ("connection.enable_load_extension(True)", "1: .enable_load_extension"),
    ],
)
def test_the_walker_finds(snippet: str, named: str) -> None:
    found = violations(snippet)
    assert len(found) == 1, found
    assert found[0].startswith(named)


@pytest.mark.parametrize(
    "snippet",
    [
        "import re\nre.compile('x')",
        "model.eval()",
        "import ast\nast.literal_eval('1')",
        "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    pass",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import torch\ntorch.load('x', weights_only=True)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import socket",
        "import yaml\nyaml.safe_load('x')",
        "from transformers import AutoConfig\nAutoConfig.from_pretrained('x', trust_remote_code=False)",
    ],
)
def test_the_walker_lets_pass(snippet: str) -> None:
    assert violations(snippet) == []


@pytest.mark.parametrize(
    "snippet",
    [
        "import socket",
        "from urllib import request",
        "import http.client",
        "def f():\n    import requests",
        "import importlib\nimportlib.import_module('huggingface_hub')",
    ],
)
def test_the_walker_finds_the_network_in_the_engine(snippet: str) -> None:
    assert "talks to nobody" in violations(snippet, network=False)[0]


@pytest.mark.parametrize("folder", [*PACKAGES.values(), ROOT / "examples"], ids=lambda path: path.name)
def test_our_source_runs_no_data_and_starts_no_shell(folder: Path) -> None:
    files = sources(folder)
    assert files
    found = {
        str(file.relative_to(ROOT)): faults
        for file in files
        if (faults := violations(file.read_text("utf-8"), network=may_connect(file)))
    }
    assert found == {}


def may_connect(file: Path) -> bool:
    """Whether a file may import what talks to other machines: of the engine the client of shards alone."""
    engine = PACKAGES["ragengine"]
    return engine not in file.parents or any(engine / room in file.parents for room in CONNECTING)


def declared(extras: set[str]) -> set[str]:
    """The distributions that pyproject.toml names for ragengine with these extras."""
    lines = [
        *PROJECT["dependencies"],
        *(line for e in extras for line in PROJECT["optional-dependencies"][e]),
    ]
    return {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_a_declared_dependency(package: str) -> None:
    distributions = packages_distributions()
    modules = set().union(
        *(
            third_party(file.read_text("utf-8"), set(PACKAGES), sys.stdlib_module_names)
            for file in sources(PACKAGES[package])
        )
    )
    modules -= ONLY_INSIDE.get(package, set()) | PEERS.get(package, set())
    # several distributions put modules into one namespace, such as opentelemetry: one of them is declared
    needed = {
        module: {ELSEWHERE[module]}
        if module in ELSEWHERE
        else {*map(canonicalize_name, distributions.get(module, [module]))}
        for module in modules
    }
    known = declared(EXTRAS[package])
    assert {module for module, names in needed.items() if not names & known} == set()


# Imports every module of the engine and shows the help of every command, where nothing can be found but the
# standard library and the modules on the command line.
_EVERYTHING = """
import importlib, pkgutil, sys

allowed = set(sys.argv[1].split(","))

class OnlyDeclared:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyDeclared())
import click
import ragengine
from ragengine.cli.main import cli

from ragengine.errors import DependencyError

missed = set()
for module in pkgutil.walk_packages(ragengine.__path__, "ragengine."):
    try:
        importlib.import_module(module.name)
    except DependencyError:
        missed.add(module.name)
adapters = ("langchain", "llama_index", "haystack")
assert missed == {f"ragengine.integrations.{name}" for name in adapters}, missed

from ragengine.cli.main import _EXTRAS as OTHER_PACKAGES

def show(command, arguments):
    try:
        cli.main([*arguments, "--help"], prog_name="ragengine", standalone_mode=False)
    except click.exceptions.Exit as end:
        assert end.exit_code == 0
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if arguments or name not in OTHER_PACKAGES:
                show(command.get_command(context, name), [*arguments, name])

show(cli, [])
"""


def test_the_engine_needs_its_declared_dependencies_alone() -> None:
    """No torch, no transformers; matplotlib only once a figure is drawn."""
    allowed = closure({"ragengine"}, extras={"cpu"})
    modules = {
        top for top, names in packages_distributions().items() if {*map(canonicalize_name, names)} & allowed
    }
    assert {"numpy", "onnxruntime", "faiss", "tokenizers", "click", "rich", "ragengine"} <= modules
    assert not {"torch", "transformers", "onnx", "scipy", "matplotlib"} & modules
    done = subprocess.run(
        [sys.executable, "-c", _EVERYTHING, ",".join(sorted(modules | {"__main__"}))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: ragengine index build" in done.stdout
    assert "Usage: ragengine ask" in done.stdout


@pytest.mark.parametrize("path", PROMISES, ids=lambda path: path.stem)
def test_what_a_promise_points_to_is_there(path: Path) -> None:
    """A page that says where something is tested must not outlive the test."""
    text = path.read_text("utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    named = [ROOT / name for name in re.findall(r"`((?:tests|docs|examples)/[\w/.]+)`", text)]
    targets = [path.parent / link for link in links] + named
    assert len(targets) >= 3
    assert [str(target) for target in targets if not target.exists()] == []


def test_every_lower_bound_of_the_runtime_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    first = lines.index("dependencies = [")
    bounds = lines[first + 1 : lines.index("]", first)]
    assert len(bounds) == 4
    assert all(re.fullmatch(r'    "[a-z]+>=[0-9.]+", # .+', line) for line in bounds)


def test_the_oldest_dependencies_that_are_tried_are_the_lower_bounds() -> None:
    """`make test-oldest` installs what pyproject.toml allows, release for release."""
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("test-oldest:")[2].partition("\n\n")[0]
    tried = dict(re.findall(r"([a-z-]+)==([0-9.]+)", recipe))
    bounds = [Requirement(r) for r in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cpu"])]
    assert tried.keys() == {bound.name for bound in bounds}
    for bound in bounds:
        (lower,) = bound.specifier
        assert lower.operator == ">="
        assert tried[bound.name] in SpecifierSet(f"=={lower.version}.*")
