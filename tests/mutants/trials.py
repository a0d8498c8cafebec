"""The tests of a module against its mutants: collected once, then run in a fork for each.

A fork that imports everything anew costs seconds, more than most tests do; so the functions of the imported
module get the mutant's code instead.  Only what is made at the import, as a default of a class, is imported
anew.  The quickest tests run first; Hypothesis draws the same examples each time and does not shrink them.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import hypothesis
import pytest

from tests.mutants.mutations import Mutant

hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    database=None,
    derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
_OPTIONS: Final = (
    *("-x", "-qq", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", "-W", "error"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of libraries
)
_SLOWER: Final = 5.0
"""A mutant whose tests take so many times as long as usual, and some seconds, runs in circles: noticed."""


class Trials:
    """A pytest plugin that tries mutants of one module: ``survivors`` are those that no test notices."""

    def __init__(self, module: str, path: Path, tests: Sequence[str], chosen: Sequence[Mutant]) -> None:
        self.survivors: list[Mutant] = []
        self._module, self._path, self._chosen = module, path, chosen
        self._tests = [test if test.startswith("-") else f"tests/{test}" for test in tests]
        self._durations: dict[str, float] = {}
        self._cpu, self._wall = 600.0, 3600.0  # seconds that the tests may take

    def run(self, found: Callable[[Mutant], None]) -> None:
        """Try every mutant; each that survives is also given to ``found`` at once."""
        self._found = found
        with tempfile.TemporaryDirectory() as self._folder:
            if pytest.main([*_OPTIONS, f"--basetemp={self._folder}/tests", *self._tests], plugins=[self]):
                raise SystemExit(f"the tests of {self._module} fail as it is")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._durations[report.nodeid] = self._durations.get(report.nodeid, 0.0) + report.duration

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        session.config.pluginmanager.unregister(name="terminalreporter")
        if session.testsfailed or self._fails(lambda: self._measured(session)):
            raise session.Failed
        durations = json.loads(self._durations_file.read_text())
        session.items.sort(key=lambda item: round(durations[item.nodeid], 1))
        for mutant in self._chosen:
            code = compile(mutant.tree, str(self._path), "exec")
            changed = _changed(sys.modules[self._module], code)
            if not self._fails(
                (lambda changed=changed: _failed(session, changed))
                if changed
                else lambda code=code: self._failed_anew(code)
            ):
                self.survivors.append(mutant)
                self._found(mutant)
        return True

    @property
    def _durations_file(self) -> Path:
        return Path(self._folder) / "durations.json"

    def _measured(self, session: pytest.Session) -> bool:
        failed = _failed(session, {})
        self._durations_file.write_text(json.dumps(self._durations))
        return failed

    def _failed_anew(self, code: CodeType) -> bool:
        """Whether the tests fail where the module is imported from ``code``."""
        for name in [*sys.modules]:
            if name.startswith(("ragengine", "tests.")):
                del sys.modules[name]
        sys.meta_path.insert(0, _Mutated(self._module, code, self._path))
        return pytest.main([*_OPTIONS, f"--basetemp={self._folder}/anew", *self._tests]) != 0

    def _fails(self, failed: Callable[[], bool]) -> bool:
        """What ``failed`` returns in a fork; true as well where it does not return in time."""
        started = time.monotonic()
        process = os.fork()
        if process == 0:
            _in_fork(failed, self._cpu)
        while time.monotonic() < started + self._wall:
            ended, status, used = os.wait4(process, os.WNOHANG)
            if ended:
                if self._cpu == 600.0:
                    self._cpu = _SLOWER * (used.ru_utime + used.ru_stime) + 10.0
                    self._wall = 2 * _SLOWER * (time.monotonic() - started) + 60.0
                return status != 0
            time.sleep(0.02)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return True


def _in_fork(failed: Callable[[], bool], cpu: float) -> None:
    status = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, int(cpu) + 1))
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        status = int(failed())
    finally:
        os._exit(status)


def _failed(session: pytest.Session, changed: dict[FunctionType, CodeType]) -> bool:
    """Whether a test fails where functions have other code."""
    for function, code in changed.items():
        function.__code__ = code
    for item, following in zip_longest(session.items, session.items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return True
    return False


def _changed(module: ModuleType, code: CodeType) -> dict[FunctionType, CodeType]:
    """Those functions of ``module`` that have other code in ``code``, which the module may be made of."""
    theirs = {(each.co_qualname, each.co_firstlineno): each for each in _codes(code)}
    changed = {}
    for function in _functions(module, module.__name__):
        mine = function.__code__
        other = theirs.get((mine.co_qualname, mine.co_firstlineno), mine)
        if other != mine:
            changed[function] = other
    return changed


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)


def _functions(owner: ModuleType | type, module: str) -> Iterator[FunctionType]:
    """The functions and methods that a module defines, inside their decorators."""
    for value in vars(owner).values():
        if isinstance(value, type) and value.__module__ == module:
            yield from _functions(value, module)
        inside: list[Any] = [getattr(value, name, None) for name in ("fget", "fset", "__func__", "func")]
        for each in (value, *inside):
            function = inspect.unwrap(each) if callable(each) else each
            if isinstance(function, FunctionType) and function.__module__ == module:
                yield function


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from other code."""

    def __init__(self, name: str, code: CodeType, path: Path) -> None:
        self._name, self._code, self._path = name, code, path

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)
