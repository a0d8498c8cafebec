"""Steps `load` and `memory`: answers under several threads; memory of each bucket and after close."""

import os
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragengine import Generator, RagEngine
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.generation.decoders.buckets import Bucket, padded_source
from ragengine.options import GenerationOptions
from ragengine.runtime.cuda_driver import read_driver
from ragengine.runtime.devices import ResolvedDevice
from ragengine_bench.gpu.models import Models
from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.gpu.report import Recorder, Table
from ragengine_bench.harness.report import percentile
from ragengine_bench.harness.runs import Workload
from ragengine_bench.harness.tables import memory as shown
from ragengine_bench.peers.ragengine import load_engine, load_generator

_THREADS = {"full": (1, 2, 4, 8, 16), "toy": (1, 3)}
_ANSWERS = {"full": 64, "toy": 6}
_BATCHES = {"full": (1, 8, 32), "toy": (1, 2)}
_HALF = 2  # bytes


def load(plan: GpuPlan, recorder: Recorder) -> None:
    """Answer the same questions with more and more threads on one engine, and compare with one thread."""
    models = Models(plan)
    engine = load_engine(models.bundle("fp16"), models.index, plan.device, plan.threads, static=True)
    options = engine.default_options.replace(**models.workload.options, n_docs=models.workload.documents)
    questions = (models.questions * _ANSWERS[plan.size])[: _ANSWERS[plan.size]]
    expected = [_text(engine, question, options) for question in questions]  # captures, too
    table = Table(
        f"{len(questions)} whole answers, {models.workload}",
        ["threads", "answers/s", "median", "p99", "the same answers"],
    )
    recorder.step.tables.append(table)
    for threads in _THREADS[plan.size]:
        plan.say(f"load: {threads} threads")
        seconds, texts, whole = _answered_by(engine, questions, options, threads)
        same = sum(text == one for text, one in zip(texts, expected, strict=True))
        times = (f"{1e3 * percentile(seconds, p):.1f} ms" for p in (50, 99))
        table.add(threads, f"{len(questions) / whole:.1f}", *times, f"{same} of {len(questions)}")
        recorder.step.data[str(threads)] = seconds
        recorder.save()
    engine.close()


def _answered_by(
    engine: RagEngine, questions: list[str], options: GenerationOptions, threads: int
) -> tuple[list[float], list[str], float]:
    """Seconds and text of every answer, in the order of the questions, and the seconds of all together."""
    waiting = deque(enumerate(questions))
    seconds, texts, errors = [0.0] * len(questions), [""] * len(questions), deque[BaseException]()

    def asker() -> None:
        while waiting and not errors:
            try:
                number, question = waiting.popleft()
            except IndexError:  # another took the last one
                return
            start = time.perf_counter()
            try:
                texts[number] = _text(engine, question, options)
            except BaseException as reason:  # raised by the thread that waits
                errors.append(reason)
            seconds[number] = time.perf_counter() - start

    askers = [threading.Thread(target=asker) for _ in range(threads)]
    start = time.perf_counter()
    for thread in askers:
        thread.start()
    for thread in askers:
        thread.join()
    if errors:
        raise errors[0]
    return seconds, texts, time.perf_counter() - start


def _text(engine: RagEngine, question: str, options: GenerationOptions) -> str:
    return engine.generate(question, options=options).text


def memory(plan: GpuPlan, recorder: Recorder) -> None:
    """Memory before a model is loaded, with it, with each bucket that is captured, and after it is let go."""
    models = Models(plan)
    bundle = models.bundle("fp16")
    table = Table(
        f"{'Device' if plan.device == 'cuda' else 'Resident'} memory, {models.title}, fp16",
        ["", "used", "more than before", "keys and values of the bucket"],
    )
    recorder.step.tables.append(table)
    last = [used(plan.device)]

    def note(what: str, expected: str = "") -> None:
        now = used(plan.device)
        table.add(what, shown(now), _signed(now - last[0]), expected)
        recorder.step.data[what] = now
        last[0] = now
        recorder.save()

    note("at the start")
    generator = load_generator(bundle, plan.device, plan.threads, cuda_graphs=True, static=True)
    note("loaded")
    spec = generator.bundle.manifest.generator
    for batch in _BATCHES[plan.size]:
        work = replace(models.workload, batch=batch)
        _answer(plan.work / "memory.npz", generator, work, models.vocabulary)
        note(f"bucket of {work}", shown(bucket_bytes(spec, work)))
    _answer(plan.work / "memory.npz", generator, models.workload, models.vocabulary)
    note("the first bucket again")
    generator.close()
    note("closed")


def bucket_bytes(spec: GeneratorSpec, work: Workload) -> int:
    """Keys and values of the bucket that ``work`` goes to, in fp16."""
    source = padded_source(work.source, spec.longest)
    bucket = Bucket.holding(work.batch, work.documents, work.beams, source, work.target - 1)
    return bucket.buffer_bytes(spec, _HALF)


def used(device: ResolvedDevice) -> int:
    """Bytes of the device's memory that are taken, by whomever; on a CPU what this process has resident."""
    if device == "cuda":
        first = read_driver().devices[0]
        return first.total_bytes - first.free_bytes
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _answer(path: Path, generator: Generator, work: Workload, vocabulary: int) -> None:
    """Two searches: one captures, one replays."""
    with np.load(work.write(path, vocabulary), allow_pickle=False) as given:
        arrays = given["ids"], given["mask"], given["scores"]
    options = generator.default_options.replace(**work.options)
    for _ in range(2):
        generator.generate(*arrays, options)


def _signed(count: int) -> str:
    return f"{'-' if count < 0 else '+'}{shown(abs(count))}"
