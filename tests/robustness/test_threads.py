"""Many threads make all kinds of requests at once, and get bit for bit the results of one thread."""

import faulthandler
import itertools
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragengine import RagEngine
from ragengine_bench.parity.pairs import Pair
from tests.robustness.mixed import Job, jobs, outcome

THREADS = 16
STUCK_SECONDS = 90
"""Far longer than any request here: a thread that takes longer is in a deadlock."""


@pytest.fixture(scope="module")
def mixture(pair: Pair) -> dict[str, Job]:
    return jobs(
        pair.questions(800, 3), passage_encoder=pair.engine.bundle.manifest.passage_encoder is not None
    )


@pytest.fixture
def engines(pair: Pair) -> Iterator[list[RagEngine]]:
    """Engines of one process that differ in their number of threads."""
    loaded = [load(pair, threads) for threads in (1, 2)]
    yield loaded
    for engine in loaded:
        engine.close()


def load(pair: Pair, threads: int) -> RagEngine:
    index = pair.engine.retriever.index.path
    return RagEngine.load(pair.bundle, index=index, device="cpu", threads=threads)


def together(deeds: list[Callable[[], None]]) -> None:
    """Run every function in a thread of its own; raise the first error, or fail if one is stuck."""
    errors: list[BaseException] = []

    def caught(deed: Callable[[], None]) -> None:
        try:
            deed()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=caught, args=(deed,), daemon=True) for deed in deeds]
    for thread in threads:
        thread.start()
    end = time.monotonic() + STUCK_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        pytest.fail(f"A thread is stuck.\n{stacks()}")
    if errors:
        raise errors[0]


def stacks() -> str:
    """The stack of every thread."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def ask_everything(
    engines: list[RagEngine],
    mixture: dict[str, Job],
    seconds: float,
    more: Callable[[], None] | None = None,
) -> int:
    """Let all threads make requests for ``seconds``, each of the mixture to every engine at least once.

    Another thread repeats ``more``.  Returns the number of requests.
    """
    expected = [{name: outcome(job, engine) for name, job in mixture.items()} for engine in engines]
    pairs = [(number, name) for name in mixture for number in range(len(engines))]
    random.Random(0).shuffle(pairs)
    asked = itertools.count()  # next() is atomic, so every number goes to one thread
    end = time.monotonic() + seconds

    def ask() -> None:
        while (count := next(asked)) < len(pairs) or time.monotonic() < end:
            number, name = pairs[count % len(pairs)]
            found = outcome(mixture[name], engines[number])
            assert found == expected[number][name], f"{name} of engine {number}"

    def repeat() -> None:
        times = 0
        while more is not None and (
            times < 2 or time.monotonic() < end
        ):  # twice, however busy the machine is
            more()
            times += 1

    together([ask] * THREADS + [repeat] * (more is not None))
    return next(asked) - THREADS


def test_the_mixture_has_good_and_bad_requests(engines: list[RagEngine], mixture: dict[str, Job]) -> None:
    """An unintended error would agree with itself and go unnoticed."""
    failed = {name for name, job in mixture.items() if str(outcome(job, engines[0])[0]).endswith("Error")}
    assert failed == {"no string", "no beams", "no documents", "surrogate", "no answer", "beams streamed"}
    assert outcome(mixture["callback fails"], engines[0]) == ("Broken", "a callback failed")


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_sixteen_threads_get_what_one_gets(
    engines: list[RagEngine], mixture: dict[str, Job], seconds: float
) -> None:
    assert ask_everything(engines, mixture, seconds) >= 2 * len(mixture)


def test_swapping_changes_nothing_where_the_index_is_the_same(
    pair: Pair, mixture: dict[str, Job], tmp_path: Path
) -> None:
    paths = [
        pair.engine.retriever.index.path,
        shutil.copytree(pair.engine.retriever.index.path, tmp_path / "copy"),
    ]
    with load(pair, 2) as engine:
        swaps = itertools.count()
        ask_everything([engine], mixture, 1.5, lambda: engine.swap_index(paths[next(swaps) % 2]))
        assert next(swaps) > 1


def test_engines_come_and_go_while_others_answer(
    pair: Pair, engines: list[RagEngine], mixture: dict[str, Job]
) -> None:
    loads = itertools.count()

    def come_and_go() -> None:
        with load(pair, 1 + next(loads) % 3) as engine:
            assert outcome(mixture["greedy"], engine)

    ask_everything(engines, mixture, 1.5, come_and_go)
    assert next(loads) > 1


def test_a_stuck_thread_is_reported_with_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "STUCK_SECONDS", 0.2)
    release = threading.Event()

    def waits_for_ever() -> Any:
        release.wait()

    with pytest.raises(pytest.fail.Exception, match="waits_for_ever"):
        together([waits_for_ever])
    release.set()
