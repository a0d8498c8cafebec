"""An engine that searches with somebody else's search: numpy, SQLite, and searches that return nonsense."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import Document, DocumentSearcher, RagEngine, Record, Retriever
from ragengine.errors import ClosedError, InputError
from ragengine.retrieval.custom import CustomIndex, NoIndex
from ragengine.retrieval.index import PassageIndex
from tests.support.bundles import Array
from tests.support.ids import stable_repr
from tests.support.paths import WORLDFACTS

OF_A_CALIBRATION = {"low_confidence", "calibration_other_options"}
QUESTIONS = [
    "What is the capital of Iceland?",
    "What is the capital of Peru?",
    "Which currency is used in Japan?",
    "What is the official language of Brazil?",
]
BUNDLE, INDEX = WORLDFACTS / "bundle", WORLDFACTS / "index"


def passages() -> list[tuple[str, str, str]]:
    with PassageIndex.open(INDEX, verify="size") as index:
        return [(p.id, p.title, p.text) for p in index.passages(range(index.count))]


class NumpySearch:
    """Exact search of vectors in memory."""

    def __init__(self) -> None:
        self.vectors = np.load(INDEX / "vectors.npy").astype(np.float64)
        self.passages = passages()
        self.closed = False

    def search(self, question_vectors: Array, n_docs: int) -> list[list[Document]]:
        assert question_vectors.dtype == np.float32
        assert question_vectors.ndim == 2
        return [self._found(question, n_docs) for question in question_vectors]

    def _found(self, question: Array, n_docs: int) -> list[Document]:
        scores = np.einsum("ne,e->n", self.vectors, question.astype(np.float64)).astype(np.float32)
        found = []
        for row in np.argsort(-scores, kind="stable")[:n_docs]:
            id, title, text = self.passages[row]
            found.append(Document(title=title, text=text, id=id, score=scores[row]))
        return found

    def close(self) -> None:
        self.closed = True


class SqliteSearch:
    """A table with a column of vectors, which SQLite orders by their inner product with the question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        vectors = np.load(INDEX / "vectors.npy")
        rows = [(*p, v.tobytes()) for p, v in zip(passages(), vectors, strict=True)]
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE passages (id, title, text, vector BLOB)")
            database.executemany("INSERT INTO passages VALUES (?, ?, ?, ?)", rows)
        database.close()

    def search(self, question_vectors: Array, n_docs: int) -> list[list[Document]]:
        database = sqlite3.connect(self.path)
        try:
            return [self._found(database, question, n_docs) for question in question_vectors]
        finally:
            database.close()

    def _found(self, database: sqlite3.Connection, question: Array, n_docs: int) -> list[Document]:
        wide = question.astype(np.float64)

        def score(vector: bytes) -> float:
            stored = np.frombuffer(vector, np.float16).astype(np.float64)
            return float(np.float32(np.einsum("e,e->", stored, wide)))

        database.create_function("score", 1, score, deterministic=True)
        select = "SELECT id, title, text, score(vector) AS s FROM passages ORDER BY s DESC, rowid LIMIT ?"
        rows = database.execute(select, [n_docs])
        return [Document(id=id, title=title, text=text, score=score) for id, title, text, score in rows]


@pytest.fixture(scope="module")
def ordinary() -> Iterator[RagEngine]:
    with RagEngine.load(BUNDLE, INDEX, device="cpu", threads=1) as engine:
        yield engine


@pytest.fixture(scope="module", params=["numpy", "sqlite"])
def custom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RagEngine]:
    path = tmp_path_factory.mktemp("database") / "passages.sqlite"
    searcher = NumpySearch() if request.param == "numpy" else SqliteSearch(path)
    with RagEngine.load(BUNDLE, searcher, device="cpu", threads=1) as engine:
        yield engine


def found(documents: Sequence[Document]) -> list[tuple[Any, ...]]:
    return [(d.id, d.title, d.text, d.score, d.prior, d.posterior) for d in documents]


def test_documents_are_those_of_the_ordinary_index(ordinary: RagEngine, custom: RagEngine) -> None:
    for question in QUESTIONS:
        assert found(custom.retrieve(question, 7)) == found(ordinary.retrieve(question, 7))
    assert len(custom.retrieve(QUESTIONS[0])) == ordinary.default_options.n_docs


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 4},
        {"num_beams": 2, "doc_pruning": 0.01},
        {"marginalize": "sequence", "num_beams": 2, "n_docs": 3},
        {"do_sample": True, "seed": 3},
    ],
    ids=stable_repr,
)
def test_answers_are_those_of_the_ordinary_index(
    ordinary: RagEngine, custom: RagEngine, options: dict[str, Any]
) -> None:
    for ours, theirs in zip(
        custom.generate(QUESTIONS, **options), ordinary.generate(QUESTIONS, **options), strict=True
    ):
        assert (ours.text, ours.score, ours.log_prob) == (theirs.text, theirs.score, theirs.log_prob)
        assert found(ours.documents) == found(theirs.documents)
        assert found(ours.pruned) == found(theirs.pruned)
        # of what an object of the caller's own searches there is no calibration
        assert ours.flags == tuple(flag for flag in theirs.flags if flag not in OF_A_CALIBRATION)


def test_every_call_works(ordinary: RagEngine, custom: RagEngine) -> None:
    question, labels = QUESTIONS[0], ["Reykjavik", "Lima"]
    streams = (engine.stream(question, num_beams=1) for engine in (custom, ordinary))
    ours, theirs = ([(token.text, token.log_prob) for token in stream] for stream in streams)
    assert len(ours) > 1
    assert ours == theirs
    assert custom.score(question, "Reykjavik") == ordinary.score(question, "Reykjavik")
    assert custom.classify(question, labels) == ordinary.classify(question, labels)
    own = [Document("Iceland", "The capital of Iceland is Reykjavik.")]
    read, read_by_other = (engine.generate(question, documents=own) for engine in (custom, ordinary))
    assert (read.text, found(read.documents)) == (read_by_other.text, found(read_by_other.documents))


def test_many_threads_get_their_own_answers(custom: RagEngine) -> None:
    alone = [custom.generate(question).text for question in QUESTIONS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda question: custom.generate(question).text, QUESTIONS * 4)) == alone * 4


def test_there_is_no_folder_to_swap_or_to_record(custom: RagEngine) -> None:
    answer = custom.generate(QUESTIONS[0])
    for act in (
        lambda: custom.swap_index(INDEX),
        lambda: custom.retriever.index,
        lambda: Record.of(custom, answer),
    ):
        with pytest.raises(InputError, match=r"no index folder .*: the search of (Numpy|Sqlite)Search takes"):
            act()
    assert custom.generate(QUESTIONS[0]).text == answer.text


def test_the_searcher_stays_the_callers() -> None:
    searcher = NumpySearch()
    retriever = Retriever.load(BUNDLE, searcher, device="cpu", threads=1)
    vectors = retriever.encode(retriever.tokenize(QUESTIONS[:2]))
    documents = retriever.search_vectors(vectors, 3)
    assert [[d.id for d in each] for each in documents] == [
        [d.id for d in each] for each in searcher.search(vectors, 3)
    ]
    for setting in ("nprobe", "rerank_width"):
        with pytest.raises(InputError, match="settings of an index folder; NumpySearch has none"):
            retriever.search_vectors(vectors, 3, **{setting: 2})
    for wrong, message in ((vectors.astype(float), "must be float32"), (vectors[:, 1:], r"needs \[Q, 128\]")):
        with pytest.raises(InputError, match=message):
            retriever.search_vectors(wrong, 3)
    with pytest.raises(InputError, match="n_docs is 0"):
        retriever.search_vectors(vectors, 0)
    retriever.close()
    assert not searcher.closed
    with pytest.raises(ClosedError):
        retriever.search_vectors(vectors, 3)


class Returns:
    """A search that returns what it is told to."""

    def __init__(self, result: Callable[[int, int], Any]) -> None:
        self.result = result

    def search(self, question_vectors: Array, n_docs: int) -> Any:
        return self.result(len(question_vectors), n_docs)


def document(score: Any = 1.0, **fields: Any) -> Document:
    return Document(**{"title": "t", "text": "x", "score": score, **fields})


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[RagEngine, Returns]]:
    searcher = Returns(lambda questions, n_docs: [[document()]] * questions)
    with RagEngine.load(BUNDLE, searcher, device="cpu", threads=1) as engine:
        yield engine, searcher


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda q, n: None, r"result of Returns\.search is NoneType; it must be a list of Document for each"),
        (lambda q, n: [document()] * q, r"result of Returns\.search, question 0 is Document"),
        (lambda q, n: [[document()]] * (q + 1), "returned 3 lists of documents for 2 questions"),
        (lambda q, n: [[document()]], "returned 1 lists of documents for 2 questions"),
        (lambda q, n: [[document()], []], "question 1: it returned 0 documents; return 1 to 4"),
        (lambda q, n: [[document()] * (n + 1)] * q, "question 0: it returned 5 documents; return 1 to 4"),
        (lambda q, n: [["text"]] * q, "question 0, document 0 is str; it must be a Document"),
        (lambda q, n: [[document(text=7)]] * q, "document 0: its text is int"),
        (lambda q, n: [[document(title="\ud800")]] * q, "document 0: its title has half a surrogate pair"),
        (lambda q, n: [[document(id=None)]] * q, "document 0: its id is NoneType"),
        (
            lambda q, n: [[document(), document(2.0)]] * q,
            "2 of document 1 is above the 1 of document 0",
        ),
        *(
            (
                lambda q, n, score=score: [[document(score)]] * q,
                r"document 0 has the score .*; it must be a fin",
            )
            for score in (None, "1", True, np.nan, np.inf, -np.inf, 1e39, 10**400, np.array([1.0]))
        ),
    ],
)
def test_wrong_results_are_one_clear_error(
    told: tuple[RagEngine, Returns], result: Callable[[int, int], Any], message: str
) -> None:
    engine, searcher = told
    searcher.result = result
    with pytest.raises(InputError, match=message):
        engine.generate(QUESTIONS[:2], n_docs=4)
    searcher.result = lambda questions, n_docs: [[document(np.float32(1))]] * questions
    assert len(engine.generate(QUESTIONS[:2], n_docs=4)) == 2


def test_fewer_documents_than_wanted_are_flagged(told: tuple[RagEngine, Returns]) -> None:
    engine, searcher = told
    searcher.result = lambda questions, n_docs: [(document(2), document(-1.5))] * questions
    answer = engine.generate(QUESTIONS[0], n_docs=4)
    assert [d.score for d in answer.documents] == [2.0, -1.5]
    assert "fewer_documents" in answer.flags


def test_errors_of_the_searcher_are_not_changed(told: tuple[RagEngine, Returns]) -> None:
    def fail(questions: int, n_docs: int) -> Any:
        raise ConnectionError("the database is away")

    engine, searcher = told
    searcher.result = fail
    with pytest.raises(ConnectionError, match="the database is away"):
        engine.generate(QUESTIONS[0])


@pytest.mark.parametrize("index", [3, b"index", object(), ["index"]])  # None: no index
def test_what_is_no_index_is_refused(index: Any) -> None:
    with pytest.raises(InputError, match=r"index is \w+; it must be the path of an index folder"):
        RagEngine.load(BUNDLE, index, device="cpu", threads=1)


def test_a_search_device_needs_an_index_folder() -> None:
    with pytest.raises(InputError, match="search_device is 'cpu', but the search of NumpySearch decides"):
        RagEngine.load(BUNDLE, NumpySearch(), device="cpu", search_device="cpu")


SMALL = np.zeros((2, 3), np.float32)


def small(result: Any) -> CustomIndex:
    """A search of two questions' vectors of three numbers."""
    return CustomIndex(Returns(lambda questions, n_docs: result), 3)


def test_a_small_search_is_checked_and_copied() -> None:
    metadata = {"owner": "data"}
    given = document(np.float32(2), id="a", metadata=metadata), document(-1.5, id="b")
    found = small([given, (given[0], given[0])]).search_documents(SMALL, 2)
    assert [[(d.title, d.text, d.id, d.score, dict(d.metadata)) for d in each] for each in found] == [
        [("t", "x", "a", 2.0, metadata), ("t", "x", "b", -1.5, {})],
        [("t", "x", "a", 2.0, metadata)] * 2,
    ]
    assert all(type(d.score) is float for each in found for d in each)
    largest = float(np.finfo(np.float32).max)
    ((one,), (other,)) = small([[document(largest)], [document(-largest)]]).search_documents(SMALL, 1)
    assert (one.score, other.score) == (largest, -largest)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([[document(0.0), document(1e-9)]] * 2, "1e-09 of document 1 is above the 0 of document 0; return"),
        (
            [[document(-2)], [document(0), document(-1), document(-0.5)]],
            "question 1: the score -0.5 of document 2",
        ),
        ([[document(3.5e38)]] * 2, "has the score 3.5e.38"),
        ([[document(metadata={"a": 1})]] * 2, "question 0, document 0: its metadata"),
    ],
)
def test_small_searches_that_return_nonsense(result: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(result).search_documents(SMALL, 3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"nprobe": 2}, "nprobe and rerank_width are settings of an index folder; Returns has none"),
        ({"rerank_width": 2}, "nprobe and rerank_width are settings"),
        ({"filter": {"owner": "data"}}, "filter chooses among the passages of an index folder; Returns"),
        ({"filter": 3}, "filter is 3; it must be a mapping"),
    ],
)
def test_a_small_search_has_no_settings(setting: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small([]).search_documents(SMALL, 2, **setting)
    found = small([[document()]] * 2).search_documents(SMALL, 2, filter={})
    assert [len(each) for each in found] == [1, 1]


def test_what_stands_in_an_index_s_place_when_it_is_small() -> None:
    assert (small([]).name, small([]).corpus) == ("search of Returns", None)
    small([]).close()
    none: Any = NoIndex()
    assert (none.name, none.corpus, none.close()) == ("engine without an index", None, None)
    with pytest.raises(InputError, match="was loaded without an index, so it finds no documents"):
        none.search_documents(SMALL, 2)


def test_the_protocol_is_the_method() -> None:
    assert isinstance(NumpySearch(), DocumentSearcher)
    assert not isinstance("index", DocumentSearcher)


def test_without_an_index_questions_bring_their_documents() -> None:
    with RagEngine.load(BUNDLE, device="cpu") as alone, RagEngine.load(BUNDLE, INDEX, device="cpu") as whole:
        found = whole.retrieve(QUESTIONS[0])
        expected = whole.generate(QUESTIONS[0])
        bare = [Document(title=one.title, text=one.text) for one in found]
        for documents in (found, bare):  # with their scores, and scored by the passage encoder
            assert alone.generate(QUESTIONS[0], documents=documents).text == expected.text
        (prepared,) = alone.prepare([QUESTIONS[0]], n_docs=0)
        assert alone.generate(prepared, documents=found).text == expected.text
        assert alone.score(QUESTIONS[0], expected.text, documents=found) == pytest.approx(
            whole.score(QUESTIONS[0], expected.text), abs=1e-4
        )
        for search in (
            lambda: alone.generate(QUESTIONS[0]),
            lambda: alone.retrieve(QUESTIONS[0]),
            lambda: alone.prepare(QUESTIONS),
            lambda: alone.swap_index(INDEX),
        ):
            with pytest.raises(InputError, match=r"loaded without an index.*give documents"):
                search()
    with pytest.raises(InputError, match="search_device is 'cpu', but there is no index to search"):
        RagEngine.load(BUNDLE, device="cpu", search_device="cpu")
