"""The application on Ray Serve answers as one process does, whatever dies meanwhile (`make test-ray`)."""

from __future__ import annotations

import collections
import json
import os
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ragengine import RagEngine, delete_passages, shard_index
from ragengine.errors import UnavailableError
from ragengine_serve.errors import SettingsError
from tests.support.paths import ROOT, WORLDFACTS
from tests.support.served import free_port

pytestmark = pytest.mark.ray

EXAMPLE = ROOT / "examples/cluster/serve.yaml"
QUESTIONS = [
    "What is the capital of Iceland?", "What is the capital of Kenya?", "Which continent is Peru in?",
    "What is the capital of Norway?",
]  # fmt: skip
READY = 240  # seconds
Expected = dict[str, tuple[str, float, tuple[str, ...]]]


class World:
    """Two versions of an index in shards, what one process answers with each, and the running cluster."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.indexes = [folder / "index-1", folder / "index-2"]
        smaller = Path(shutil.copytree(WORLDFACTS / "index", folder / "smaller"))
        delete_passages(smaller, ["country-is-land"])
        self.expected: list[Expected] = []
        for source, shards in zip((WORLDFACTS / "index", smaller), self.indexes, strict=True):
            shard_index(source, shards, shards=2)
            with RagEngine.load(WORLDFACTS / "bundle", source, threads=1, device="cpu") as engine:
                answers = [engine.generate(question) for question in QUESTIONS]
            self.expected.append(
                {
                    question: (
                        answer.text,
                        answer.score,
                        tuple(document.id for document in answer.documents),
                    )
                    for question, answer in zip(QUESTIONS, answers, strict=True)
                }
            )

    def config(self, *versions: int) -> dict[str, Any]:
        """The example's file: an application for retrieval a version, and engines of the last one."""
        content = yaml.safe_load(EXAMPLE.read_text())
        retrieval, engines = content["applications"]
        content["http_options"]["port"] = self.port

        def filled(application: dict[str, Any], version: int, **more: Any) -> dict[str, Any]:
            own = {
                "bundle": str(WORLDFACTS / "bundle"),
                "index": str(self.indexes[version - 1]),
                "model_name": "worldfacts",
            }
            return {**application, "args": application["args"] | own | more}

        content["applications"] = [
            filled(retrieval, version) | {"name": f"retrieval-{version}"} for version in versions
        ]
        content["applications"].append(
            filled(engines, versions[-1], retrieval=f"retrieval-{versions[-1]}", cpus=1, answer_timeout=30)
        )
        return content  # type: ignore[no-any-return]

    def deploy(self, *versions: int) -> None:
        """`serve run` with that file; returns when all is up."""
        from ray import serve
        from ray.serve.scripts import cli

        path = self.folder / "serve.yaml"
        path.write_text(yaml.safe_dump(self.config(*versions)))
        done = CliRunner().invoke(cli, ["run", "--non-blocking", str(path)], catch_exceptions=False)
        assert done.exit_code == 0, done.output

        def up() -> bool:
            found = serve.status().applications
            failed = {name: one.message for name, one in found.items() if "FAILED" in one.status}
            assert not failed
            return len(found) == len(versions) + 1 and all(one.status == "RUNNING" for one in found.values())

        wait_for(up)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def version_of(self, question: str, content: str) -> int | None:
        """Which version gave this whole answer; None if none did."""
        answer = json.loads(content)
        found = tuple(document["id"] for document in answer["documents"])
        for version, expected in enumerate(self.expected, 1):
            text, score, documents = expected[question]
            if (answer["answer"], found) == (text, documents) and abs(answer["score"] - score) < 1e-4:
                return version
        return None

    def under_load(self, seconds_after: float, event: Callable[[], None]) -> list[tuple[str, int, str]]:
        """Question, status and body of the requests that four clients send while something happens."""
        done, asked = threading.Event(), []

        def client(number: int) -> None:
            while not done.is_set():
                question = QUESTIONS[number % len(QUESTIONS)]
                asked.append((question, *self.post("/v1/answer", {"question": question})))
                number += 1

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(client, number) for number in range(3)]
            try:
                time.sleep(0.5)
                event()
                time.sleep(seconds_after)
            finally:
                done.set()
            for one in clients:
                one.result()
        return asked


def wait_for(condition: Callable[[], bool]) -> None:
    latest = time.monotonic() + READY
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.2)


def replica_pids(deployment: str) -> list[int]:
    """The processes of a deployment's replicas."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
        except OSError:
            continue  # it has ended
        if line.startswith(b"ray::ServeReplica:") and f":{deployment}".encode() in line:
            found.append(int(folder.name))
    return sorted(found)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    import ray
    from ray import serve

    made = World(tmp_path_factory.mktemp("cluster"))
    ray.init(num_cpus=16, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    try:
        made.deploy(1)
        yield made
    finally:
        serve.shutdown()
        ray.shutdown()


def test_the_routes_answer_as_one_process(world: World) -> None:
    """Native, OpenAI, KServe and events, with the documents and scores of the index without shards."""
    for question in QUESTIONS:
        status, content = world.post("/v1/answer", {"question": question})
        assert status == 200, content
        assert world.version_of(question, content) == 1, content
    text, _, _ = world.expected[0][QUESTIONS[0]]
    status, content = world.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTIONS[0]}]}
    )
    assert status == 200
    assert json.loads(content)["choices"][0]["message"]["content"] == text
    tensor = {"name": "question", "shape": [1], "datatype": "BYTES", "data": [QUESTIONS[0]]}
    status, content = world.post("/v2/models/worldfacts/infer", {"inputs": [tensor]})
    assert status == 200
    assert text in content
    status, content = world.post("/v1/answer", {"question": QUESTIONS[0], "stream": True, "num_beams": 1})
    assert status == 200
    names = [line.removeprefix("event: ") for line in content.splitlines() if line.startswith("event: ")]
    assert names[0] == "documents"
    assert names[-1] == "final"
    assert "token" in names
    assert f'"answer": "{text}"' in content
    status, content = world.post("/v1/answer", {"question": QUESTIONS[0], "n_docs": 0})
    assert status == 400
    assert json.loads(content)["error"]["type"] == "invalid_options"


def test_another_version_is_not_asked(world: World) -> None:
    """A replica refuses the fingerprint of another version, and the caller says so."""
    from ray import serve

    from ragengine_ray.serve.calls import Peer

    for name, method, arguments in (
        ("QuestionEncoder", "encode", [[101, 102]]),
        ("Shard0", "ask", "vectors"),
    ):
        handle = serve.get_deployment_handle(name, app_name="retrieval-1")
        peer = Peer("part", lambda handle=handle: handle, 1.0)  # type: ignore[misc]
        with pytest.raises(
            UnavailableError, match=r"did not answer in 1 seconds .* not the 000000000000 asked"
        ):
            peer.ask(method, "0" * 64, arguments)


def test_replicas_killed_under_load(world: World) -> None:
    """SIGKILL of an encoder, a shard and an engine: no wrong answer, and a lost one is an HTTP error."""

    def kill() -> None:
        for deployment in ("QuestionEncoder", "Shard1", "Engine"):
            os.kill(replica_pids(deployment)[0], signal.SIGKILL)
            time.sleep(0.3)

    asked = world.under_load(4, kill)
    statuses = collections.Counter(status for _, status, _ in asked)
    print("killed under load:", dict(statuses))
    assert statuses[200]
    assert set(statuses) <= {200, 500, 503}
    wrong = [one for one in asked if one[1] == 200 and world.version_of(one[0], one[2]) != 1]
    assert not wrong
    # Only requests that the killed engine computed are lost: those to other parts are repeated.
    assert statuses.total() - statuses[200] <= 3
    wait_for(lambda: len(replica_pids("Engine")) == 2 and bool(replica_pids("Shard1")))


def test_an_update_of_the_index_under_load(world: World) -> None:
    """Old and new version answer meanwhile, each answer is wholly of one, and no request fails."""
    asked = world.under_load(1, lambda: world.deploy(1, 2))
    versions = [
        (status, world.version_of(question, text)) for question, status, text in asked if status == 200
    ]
    print("update:", collections.Counter(versions), collections.Counter(status for _, status, _ in asked))
    assert len(versions) == len(asked)
    assert {version for _, version in versions} == {1, 2}
    status, content = world.post("/v1/answer", {"question": QUESTIONS[0]})
    assert status == 200
    assert world.version_of(QUESTIONS[0], content) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"bundel": "b"}, "'bundel' is no argument of the application; did you mean 'bundle'"),
        ({"bundle": "b"}, "bundle and index go together"),
        ({"replicas": 0}, "replicas is 0, it must be at least 1"),
        ({"replicas": "two"}, "The argument replicas is 'two'; it must be a whole number"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas is 2, it must be at least 3"),
        ({"gpus": -1}, "gpus is -1.0, it must be at least 0"),
        ({"answer_timeout": 0}, "answer_timeout is 0.0, it must be above 0 and finite"),
        ({"max_queue": True}, "The argument max_queue is True; it must be a whole number"),
        ({"port": 80}, "takes no port: http_options"),
        ({"admin_key_file": "k"}, "takes no admin_key_file: an index is swapped by an update"),
    ],
)
def test_wrong_arguments(args: dict[str, Any], said: str) -> None:
    from ragengine_ray import build_app

    with pytest.raises(SettingsError, match=said):
        build_app(args)


def test_the_guide_shows_the_example() -> None:
    """The file in the guide is the one that is deployed here."""
    guide = (ROOT / "docs/guides/cluster.md").read_text()
    shown = guide.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(shown) == yaml.safe_load(EXAMPLE.read_text())


def test_arguments() -> None:
    """The command line gives strings; threads follow what Ray reserves."""
    from ragengine_ray.serve.options import read_options

    options = read_options({"replicas": "2", "cpus": "4", "max_queue": "5", "cache_answers": 3})
    assert (options.replicas, options.cpus) == (2, 4)
    settings = options.settings
    assert (settings.threads, settings.max_concurrent_requests, settings.max_queue) == (2, 2, 5)
    assert settings.models[0].bundle == WORLDFACTS / "bundle"
