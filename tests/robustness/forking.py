"""A program that loads everything, uses it and forks; prints what its children observe as JSON.

    python -m tests.robustness.forking BUNDLE INDEX

prints ``{"process", "cases": {case: [exit status of the child, its output]}}``.  SIGALRM ends a child that
hangs, with the status -14.
"""

import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ragengine import Document, Generator, RagEngine, RagEngineError, Retriever
from ragengine.retrieval.index import PassageIndex

QUESTION = "What is the capital of Iceland?"
HANG_SECONDS = 20


class Parent:
    """All loadable objects, with their threads: onnxruntime's, and OpenMP's after a large search."""

    def __init__(self, bundle: str, index: str) -> None:
        faiss.omp_set_num_threads(2)
        self.folders = bundle, index
        self.engine = self.load()
        self.retriever = Retriever.load(bundle, index=index, device="cpu", threads=2, verify="size")
        self.generator = Generator.load(bundle, device="cpu", threads=2)
        self.index = PassageIndex.open(index, verify="size")
        self.stream = self.engine.stream(QUESTION, num_beams=1)
        first = next(self.stream)
        self.text = first.text
        self.vectors = (
            np.random.default_rng(0).standard_normal((512, self.index.dimension)).astype(np.float32)
        )
        self.retriever.search_vectors(self.vectors, 2)
        self.answer()

    def load(self) -> RagEngine:
        bundle, index = self.folders
        return RagEngine.load(bundle, index=index, device="cpu", threads=2, verify="size")

    def answer(self) -> str:
        return self.engine.generate(QUESTION, num_beams=2).text

    def forbidden(self) -> dict[str, Callable[[], Any]]:
        """Every call that a fork must refuse."""
        engine, ids = self.engine, np.full((1, 1, 4), 5)
        arrays = ids, np.ones_like(ids), np.zeros((1, 1), np.float32)
        own = [Document("Iceland", "Its capital is Reykjavik.", score=1.0)]
        return {
            "generate": lambda: engine.generate(QUESTION),
            "own documents": lambda: engine.generate(QUESTION, documents=own),
            "stream": lambda: engine.stream(QUESTION, num_beams=1),
            "a stream begun before": lambda: next(self.stream),
            "score": lambda: engine.score(QUESTION, " Reykjavik"),
            "classify": lambda: engine.classify(QUESTION, [" yes", " no"]),
            "retrieve": lambda: engine.retrieve(QUESTION),
            "swap_index": lambda: engine.swap_index(self.folders[1]),
            "search_vectors": lambda: self.retriever.search_vectors(self.vectors[:1], 2),
            "borrow_index": lambda: self.retriever.borrow_index(),
            "tokenize": lambda: self.retriever.tokenize([QUESTION]),
            "Generator.generate": lambda: self.generator.generate(*arrays),
            "Generator.score": lambda: self.generator.score(*arrays, np.full((1, 3), 5)),
            "PassageIndex.search": lambda: self.index.search(self.vectors[:1], 2),
            "PassageIndex.passages": lambda: self.index.passages([0]),
            "PassageIndex.verify": lambda: self.index.verify(),
        }

    def refusals(self) -> str:
        """The message of each."""
        return json.dumps({name: raised(call) for name, call in self.forbidden().items()})

    def close(self) -> str:
        for part in (self.engine, self.retriever, self.generator, self.index, self.stream):
            part.close()
        with self.engine:
            pass
        return "closed"

    def collect(self) -> str:
        del self.engine, self.retriever, self.generator, self.index, self.stream
        gc.collect()
        return "collected"

    def load_again(self) -> str:
        """Load an engine; ask a question and run a search that OpenMP would parallelise."""
        with self.load() as engine:
            engine.retriever.search_vectors(self.vectors, 2)
            return engine.generate(QUESTION, num_beams=2).text

    def load_in_a_thread(self) -> str:
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(self.load_again()))
        thread.start()
        thread.join()
        return said[0]

    def twice(self) -> str:
        """The child of a child."""
        return f"{self.load_again()} {in_child(self.collect)}"


def raised(call: Callable[[], Any]) -> str:
    """The error of a call, as text."""
    try:
        return f"returned {call()!r}"
    except RagEngineError as error:
        return f"{type(error).__name__}: {error}"


def in_child(deed: Callable[[], Any]) -> tuple[int, str]:
    """The exit status of a forked child that ends normally, and what ``deed`` returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(HANG_SECONDS)
        os.write(writer, str(deed()).encode())
        sys.exit(3)  # destroys all objects, and lets no caller continue in the child
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def by_multiprocessing(deed: Callable[[], Any]) -> tuple[int | None, str]:
    """The same with multiprocessing's "fork" method."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(str(deed())))
    process.start()
    said = queue.get()
    process.join(HANG_SECONDS)
    return process.exitcode, said


def while_others_ask(parent: Parent, deed: Callable[[], Any], times: int) -> list[tuple[int, str]]:
    """Fork while other threads of the parent answer: some lock is always held."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            parent.answer()
            parent.index.search_documents(parent.vectors[:1], 2)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        return [in_child(deed) for _ in range(times)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def refused(parent: Parent) -> str:
    """The error of a forked engine, and its remedy."""
    return f"{raised(parent.answer).split(':')[0]} {parent.load_again()}"


def main() -> None:
    # Python 3.12 and later warn of just what is tried here.
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
    parent = Parent(*sys.argv[1:])
    cases: dict[str, Any] = {
        "refusals": in_child(parent.refusals),
        "nothing": in_child(lambda: "ended"),
        "close": in_child(parent.close),
        "collect": in_child(parent.collect),
        "load again": in_child(parent.load_again),
        "load in a thread": in_child(parent.load_in_a_thread),
        "twice": in_child(parent.twice),
        "multiprocessing": by_multiprocessing(lambda: refused(parent)),
        "busy": while_others_ask(parent, lambda: refused(parent), 3),
    }
    text = parent.text + "".join(token.text for token in parent.stream)
    assert text.strip() == parent.answer().strip() == "Reykjavik", "the parent goes on"
    parent.close()
    print(json.dumps({"process": os.getpid(), "cases": cases}))


def answered(bundle: Path, index: Path) -> str:
    """Load and answer, in a spawned process."""
    with RagEngine.load(bundle, index=index, device="cpu", threads=1, verify="size") as engine:
        return engine.generate(QUESTION, num_beams=2).text


if __name__ == "__main__":
    main()
