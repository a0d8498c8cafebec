"""Swapping the index of an engine that answers: every answer from one index, and nothing left behind."""

import gc
import json
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import RagEngine, Retriever
from ragengine.errors import ClosedError, IndexFolderError
from ragengine.indexing.build import build_index
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.index_slot import IndexSlot
from ragengine.retrieval.manifest import FAISS_FILE
from ragengine_bench.index.scale.watch import anonymous_bytes
from ragengine_bench.parity.pairs import Pair
from tests.support.bundles import rewrite_manifest, write_bundle


class Counted:
    """In the place of an index: it says how often it was closed."""

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, 0

    def close(self) -> None:
        self.closed += 1


def slots() -> tuple[Any, Counted, Counted]:
    first, second = Counted("first"), Counted("second")
    return IndexSlot(first), first, second


def test_an_idle_index_closes_when_it_is_replaced() -> None:
    slot, first, second = slots()
    with slot.borrow() as held:
        assert held is slot.index is first
    slot.check_open()
    assert first.closed == 0
    slot.replace(second)
    assert (slot.index, first.closed, second.closed) == (second, 1, 0)
    with slot.borrow() as held:
        assert held is second


def test_an_index_in_use_closes_after_its_last_user() -> None:
    slot, first, second = slots()
    with slot.borrow() as held:
        with slot.borrow() as same:
            slot.replace(second)
            assert held is same is first
            with slot.borrow() as new:
                assert new is second
        assert first.closed == 0
    assert (first.closed, second.closed) == (1, 0)


def test_a_user_that_fails_is_a_user_no_more() -> None:
    slot, first, second = slots()
    with pytest.raises(ZeroDivisionError), slot.borrow():
        raise ZeroDivisionError
    slot.replace(second)
    assert first.closed == 1


def test_a_closed_slot_takes_and_gives_no_index() -> None:
    slot, first, second = slots()
    with slot.borrow():
        slot.close()
        for refused in (slot.check_open, lambda: slot.replace(second), lambda: slot.borrow().__enter__()):
            with pytest.raises(ClosedError, match=r"The first was closed; load the engine again\.$"):
                refused()
        assert first.closed == 0
    assert (slot.index, first.closed, second.closed) == (first, 1, 0)
    idle, alone, _ = slots()
    idle.close()
    assert alone.closed == 1


def test_a_signal_handler_may_close_what_is_being_borrowed() -> None:
    slot, first, _ = slots()
    with slot._lock:  # where the signal finds it
        slot.close()
    assert first.closed == 1


OPTIONS: dict[str, Any] = {"num_beams": 2, "max_length": 8, "n_docs": 3}
QUESTIONS = [
    "what is the capital of Kyoto?",
    "Where is Quito?",
    "who founded Accra",
    "when was Lima in 1492?",
]
Found = tuple[str, tuple[tuple[str, str, float], ...]]


@dataclass(frozen=True)
class Worlds:
    """A bundle and two indexes over passages that tell which of them an answer was read from."""

    bundle: Path
    old: Path
    new: Path

    def engine(self) -> RagEngine:
        return RagEngine.load(self.bundle, index=self.old, device="cpu", threads=1)

    def open_indexes(self) -> list[PassageIndex]:
        """The indexes of these folders that this process still holds."""
        gc.collect()
        held = [thing for thing in gc.get_objects() if type(thing) is PassageIndex]
        return [index for index in held if index.path in (self.old, self.new)]

    def open_files(self) -> list[str]:
        """Files of the two indexes that are open or mapped now, by the kernel's account."""
        gc.collect()
        folders = (f"{self.old}/", f"{self.new}/")
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        mapped = [line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
        return sorted(name for name in [*map(str, links), *mapped] if name.startswith(folders))


@pytest.fixture(scope="module")
def worlds(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    folder = tmp_path_factory.mktemp("worlds")
    lines = pair.checkpoint.passages_file.read_text("utf-8").splitlines()
    vectors = np.load(pair.checkpoint.embeddings_file)

    def build(name: str, vectors: Any) -> Path:
        passages = [json.loads(line) for line in lines]
        named = [{**p, "id": f"{name} {p['id']}", "text": f"{name} {p['text']}"} for p in passages]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, named)))
        np.save(folder / f"{name}.npy", vectors)
        embeddings = folder / f"{name}.npy"
        build_index(folder / f"{name}.jsonl", folder / name, bundle=pair.bundle, embeddings=embeddings)
        return folder / name

    # The same vectors on other passages: rows of one index read from the other are wrong passages.
    return Worlds(pair.bundle, build("old", vectors), build("new", vectors[::-1].copy()))


@pytest.fixture
def engine(worlds: Worlds) -> Iterator[RagEngine]:
    with worlds.engine() as engine:
        yield engine


def found_by(engine: RagEngine, question: str) -> Found:
    answer = engine.generate(question, **OPTIONS)
    return answer.text, tuple((d.id or "", d.text, d.score or 0.0) for d in answer.documents)


def answers(worlds: Worlds, path: Path) -> list[Found]:
    """What an engine that has only the index at ``path`` answers."""
    with RagEngine.load(worlds.bundle, index=path, device="cpu", threads=1) as engine:
        return [found_by(engine, question) for question in QUESTIONS]


def test_answers_follow_the_index(worlds: Worlds, engine: RagEngine) -> None:
    old, new = answers(worlds, worlds.old), answers(worlds, worlds.new)
    assert all(ours[1] != theirs[1] for ours, theirs in zip(old, new, strict=True))
    for path, expected in [(worlds.new, new), (worlds.new, new), (worlds.old, old)]:
        engine.swap_index(path)
        assert [found_by(engine, question) for question in QUESTIONS] == expected
        assert engine.retriever.index.path == path


def ask_until(stop: threading.Event, engine: RagEngine, number: int) -> Counter[tuple[int, Found]]:
    """Ask without pause; how often each question got each answer."""
    got: Counter[tuple[int, Found]] = Counter()
    while not stop.is_set():
        number = (number + 1) % len(QUESTIONS)
        got[number, found_by(engine, QUESTIONS[number])] += 1
    return got


def ask_while(engine: RagEngine, act: Callable[[], object], threads: int = 8) -> Counter[tuple[int, Found]]:
    """What ``threads`` that ask ``engine`` without pause get while ``act`` runs; raises what they raise."""
    stop = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        asking = [pool.submit(ask_until, stop, engine, number) for number in range(threads)]
        try:
            act()
        finally:
            stop.set()
        return sum((one.result() for one in asking), Counter())


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files and memory as Linux does")
@pytest.mark.serial  # threads that have to share the processors more make the allocator keep more
@pytest.mark.parametrize("seconds", [6.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_fifty_swaps_under_load(worlds: Worlds, engine: RagEngine, seconds: float) -> None:
    swaps, paths = 50, [worlds.new, worlds.old]
    expected = [answers(worlds, path) for path in paths]

    def swap_in_turn(count: int, seconds: float) -> None:
        start = time.monotonic()
        for number in range(count):
            engine.swap_index(paths[number % 2])
            time.sleep(max(0.0, start + (number + 1) * seconds / count - time.monotonic()))

    ask_while(engine, lambda: swap_in_turn(4, 0.5))  # allocators and libraries take what they keep
    files, memory = worlds.open_files(), anonymous_bytes()

    got = ask_while(engine, lambda: swap_in_turn(swaps, seconds))
    grown = anonymous_bytes() - memory  # before what is below lists every object there is

    assert got.total() > 2 * swaps
    assert set(got) == {(number, found) for world in expected for number, found in enumerate(world)}
    assert worlds.open_files() == files
    assert {Path(name).parent for name in files} == {worlds.old}
    assert [index.path for index in worlds.open_indexes()] == [worlds.old]
    assert grown < 8 * 2**20


def damage(path: Path) -> None:
    content = bytearray((path / FAISS_FILE).read_bytes())
    content[-1] ^= 1
    (path / FAISS_FILE).write_bytes(content)


def forget_passages(path: Path) -> None:
    (path / "passages.sqlite").write_bytes(b"no")
    rewrite_manifest(path)


def strange_encoder(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    rewrite_manifest(path, encoder={**manifest["encoder"], "fingerprint": "a" * 64})


def rows_out_of_range(path: Path) -> None:
    """An index that opens and cannot be searched: its only lists name rows that are not there."""
    import faiss

    count = PassageIndex.open(path).count
    vectors = np.load(path / "vectors.npy").astype(np.float32)
    faiss_index = faiss.index_factory(vectors.shape[1], "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    faiss_index.train(vectors)
    faiss_index.add_with_ids(vectors, np.arange(count) + count)
    faiss.write_index(faiss_index, str(path / FAISS_FILE))
    rewrite_manifest(path, search={})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "is not a folder; a ragengine-index was expected there"),
        (damage, "has another sha256"),
        (forget_passages, "passages.sqlite"),
        (strange_encoder, "was built with the encoder .* build the index with this bundle"),
        (rows_out_of_range, "the stored vectors are .*; build the index again"),
    ],
)
def test_a_failed_swap_changes_nothing(
    worlds: Worlds, engine: RagEngine, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    bad = shutil.copytree(worlds.new, tmp_path / "bad")
    spoil(bad)
    before = [found_by(engine, question) for question in QUESTIONS]
    with pytest.raises(IndexFolderError, match=message):
        engine.swap_index(bad)
    assert [found_by(engine, question) for question in QUESTIONS] == before
    gc.collect()
    assert not [i for i in gc.get_objects() if type(i) is PassageIndex and i.path == bad]


def test_sizes_alone_are_checked_where_asked(worlds: Worlds, engine: RagEngine, tmp_path: Path) -> None:
    bad = shutil.copytree(worlds.new, tmp_path / "bad")
    damage(bad)
    engine.swap_index(bad, verify="size")
    assert engine.retriever.index.path == bad
    with RagEngine.load(worlds.bundle, index=bad, device="cpu", threads=1, verify="size") as loaded:
        assert loaded.retrieve(QUESTIONS[0])


def test_the_same_path_built_again_is_swapped_in(worlds: Worlds, engine: RagEngine, tmp_path: Path) -> None:
    path = shutil.copytree(worlds.old, tmp_path / "index")
    engine.swap_index(path)
    old = found_by(engine, QUESTIONS[0])
    with engine.retriever.borrow_index() as held:
        path.rename(tmp_path / "aside")
        shutil.copytree(worlds.new, path)
        assert held.passages([0])[0].id.startswith("old")  # what is open stays whole
        engine.swap_index(path)
        assert held.passages([0])[0].id.startswith("old")
        assert found_by(engine, QUESTIONS[0]) == answers(worlds, worlds.new)[0] != old
    with pytest.raises(ClosedError, match="is closed"):
        held.passages([0])


def test_swaps_at_once_take_turns(worlds: Worlds, engine: RagEngine) -> None:
    paths = [worlds.new, worlds.old] * 8
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(engine.swap_index, paths))
    assert engine.retriever.index.path in paths
    assert len(worlds.open_indexes()) == 1
    assert found_by(engine, QUESTIONS[0]) in (answers(worlds, worlds.old)[0], answers(worlds, worlds.new)[0])


def test_a_replaced_index_closes_after_its_last_question(worlds: Worlds, engine: RagEngine) -> None:
    first, second = engine.retriever.borrow_index(), engine.retriever.borrow_index()
    with first as index:
        with second as same:
            assert same is index
            engine.swap_index(worlds.new)
            assert engine.retriever.index is not index
        index.warm_up()  # one of the two questions still runs
    with pytest.raises(ClosedError, match="is closed"):
        index.warm_up()


def test_close_lets_running_questions_finish(worlds: Worlds) -> None:
    engine = worlds.engine()
    with engine.retriever.borrow_index() as index:
        engine.close()
        engine.close()
        assert len(index.search_documents(np.zeros((1, index.dimension), np.float32), 2)[0]) == 2
    with pytest.raises(ClosedError, match="is closed"):
        index.passages([0])

    expected, engine = answers(worlds, worlds.old)[0][0], worlds.engine()

    def close_between_two_tokens(number: int, tokens: Any) -> list[int]:
        engine.close()
        return list(range(engine.bundle.manifest.generator.vocab_size))

    answer = engine.generate(QUESTIONS[0], prefix_allowed_tokens_fn=close_between_two_tokens, **OPTIONS)
    assert answer.text == expected


def test_a_closed_engine_says_so(worlds: Worlds) -> None:
    engine = worlds.engine()
    engine.close()
    closed = r"was closed; load it again\.$"
    for call in (
        lambda: engine.generate(QUESTIONS[0], **OPTIONS),
        lambda: engine.generate(QUESTIONS, **OPTIONS),
        lambda: engine.retrieve(QUESTIONS[0]),
        lambda: engine.score(QUESTIONS[0], " yes"),
        lambda: engine.stream(QUESTIONS[0], num_beams=1, marginalize="token"),
        lambda: engine.swap_index(worlds.new),
        lambda: engine.retriever.search_vectors(np.zeros((1, 4), np.float32), 1),
    ):
        with pytest.raises(ClosedError, match=closed):
            call()
    engine.close()
    assert worlds.open_indexes() == [engine.retriever.index]  # for its path; its files are closed
    if sys.platform == "linux":
        assert worlds.open_files() == []


def test_an_index_that_does_not_fit_is_closed_again(worlds: Worlds, tmp_path: Path) -> None:
    strange = write_bundle(tmp_path / "strange", 5, fingerprint="a" * 64)
    with pytest.raises(IndexFolderError, match="was built with the encoder"):
        Retriever.load(strange, index=worlds.old)
    assert worlds.open_indexes() == []
