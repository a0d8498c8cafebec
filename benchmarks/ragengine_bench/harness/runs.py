"""The measurements and their order; every sample is in the report before the next is taken.

Generation, batches and sweeps: engines are loaded side by side and take turns, so that a noisy minute affects
all.  Whole questions: one engine after the other (docs/concepts/paper.md, Threads).
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ragengine_bench.harness.process import Call, Engine, EngineError, have
from ragengine_bench.harness.report import Report, Row, Sample, Section
from ragengine_bench.peers import Contender
from ragengine_bench.roofline.roofline import Rates, RunSizes, rooflines
from ragengine_bench.roofline.sizes import Sizes, sizes_of

FIRST_WORD = 4  # BART's token ids below are special
# Seconds after another engine's turn: its threads may spin on, Intel's OpenMP for 0.2 s by default.
SETTLE = 0.3
MOST_TURNS = 3
"""Where runs are too far apart, all rows take turns again: at most so many times ``repeats``."""


@dataclass(frozen=True)
class Workload:
    """Random documents for Q questions, and a search of forced length.

    ``source`` and ``target`` are in tokens; ``target`` counts the start token, as ``max_length`` does.
    ``search`` is that of RAG-Sequence.
    """

    batch: int = 1
    documents: int = 5
    source: int = 160
    beams: int = 4
    target: int = 20
    marginalize: str = "token"
    search: str = "thorough"

    def __str__(self) -> str:
        many = f"{self.batch} questions, " if self.batch > 1 else ""
        return (
            f"{many}{self.documents} documents of {self.source} tokens, {self.beams} beams, "
            f"{self.target} tokens"
        )

    @property
    def options(self) -> dict[str, Any]:
        """The search; minimum and maximum length are the same."""
        search = {} if self.search == "thorough" else {"search": self.search}  # the peers support no other
        return {
            "num_beams": self.beams,
            "max_length": self.target,
            "min_length": self.target,
            "marginalize": self.marginalize,
            **search,
        }

    def write(self, path: Path, vocabulary: int) -> Path:
        """The inputs of every engine, seed 0: ids and mask int64 [Q, D, S], scores float32 [Q, D]."""
        rng = np.random.default_rng(0)
        ids = rng.integers(FIRST_WORD, vocabulary, (self.batch, self.documents, self.source))
        scores = rng.normal(size=ids.shape[:2]).astype(np.float32)
        np.savez(path, ids=ids, mask=np.ones_like(ids), scores=scores)
        return path


@dataclass
class Runs:
    """Measures into ``report``; ``save`` is called after every sample, ``say`` with what happens next.

    ``limit`` is the most seconds a call may take before an engine is given up.
    """

    report: Report
    rates: Rates
    repeats: int
    limit: float
    save: Callable[[], None]
    say: Callable[[str], None]
    _last: Engine | None = None

    def generation(
        self, title: str, load: Workload, contenders: Sequence[Contender], vocabulary: int
    ) -> None:
        """All contenders on one workload, by turns."""
        section = self._section("generation", title, {**vars(load)})
        with self._inputs(load, vocabulary) as arrays:
            self._by_turns([_Entry(section, c, load, arrays) for c in contenders])

    def batch(self, title: str, load: Workload, contenders: Sequence[Contender], vocabulary: int) -> None:
        """Several questions at once, against the same questions one by one."""
        section = self._section("batch", title, {**vars(load)})
        with self._inputs(load, vocabulary) as arrays:
            self._by_turns([_Entry(section, c, load, arrays) for c in _both_ways(contenders, load.batch)])

    def sweep(
        self,
        title: str,
        axis: str,
        load: Workload,
        points: Sequence[tuple[int | str, Workload, Contender]],
        vocabulary: int,
    ) -> None:
        """One thing of ``load`` varied: ``points`` are (place on the axis, what is done, who does it)."""
        section = self._section("sweep", title, {**vars(load)}, axis)
        with ExitStack() as stack:
            entries = []
            for point, varied, contender in points:
                arrays = stack.enter_context(self._inputs(varied, vocabulary))
                entries.append(_Entry(section, contender, varied, arrays, point))
            self._by_turns(entries)

    def questions(
        self, title: str, questions: Sequence[str], options: dict[str, Any], contenders: Sequence[Contender]
    ) -> None:
        """Whole questions, from text to text: a sample a question, after one that warms up."""
        section = self._section("questions", title, {"questions": len(questions), **options})
        one = Workload(batch=1)
        for contender in contenders:
            row = _row(section, contender)
            with self._guarded(row), self._started(contender) as engine:
                self.say(f"{row.name}: {len(questions)} questions")
                sizes = _sizes(contender)
                given = {"options": options, **contender.arguments}
                first = engine.call("ask", fresh=True, questions=[questions[0]], **given)
                self._loaded(row, engine, first)
                for question in questions:
                    call = engine.call("ask", questions=[question], **given)
                    row.outputs += call.result["outputs"]
                    self._keep(row, call, sizes, one)

    def question_batch(
        self, title: str, questions: Sequence[str], options: dict[str, Any], contenders: Sequence[Contender]
    ) -> None:
        """Whole questions at once, against the same ones one by one."""
        section = self._section("batch", title, {"questions": len(questions), **options})
        arguments = {"questions": list(questions), "options": options}
        rows = [replace(contender, arguments=arguments) for contender in contenders]
        load = Workload(batch=len(questions))
        self._by_turns([_Entry(section, c, load, None) for c in _both_ways(rows, len(questions))])

    def _by_turns(self, entries: Sequence["_Entry"]) -> None:
        """Load every engine, run every entry once to warm up, then take turns; more where runs spread."""
        engines: dict[tuple[str, str], Engine] = {}
        with ExitStack() as stack:
            for entry in entries:
                with self._guarded(entry.row):
                    key = entry.contender.process
                    if key not in engines:
                        engines[key] = stack.enter_context(self._started(entry.contender))
                    entry.engine = engines[key]
                    self.say(f"warm-up: {entry}")
                    self._loaded(entry.row, entry.engine, self._run(entry, fresh=True))
            for turn in range(MOST_TURNS * self.repeats):
                if turn >= self.repeats and not any(e.section.is_noisy(e.row) for e in entries):
                    break
                for entry in entries:
                    if entry.row.failure:
                        continue
                    with self._guarded(entry.row):
                        again = " again, since runs spread" if turn >= self.repeats else ""
                        self.say(f"turn {turn + 1} of {self.repeats}{again}: {entry}")
                        call = self._run(entry)
                        entry.row.outputs = call.result["outputs"]
                        self._keep(entry.row, call, entry.sizes, entry.load)

    def _run(self, entry: "_Entry", fresh: bool = False) -> Call:
        assert entry.engine is not None
        method = "ask"
        if entry.arrays is not None:
            method = "generate"
            options, prepared = entry.load.options, entry.contender.preparation
            entry.engine.call("prepare", arrays=str(entry.arrays), options=options, **prepared)
        if self._last is not entry.engine:
            time.sleep(SETTLE)
        self._last = entry.engine
        return entry.engine.call(method, fresh=fresh, **entry.contender.arguments)

    def _keep(self, row: Row, call: Call, sizes: Sizes | None, load: Workload) -> None:
        result = call.result
        sample = Sample(
            seconds=result.get("seconds", call.seconds),
            questions=load.batch,
            tokens=result.get("tokens", load.batch * (load.target - 1)),
            stages=result.get("stages", {}),
            step_seconds=result.get("step_seconds", []),
        )
        if sizes is not None:
            sample.rooflines = rooflines(sizes, self.rates, RunSizes.from_json(result["sizes"]))
        row.samples.append(sample)
        self.save()

    def _loaded(self, row: Row, engine: Engine, first: Call) -> None:
        row.load_seconds, row.load_peak_bytes = engine.loaded.seconds, engine.loaded.peak_bytes
        row.peak_bytes = first.peak_bytes
        self.save()

    def _section(self, kind: str, title: str, workload: dict[str, Any], axis: str = "") -> Section:
        self.report.sections.append(Section(kind, title, workload, axis))
        self.save()
        return self.report.sections[-1]

    def _started(self, contender: Contender) -> Engine:
        if not have(contender.python, contender.needs):
            raise EngineError("not installed (benchmarks/README.md, The peers)")
        self.say(f"loading {contender.name}")
        return Engine(
            contender.target,
            contender.settings,
            threads=contender.settings["threads"],
            python=contender.python,
            limit=self.limit,
        )

    @contextmanager
    def _guarded(self, row: Row) -> Iterator[None]:
        """An error of one engine goes into its row, and the others go on."""
        try:
            yield
        except EngineError as reason:
            row.failure = str(reason)
            self.say(f"{row.name}: {reason}")
            self.save()

    @contextmanager
    def _inputs(self, load: Workload, vocabulary: int) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield load.write(Path(folder) / "inputs.npz", vocabulary)


class _Entry:
    """A row to be measured: an engine and its work; without ``arrays`` it answers whole questions."""

    def __init__(
        self,
        section: Section,
        contender: Contender,
        load: Workload,
        arrays: Path | None,
        point: int | str | None = None,
    ) -> None:
        self.section, self.contender, self.load, self.arrays = section, contender, load, arrays
        self.row = _row(section, contender, point)
        self.sizes = _sizes(contender)
        self.engine: Engine | None = None

    def __str__(self) -> str:
        return self.row.name if self.row.point is None else f"{self.row.name}, {self.row.point}"


def _row(section: Section, contender: Contender, point: int | str | None = None) -> Row:
    row = Row(contender.name, contender.shown, contender.ours, contender.does_less, point)
    section.rows.append(row)
    return row


def _sizes(contender: Contender) -> Sizes | None:
    return sizes_of(Path(contender.settings["bundle"])) if contender.ours else None


def _both_ways(contenders: Sequence[Contender], count: int) -> list[Contender]:
    return [
        replace(
            contender,
            name=f"{contender.name}, {how}",
            arguments={**contender.arguments, "one_by_one": one_by_one},
        )
        for contender in contenders
        for how, one_by_one in ((f"{count} at once", False), ("one by one", True))
    ]
