"""An engine in a process of its own."""

import sys
from pathlib import Path

import pytest

from ragengine_bench.harness.process import Engine, EngineError, have

ENGINE = """
import os, time

class Echo:
    def __init__(self, start): self.count = start
    def add(self, number): print("this is no reply"); self.count += number; return self.count
    def grow(self, count): self.kept = bytearray(b"x" * count); del self.kept
    def sleep(self, seconds): time.sleep(seconds)
    def fail(self): raise ValueError("first line\\nsecond line")
    def die(self): os._exit(3)
"""


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    path = tmp_path / "echo.py"
    path.write_text(ENGINE)
    return path


def test_an_engine_answers_from_its_own_process(echo: Path) -> None:
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=60) as engine:
        assert engine.call("add", number=2).result == 3
        slow = engine.call("sleep", seconds=0.2)
        assert 0.2 <= slow.seconds < 5
        large = engine.call("grow", fresh=True, count=1 << 27)
        assert large.peak_bytes > 1 << 27
        with pytest.raises(EngineError, match=r"^ValueError: first line$"):
            engine.call("fail")
        assert engine.call("add", number=1).result == 4


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks can be forgotten on Linux alone"
)
def test_a_fresh_call_counts_memory_anew(echo: Path) -> None:
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=60) as engine:
        engine.call("grow", count=1 << 28)
        assert engine.call("add", fresh=True, number=1).peak_bytes < 1 << 28


def test_an_engine_that_ends_or_hangs_is_given_up(echo: Path) -> None:
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=60) as engine:
        with pytest.raises(EngineError, match="its process ended with code 3"):
            engine.call("die")
        with pytest.raises(EngineError, match="its process ended with code 3"):
            engine.call("add", number=1)
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=0.5) as engine:
        with pytest.raises(EngineError, match="no answer within"):
            engine.call("sleep", seconds=60)
        with pytest.raises(EngineError, match="was ended before"):
            engine.call("add", number=1)


def test_an_engine_that_cannot_load_says_why(echo: Path) -> None:
    with pytest.raises(EngineError, match=r"TypeError: .*unexpected keyword argument 'other'"):
        Engine(f"{echo}:Echo", {"other": 1}, threads=1, python=sys.executable, limit=60)
    with pytest.raises(EngineError, match="cannot be started"):
        Engine(f"{echo}:Echo", {}, threads=1, python="no-such-python", limit=60)


def test_whether_an_environment_has_modules() -> None:
    assert have(None, ["numpy", "json"])
    assert not have(None, ["numpy", "no_such_module"])
    assert not have(None, ["no_such.module"])
    assert not have("no-such-python", ["json"])
