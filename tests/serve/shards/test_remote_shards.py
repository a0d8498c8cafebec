"""Shards over HTTP: the answers of the whole index, or an error or a flag that names what is missing."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine import RagEngine
from ragengine.arrays import FloatArray
from ragengine.cli.evaluate import evaluate_command
from ragengine.cli.index import index as index_command
from ragengine.errors import DeadlineError, IndexFolderError, InputError, ShardError
from ragengine.indexing.shard_addresses import set_shard_addresses
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding.asking import Search, searching
from ragengine.retrieval.sharding.manifest import ShardEntry, ShardsManifest
from ragengine.retrieval.sharding.remote import messages
from ragengine.retrieval.sharding.remote.network import Network
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.remote.shard import RemoteShard
from ragengine.retrieval.sharding.remote.wire import MAX_MESSAGE_BYTES, MEDIA_TYPE, encode
from ragengine.retrieval.sharding.shard import LocalShard
from ragengine.runtime.cancellation import Stop
from tests.support.commands import run
from tests.support.paths import WORLDFACTS
from tests.support.served import QUESTION, Served, exchange, free_port, running, write_keys
from tests.support.sharded import addressed, answering, reply, shard_folders, write_shards

SOON = RemoteOptions(timeout=0.4, hedge_after=0.05, rest=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "shards")


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[list[Served]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running(models=(), shard=path)) for path in shard_folders(folder)]


@pytest.fixture(scope="module")
def remote(folder: Path, servers: list[Served], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return addressed(folder, tmp_path_factory.mktemp("remote") / "shards", [[s.url] for s in servers])


@pytest.fixture(scope="module")
def whole() -> Iterator[PassageIndex]:
    with PassageIndex.open(WORLDFACTS / "index", verify="size") as index:
        yield index


@pytest.fixture
def first(folder: Path) -> Iterator[LocalShard]:
    shard = LocalShard.open(shard_folders(folder)[0], verify="size")
    yield shard
    shard.close()


@contextlib.contextmanager
def asked(local: LocalShard, *addresses: str, options: RemoteOptions = SOON) -> Iterator[RemoteShard]:
    entry = ShardEntry(0, local.count, local.fingerprint, addresses=addresses)
    shard = RemoteShard("one", entry, local.facts, Network(), options)
    try:
        yield shard
    finally:
        shard.close()


def questions_of(index: PassageIndex, count: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    near = index.vectors(rng.integers(0, index.count, count))
    return (near + rng.normal(scale=0.1, size=near.shape)).astype(np.float32)


def same(ours: Candidates, theirs: Candidates) -> None:
    for name in ("rows", "proposed", "scores"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_remote_shards_find_what_the_whole_index_finds(whole: PassageIndex, remote: Path) -> None:
    questions = questions_of(whole, 20)
    with open_index(remote, remote=RemoteOptions()) as index:
        for n_docs in (1, 5, whole.count + 3):
            ours, theirs = index.search(questions, n_docs), whole.search(questions, n_docs)
            np.testing.assert_array_equal(ours.rows, theirs.rows)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
        rows = [0, whole.count - 1, 0, whole.count // 2]
        assert index.passages(rows) == whole.passages(rows)
        np.testing.assert_array_equal(index.vectors(np.array(rows)), whole.vectors(np.array(rows)))
        ids = [passage.id for passage in whole.passages(rows)] + ["no such id"]
        assert index.rows_of(ids) == whole.rows_of(ids)
        with pytest.raises(InputError, match="No passage matches") as ours_error:
            index.search(questions, 1, filter={"owner": "nobody"})
        with pytest.raises(InputError) as their_error:
            whole.search(questions, 1, filter={"owner": "nobody"})
        assert str(ours_error.value) == str(their_error.value)


def test_every_call_answers_as_the_folder_does(first: LocalShard, servers: list[Served]) -> None:
    questions = questions_of(first.index, 7)
    with asked(first, servers[0].url, options=RemoteOptions()) as shard:
        for plan in (Plan(1), Plan(5, every=True), Plan(first.count + 9)):
            same(shard.candidates(questions, plan), first.candidates(questions, plan))
        assert shard.metadata_fields(3) == first.metadata_fields(3)
        rows = np.arange(first.count)[::-1]
        assert shard.passages(rows) == first.passages(rows)
        assert shard.passages([]) == []
        assert len(shard.candidates(questions[:0], Plan(1)).rows) == 0


def test_an_engine_answers_as_with_the_whole_index(remote: Path) -> None:
    answers = []
    for index, options in ((WORLDFACTS / "index", {}), (remote, {"remote": RemoteOptions()})):
        with RagEngine.load(
            WORLDFACTS / "bundle", index, device="cpu", threads=1, verify="size", **options
        ) as e:
            answers.append(e.generate(QUESTION, num_beams=2).to_dict())
            assert e.retrieve(QUESTION).missing_shards == ()
    for answer in answers:
        del answer["timings_ms"], answer["confidence"], answer["answerability"]
    kept = [{k: v for k, v in a.items() if k not in ("flags", "notes")} for a in answers]
    assert kept[0] == kept[1]


def test_the_commands_ask_servers_where_they_are_told_to(remote: Path, tmp_path: Path) -> None:
    invoke = CliRunner().invoke
    bundle, index = str(WORLDFACTS / "bundle"), str(WORLDFACTS / "index")
    search = ["--json", "--n-docs", "5", "--device", "cpu", "--verify", "size", "Where is Iceland?"]
    found = invoke(index_command, ["search", bundle, str(remote), *search, "--remote-shards"])
    assert found.exit_code == 0, found.output
    assert found.output == invoke(index_command, ["search", bundle, index, *search]).output
    assert isinstance(
        invoke(index_command, ["search", bundle, str(remote), *search]).exception, IndexFolderError
    )
    lines = (WORLDFACTS / "questions.jsonl").read_text("utf-8").splitlines()[:3]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    measure = [str(tmp_path / "questions.jsonl"), "--json", "--resamples", "0", "--device", "cpu"]
    measured = [
        invoke(evaluate_command, [bundle, *where, *measure])
        for where in ([str(remote), "--remote-shards", "--shard-timeout", "30"], [index])
    ]
    assert [one.exit_code for one in measured] == [0, 0], measured[0].output
    there, here = (json.loads(one.stdout) for one in measured)
    assert there.pop("measured")["index"] == str(remote)
    assert here.pop("measured")["index"] == index
    del here["confidence"]  # its calibration lies beside the index, and not beside shards.json
    assert there == here


def test_nobody_is_asked_unless_the_caller_says_so(remote: Path) -> None:
    with pytest.raises(IndexFolderError, match="remote-shards"):
        open_index(remote)


def test_a_lost_shard_is_an_error_or_a_flag(
    folder: Path, servers: list[Served], tmp_path: Path, whole: PassageIndex
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    path = addressed(folder, tmp_path / "lost", [[servers[0].url], [dead], [servers[2].url]])
    with pytest.raises(ShardError, match="shard 1") as lost:
        open_index(path, remote=SOON)
    assert lost.value.addresses == (dead,)
    load = {"device": "cpu", "threads": 1, "verify": "size", "remote": SOON, "allow_partial": True}
    with RagEngine.load(WORLDFACTS / "bundle", path, **load) as engine:
        answer = engine.generate(QUESTION, num_beams=2)
        (missing,) = answer.missing_shards
        assert "shard 1" in missing
        assert dead in missing
        assert "shards_missing" in answer.flags
        assert any(dead in note for note in answer.notes)
        assert answer.to_dict()["missing_shards"] == [missing]
        found = engine.retrieve(QUESTION, 10)
        assert found.missing_shards == (missing,)
        manifest = engine.retriever.index.manifest
        gone = manifest.shards[1]
        everything = whole.search_documents(engine.prepare([QUESTION])[0].encoded.vectors, whole.count)[0]
        absent = {p.id for p in whole.passages(range(gone.first_row, gone.first_row + gone.count))}
        left = [document.id for document in everything if document.id not in absent][:10]
        assert [document.id for document in found] == left
        with pytest.raises(ShardError, match="shard 1"):
            engine.score(QUESTION, " Reykjavik")
        with pytest.raises(ShardError, match="shard 1"):  # it cannot say what is missing
            engine.retriever.search(QUESTION, 3)


def test_a_shard_that_dies_after_the_search_begins_it_again(
    folder: Path, servers: list[Served], tmp_path: Path
) -> None:
    path = addressed(folder, tmp_path / "dying", [[server.url] for server in servers])
    load = {
        "device": "cpu",
        "threads": 1,
        "verify": "size",
        "remote": RemoteOptions(timeout=30.0),
        "allow_partial": True,
    }
    with RagEngine.load(WORLDFACTS / "bundle", path, **load) as engine:
        best = engine.retrieve(QUESTION, 1)[0]
        index = engine.retriever.index
        (row,) = index.rows_of([best.id])[best.id]
        dying = next(
            s for s, f in zip(index.shards, index._first_rows, strict=True) if f <= row < f + s.count
        )

        def die(rows: object) -> None:
            raise ShardError("It died.")

        dying._shard.passages = die
        found = engine.retrieve(QUESTION, 1)
        assert found.missing_shards == (dying.name,)
        assert found[0].id != best.id


def test_another_index_is_an_error(first: LocalShard, servers: list[Served]) -> None:
    with asked(first, servers[1].url) as shard:
        with pytest.raises(ShardError, match="answers from another index"):
            shard.info()
        with pytest.raises(ShardError, match=r"409, .* another one was asked for"):
            shard.candidates(questions_of(first.index, 1), Plan(1))


def test_the_second_replica_answers_for_one_that_does_not(first: LocalShard, servers: list[Served]) -> None:
    questions = questions_of(first.index, 2)
    expected = first.candidates(questions, Plan(5))
    dead = f"http://127.0.0.1:{free_port()}"
    patient = RemoteOptions(timeout=20, hedge_after=0.1, rest=60)
    with answering(None) as silent:
        for other in (silent, dead, servers[1].url):
            with asked(first, other, servers[0].url, options=patient) as shard:
                started = time.perf_counter()
                same(shard.candidates(questions, Plan(5)), expected)
                assert time.perf_counter() - started < 10
                bad, good = shard._replicas._replicas
                assert bad.rests_until > time.monotonic() > good.rests_until
                for _ in range(4):  # it is asked last now, and so never
                    same(shard.candidates(questions, Plan(5)), expected)


def test_a_deadline_ends_the_wait(first: LocalShard) -> None:
    with answering(None) as silent, asked(first, silent, options=RemoteOptions(timeout=30)) as shard:
        started = time.perf_counter()
        with searching(Search(Stop(0.2))), pytest.raises(DeadlineError):
            shard.info()
        assert time.perf_counter() - started < 10


def test_failures_leave_no_thread_and_no_socket(first: LocalShard, servers: list[Served]) -> None:
    fds, threads = Path("/proc/self/fd"), threading.active_count()
    dead = f"http://127.0.0.1:{free_port()}"
    hasty = RemoteOptions(timeout=0.02, hedge_after=0.005, rest=0.0)
    with answering(b"garbage") as garbage:
        before = len(list(fds.iterdir()))
        with asked(first, garbage, dead, options=hasty) as shard:
            for _ in range(200):
                with pytest.raises(ShardError):
                    shard.info()
            assert len(list(fds.iterdir())) <= before + 6  # the loop's own, and none a failure
        assert threading.active_count() <= threads + 1  # the garbage server's
        latest = time.monotonic() + 5
        while len(list(fds.iterdir())) > before and time.monotonic() < latest:
            time.sleep(0.01)
        assert len(list(fds.iterdir())) <= before


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (b"", "without a response"),
        (b"\x00\xff" * 40, "ends in the head"),
        (b"hello\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "does not say its length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "does not say its length"),
        (b"HTTP/1.1 200 OK\r\nX" + b"x" * 70000, "head of more than"),
        (reply(b"abc", length=10), "ends after 3 of 10"),
        (reply(b"", length=MAX_MESSAGE_BYTES + 1), "at most"),
        (reply(b"oops", status="500 Oops"), "500 without saying why"),
        (reply(b'{"error": {"message": "\\u001b[31m no"}}', status="503 No"), "503, .x1b.31m no"),
        (reply(b"", "Location: http://127.0.0.1:1/", status="302 Found"), "302"),
        (reply(encode({}, {})), "does not say which"),
        (reply(encode({}, {}), "X-Ragengine-Index: OURS"), "no array"),
        (reply(b"RGSH", "X-Ragengine-Index: OURS"), "does not begin"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_typed_error(first: LocalShard, response: bytes, said: str) -> None:
    response = response.replace(b"OURS", first.fingerprint.encode())
    with answering(response) as url, asked(first, url, options=RemoteOptions(timeout=5)) as shard:
        with pytest.raises(ShardError, match=said) as error:
            shard.candidates(questions_of(first.index, 1), Plan(3))
        assert url in str(error.value)
        assert "one" in str(error.value)


def body_of(questions: FloatArray, plan: Plan = Plan(3)) -> bytes:  # noqa: B008
    return messages.search_request(questions, plan, None)


def test_bad_requests_are_refused_with_a_reason(first: LocalShard, servers: list[Served]) -> None:
    served, good = servers[0], questions_of(first.index, 1)
    dimension, path = first.index.dimension, f"{messages.SHARD_PATH}/search"
    wrong = good.copy()
    wrong[0, 0] = np.nan
    for body, said in (
        (body_of(wrong), "NaN"),
        (body_of(np.zeros((1, dimension + 1), np.float32)), "shape"),
        (body_of(good, Plan(0)), "width"),
        (body_of(good)[:-1], "longer than the message"),
        (b"RGSX" + body_of(good)[4:], "does not begin"),
        (b"", "does not begin"),
        (b"{}", "does not begin"),
    ):
        refused = served.post(path, body, Content_Type=MEDIA_TYPE)
        assert refused.status == 400
        assert said in refused.content["error"]["message"]
    assert served.post(path, b"x", Content_Type="text/plain").status == 415
    assert served.post(f"{messages.SHARD_PATH}/steal", body_of(good), Content_Type=MEDIA_TYPE).status == 404
    other = served.post(path, body_of(good), Content_Type=MEDIA_TYPE, X_Ragengine_Index="0" * 64)
    assert (other.status, other.content["error"]["type"]) == (409, "other_index")
    rows = messages.rows_message(np.array([first.count]))
    assert served.post(f"{messages.SHARD_PATH}/passages", rows, Content_Type=MEDIA_TYPE).status == 400
    many = messages.rows_message(np.zeros(messages.MOST_ROWS + 1, np.int64))
    assert served.post(f"{messages.SHARD_PATH}/passages", many, Content_Type=MEDIA_TYPE).status == 400
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA_TYPE}\r\n"
    long = exchange(served.port, f"{head}Content-Length: {MAX_MESSAGE_BYTES + 1}\r\n\r\n".encode())
    assert b" 413 " in long.splitlines()[0]
    assert served.post("/v1/answer", {"question": QUESTION}).status == 404  # it has no model
    assert served.get("/ready").status == 200


def test_half_a_body_and_keys(folder: Path, first: LocalShard, tmp_path: Path) -> None:
    keys, key = tmp_path / "keys", "k" * 20
    settings = {"api_key_file": write_keys(keys, key), "request_timeout": 1}
    with running(models=(), shard=shard_folders(folder)[0], **settings) as served:
        path = f"{messages.SHARD_PATH}/search"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        half = exchange(served.port, f"{head}Content-Length: 100\r\n\r\nRGSH".encode())
        assert b" 408 " in half.splitlines()[0]
        with asked(first, served.url) as shard, pytest.raises(ShardError, match="key"):
            shard.info()
        with asked(first, served.url, options=RemoteOptions(key_file=keys)) as shard:
            assert shard.info().count == first.count


def test_addresses_are_written_and_read(folder: Path, servers: list[Served], tmp_path: Path) -> None:
    copy = addressed(folder, tmp_path / "shards", [["http://old:1"]] * len(servers))
    given = {number: [server.url, f"{server.url}/"] for number, server in enumerate(servers)}
    manifest = set_shard_addresses(copy, given)
    assert [entry.addresses for entry in manifest.shards] == [(s.url, s.url) for s in servers]
    with open_index(copy, remote=RemoteOptions()) as index:
        assert index.passages([0])
    for wrong in ({len(servers): ["http://a"]}, {0: ["a:1"]}, {0: []}):
        with pytest.raises(InputError):
            set_shard_addresses(copy, wrong)
    assert ShardsManifest.read(copy) == manifest
    told = run("index", "addresses", copy, "1=http://new:2,http://other:3")
    assert told.returncode == 0
    assert "1: http://new:2, http://other:3" in told.stdout
    assert run("index", "addresses", copy, "first=http://new:2").returncode == 2


def test_an_answer_with_missing_shards_is_not_cached(
    folder: Path, servers: list[Served], tmp_path: Path
) -> None:
    from ragengine_serve.scheduling.answer_cache import is_whole

    dead = f"http://127.0.0.1:{free_port()}"
    path = addressed(folder, tmp_path / "lost", [[servers[0].url], [dead], [servers[2].url]])
    load = {"device": "cpu", "threads": 1, "verify": "size", "remote": SOON, "allow_partial": True}
    with RagEngine.load(WORLDFACTS / "bundle", path, **load) as engine:
        (prepared,) = engine.prepare([QUESTION])
        assert prepared.missing_shards
        partial = engine.generate(prepared, num_beams=1)
        assert partial.missing_shards == prepared.missing_shards
        assert not is_whole(partial)
        assert not is_whole((engine.retrieve(QUESTION), {}))
    with RagEngine.load(WORLDFACTS / "bundle", WORLDFACTS / "index", device="cpu", threads=1) as engine:
        assert is_whole(engine.generate(QUESTION, num_beams=1))
        assert is_whole((engine.retrieve(QUESTION), {}))
