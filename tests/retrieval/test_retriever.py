"""The retriever alone: questions to vectors, vectors to passages, and the index that is swapped."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import Retriever
from ragengine.bundle.bundle import Bundle
from ragengine.errors import (
    BundleError,
    CancelledError,
    ClosedError,
    DeviceError,
    IndexFolderError,
    InputError,
)
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.runtime.cancellation import Stop
from tests.support.paths import GOLDEN

BUNDLE, INDEX = GOLDEN / "bundle_v4", GOLDEN / "index_v1"
QUESTIONS = ["where is Quito?", "who founded Accra", "what is the capital of Kyoto?"]


def load(index: Any = INDEX, **options: Any) -> Retriever:
    return Retriever.load(BUNDLE, index, **{"device": "cpu", "threads": 1, **options})


@pytest.fixture(scope="module")
def shared() -> Iterator[Retriever]:
    with load() as retriever:
        yield retriever


@pytest.fixture
def own() -> Iterator[Retriever]:
    with load() as retriever:
        yield retriever


# --- searching ----------------------------------------------------------------------------------------


def test_questions_are_encoded_in_parts(shared: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = shared.tokenize(QUESTIONS)
    together = shared.encode(tokens)
    assert together.shape == (3, 8)
    assert together.dtype == np.float32
    monkeypatch.setattr("ragengine.retrieval.encoder._QUESTIONS_AT_ONCE", 2)
    read: list[int] = []
    encode = shared._encoder.encode_tokens

    def noted(part: Any) -> Any:
        read.append(len(part))
        return encode(part)

    monkeypatch.setattr(shared._encoder, "encode_tokens", noted)
    np.testing.assert_allclose(shared.encode(tokens), together, rtol=1e-5)
    assert read == [2, 1]
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError, match="after 0 of 3 questions were encoded"):
        shared.encode(tokens, Stop(cancel=cancelled))
    assert shared.encode([]).shape == (0, 8)


def test_a_search_is_its_three_steps(shared: Retriever) -> None:
    vectors = shared.encode(shared.tokenize(QUESTIONS))
    several = shared.search(QUESTIONS, 4)
    assert several == shared.search_vectors(vectors, 4)
    assert [len(found) for found in several] == [4, 4, 4]
    for question, found in zip(QUESTIONS, several, strict=True):
        one = shared.search(question, 4)
        assert [(d.id, d.score) for d in one] == [(d.id, pytest.approx(d.score, rel=1e-5)) for d in found]
        assert len(shared.search(question)) == 3  # the model's n_docs
    assert [shared.question_text(tokens) for tokens in shared.tokenize(QUESTIONS[:1])] == [
        shared._encode_questions(QUESTIONS[:1], Stop()).texts[0]
    ]


def test_questions_come_with_what_is_known_of_them(shared: Retriever) -> None:
    long = "Quito " * 600
    found = shared._encode_questions([QUESTIONS[0], long], Stop())
    assert found.truncated == [False, True]
    assert found.vectors.shape == (2, 8)
    assert set(found.timings_ms) == {"tokenize_question", "encode_question"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nprobe": 2}, "nprobe is 2, but IndexFlat.* has no inverted lists"),
        ({"rerank_width": 0}, "rerank_width is 0; it must be"),
        (
            {"filter": {"owner": "data"}},
            "No passage matches the filter owner='data'; no passage has metadata",
        ),
    ],
)
def test_settings_reach_the_index(shared: Retriever, arguments: Any, message: str) -> None:
    vectors = shared.encode(shared.tokenize(QUESTIONS[:1]))
    for search in (
        lambda: shared.search(QUESTIONS[0], 2, **arguments),
        lambda: shared.search_vectors(vectors, 2, **arguments),
    ):
        with pytest.raises(InputError, match=message):
            search()


@pytest.mark.parametrize("vectors", [[[0.0] * 8, [0.0] * 7], [[10**400]]])
def test_what_is_no_array_is_refused(shared: Retriever, vectors: Any) -> None:
    with pytest.raises(InputError, match=r"Question vectors (are not an array: |must be float32)"):
        shared.search_vectors(vectors, 2)


# --- loading ------------------------------------------------------------------------------------------


def test_an_opened_bundle_is_as_good_as_its_path(shared: Retriever) -> None:
    with Retriever.load(Bundle.open(BUNDLE), str(INDEX), device="cpu", threads=1) as other:
        assert other.search(QUESTIONS, 4) == shared.search(QUESTIONS, 4)
        assert other.index.path == INDEX


def test_devices_and_threads_reach_encoder_and_index(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    load_encoder = TextEncoder.load

    def noted(*arguments: Any, **options: Any) -> TextEncoder:
        asked.append(options)
        return load_encoder(*arguments, **options)

    monkeypatch.setattr(TextEncoder, "load", noted)
    for options, searched_on in (
        ({"threads": 2}, "cpu"),
        ({"search_device": "auto"}, "auto"),
        ({"search_device": "cpu"}, "cpu"),
    ):
        with load(**options) as retriever:
            assert retriever.index.device == searched_on
    assert asked == [{"device": "cpu", "threads": threads} for threads in (2, 1, 1)]


def test_a_device_that_is_none_is_said_before_the_index_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="'tpu'"):
        load(tmp_path / "none", device="tpu")


def test_without_an_index_there_is_none_to_look_at() -> None:
    with load(None) as alone:
        for act in (lambda: alone.index, lambda: alone.swap_index(INDEX), lambda: alone.search(QUESTIONS)):
            with pytest.raises(InputError, match="loaded without an index"):
                act()
        assert alone.encode(alone.tokenize(QUESTIONS)).shape == (3, 8)
    with pytest.raises(InputError, match="search_device is 'cpu', but there is no index to search; leave it"):
        load(None, search_device="cpu")


class Searcher:
    def search(self, question_vectors: Any, n_docs: int) -> Any:
        return []


def test_a_search_of_the_caller_s_is_no_folder() -> None:
    with load(Searcher()) as custom:
        for act in (lambda: custom.index, lambda: custom.swap_index(INDEX)):
            with pytest.raises(
                InputError, match=r"no index folder to look at .*: the search of Searcher takes"
            ):
                act()
    with pytest.raises(
        InputError, match="'cpu', but the search of Searcher decides itself where it searches"
    ):
        load(Searcher(), search_device="cpu")


@pytest.mark.parametrize("verify", ["sha256", "size"])
def test_bundle_and_index_are_verified_as_asked(tmp_path: Path, verify: Any) -> None:
    """What the sizes do not show is found where every byte is read."""
    bundle, index = shutil.copytree(BUNDLE, tmp_path / "bundle"), shutil.copytree(INDEX, tmp_path / "index")
    damage(index / "vectors.npy", -1)
    if verify == "sha256":
        with pytest.raises(IndexFolderError, match=r"vectors\.npy has another sha256"):
            Retriever.load(bundle, index, device="cpu", threads=1, verify=verify)
    else:
        Retriever.load(bundle, index, device="cpu", threads=1, verify=verify).close()
    damage(next((bundle / "generator").glob("weights.bin")), -1)
    if verify == "sha256":
        with pytest.raises(BundleError, match=r"weights\.bin has another sha256"):
            Retriever.load(bundle, INDEX, device="cpu", threads=1, verify=verify)
    else:
        Retriever.load(bundle, INDEX, device="cpu", threads=1, verify=verify).close()


def damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_an_index_that_does_not_fit_is_closed_again(tmp_path: Path) -> None:
    path = shutil.copytree(INDEX, tmp_path / "index")
    manifest = (path / "manifest.json").read_text()
    fingerprint = PassageIndex.open(path).manifest.encoder.fingerprint
    (path / "manifest.json").write_text(manifest.replace(fingerprint, "a" * 64))
    closed: list[Path] = []
    close = PassageIndex.close

    def noted(self: PassageIndex) -> None:
        closed.append(self.path)
        close(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PassageIndex, "close", noted)
        with pytest.raises(IndexFolderError, match="was built with the encoder"):
            load(path)
        assert closed == [path]
        with load() as retriever:
            with pytest.raises(IndexFolderError, match="was built with the encoder"):
                retriever.swap_index(path)
            assert closed == [path, path]
            assert retriever.index.path == INDEX


# --- swapping and closing -----------------------------------------------------------------------------


def test_another_index_is_swapped_in_after_it_was_tried(own: Retriever, tmp_path: Path) -> None:
    other = shutil.copytree(INDEX, tmp_path / "index")
    old = own.index
    warmed: list[Path] = []
    warm_up = PassageIndex.warm_up

    def noted(self: PassageIndex) -> None:
        warmed.append(self.path)
        warm_up(self)

    with pytest.MonkeyPatch.context() as patch, own.borrow_index() as held:
        patch.setattr(PassageIndex, "warm_up", noted)
        own.swap_index(other)
        assert warmed == [other]
        assert held is old is not own.index
        assert own.index.path == other
        old.warm_up()
    with pytest.raises(ClosedError):
        old.warm_up()
    damage(other / "vectors.npy", -1)
    with pytest.raises(IndexFolderError, match="another sha256"):
        own.swap_index(other)
    own.swap_index(other, verify="size")
    assert len(own.search(QUESTIONS[0])) == 3


def test_a_closed_retriever_says_so(own: Retriever) -> None:
    vectors = own.encode(own.tokenize(QUESTIONS))
    own.close()
    own.close()
    for call in (
        lambda: own.tokenize(QUESTIONS),
        lambda: own.encode([]),
        lambda: own.search(QUESTIONS),
        lambda: own.search_vectors(vectors, 2),
        lambda: own.swap_index(INDEX),
        own.borrow_index,
    ):
        with pytest.raises(ClosedError, match=r"was closed; load it again\.$"):
            call()
    with pytest.raises(ClosedError, match="is closed"):
        own.index.passages([0])
