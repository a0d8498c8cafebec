"""The command in processes of its own: workers that die, swaps that reach all, signals, what is logged."""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from ragengine import build_index
from ragengine.installation import pip_install
from ragengine_serve import Client, ServerError
from tests.support.commands import COMMAND, run
from tests.support.paths import WORLDFACTS
from tests.support.served import QUESTION, until, write_keys

KEY = "a-key-for-the-admins"
FOLDERS = [str(WORLDFACTS / "bundle"), str(WORLDFACTS / "index")]
COMMON = ["--threads", "1", "--device", "cpu", "--verify", "size", "--port", "0"]


class Command:
    """A running `ragengine serve`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", *FOLDERS, *COMMON, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.said = self.process.stdout.readline()
        self.url = self.said.split()[-1]
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        self.lines += stream

    def records(self, message: str) -> list[dict[str, Any]]:
        """The lines of the log with that message."""
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [record for record in found if record["message"] == message]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, where it still runs, and wait for the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexes")
    (folder / "passages.jsonl").write_text(
        '{"id": "new", "title": "Iceland", "text": "Its capital is new."}\n'
    )
    build_index(folder / "passages.jsonl", folder / "small", bundle=WORLDFACTS / "bundle")
    (folder / "broken").mkdir()
    write_keys(folder / "keys", KEY)
    return folder


@pytest.fixture(scope="module")
def command(indexes: Path) -> Iterator[Command]:
    admin = ["--admin-key-file", str(indexes / "keys"), "--index-root", str(indexes)]
    found = Command("--workers", "2", *admin)
    with Client(found.url) as client:
        until(lambda: len(found.records("ready")) == 2, 120)
        assert client.ready()
    yield found
    found.end()


def metric(client: Client, name: str) -> float:
    text = client._http.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([\d.e+]+)$", text, re.M))


def documents_of_both(command: Command) -> set[str]:
    """The first documents that new connections get, which the workers take turns to accept."""
    found = set()
    for _ in range(12):
        with Client(command.url) as client:
            found.add(client.retrieve(QUESTION, 1)[0].id)
    return found


def test_a_worker_that_dies_is_replaced_and_counted(command: Command) -> None:
    with Client(command.url) as client:
        assert metric(client, "rag_worker_restarts_total") == 0
    before = children(command.process.pid)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(command.records("ready")) == 3, 120)
    assert len(set(children(command.process.pid)) - set(before)) == 1
    with Client(command.url) as client:
        assert client.answer(QUESTION).text == "Reykjavik"
        assert metric(client, "rag_worker_restarts_total") == 1
        assert metric(client, "rag_request_count_total") >= 1
    assert [record["code"] for record in command.records("worker died")] == [-signal.SIGKILL]


def test_a_swap_reaches_every_worker_and_those_that_start_later(command: Command) -> None:
    with Client(command.url, api_key=KEY) as admin:
        with pytest.raises(ServerError) as error:
            admin.swap_index("broken")
        assert (error.value.status, error.value.type) == (400, "invalid_index")
        assert "new" not in documents_of_both(command)
        admin.swap_index("small")
    assert documents_of_both(command) == {"new"}
    ready = len(command.records("ready"))
    os.kill(children(command.process.pid)[0], signal.SIGKILL)
    until(lambda: len(command.records("ready")) == ready + 1, 120)
    assert documents_of_both(command) == {"new"}


def test_the_log_is_json_without_questions(command: Command) -> None:
    with Client(command.url) as client:
        client._http.post(
            "/v1/answer",
            json={"question": "Where is a secret place?"},
            headers={"X-Request-Id": "r-1", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"},
        )
    until(lambda: any(r["request_id"] == "r-1" for r in command.records("request")))
    (record,) = [r for r in command.records("request") if r["request_id"] == "r-1"]
    assert record["trace_id"] == "ab" * 16
    assert (record["endpoint"], record["status"], record["questions"]) == ("/v1/answer", 200, "1 redacted")
    assert record["timings_ms"]["decode"] > 0
    assert "secret" not in "".join(command.lines)


def test_sigterm_lets_running_requests_finish(command: Command) -> None:
    """The last test of the module: new requests get 503, the running one its answer, and the code is 0."""
    results: list[Any] = []

    def ask() -> None:
        with Client(command.url) as client:
            results.append(client.answer(QUESTION, num_beams=8, min_new_tokens=60, max_new_tokens=60))

    thread = threading.Thread(target=ask)
    with Client(command.url) as client:
        thread.start()
        until(lambda: metric(client, "rag_questions_running") >= 1)
        command.process.send_signal(signal.SIGTERM)
        until(lambda: command.records("draining"))
        with pytest.raises(ServerError) as error:
            client.answer(QUESTION)
        assert error.value.status in (0, 503)  # 0: the worker of this connection had nothing to finish
    thread.join(60)
    assert len(results[0].tokens) == 60
    assert command.process.wait(60) == 0
    assert "Traceback" not in "".join(command.lines)


def test_one_process_serves_a_unix_socket_and_logs_questions_if_told(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = Command("--uds", str(path), "--log-questions")
    assert command.said == f"ragengine serve: worldfacts at unix:{path}\n"
    with Client("http://localhost", uds=str(path)) as client:
        until(client.ready, 120)
        assert client.retrieve("Where is a secret place?", 1)
    until(lambda: any(r.get("questions") == ["Where is a secret place?"] for r in command.records("request")))
    assert command.end(signal.SIGINT) == 0
    assert not path.exists()


def test_a_server_that_cannot_start_says_why_in_one_sentence(tmp_path: Path) -> None:
    for more in ([], ["--workers", "2"]):
        done = run("serve", tmp_path / "nothing", WORLDFACTS / "index", "--port", "0", *more)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert re.fullmatch(r"ragengine: .*nothing.*\.", last), done.stderr
    running = Command("--host", "0.0.0.0")
    try:
        port = running.url.rpartition(":")[2]
        done = run("serve", *FOLDERS, "--host", "0.0.0.0", "--port", port)
        assert done.returncode == 1
        assert f"Cannot listen on 0.0.0.0:{port}" in done.stderr
        until(lambda: running.records("ready"), 120)
    finally:
        assert running.end() == 0
    assert any("need no key" in line for line in running.lines)  # it is open to other machines, and says so


def test_without_the_extra_the_command_says_which(tmp_path: Path) -> None:
    done = run("serve", *FOLDERS, blocked=("fastapi",))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"run {pip_install('serve')}." in done.stderr
