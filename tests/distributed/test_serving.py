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

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from ragengine import RagEngine, delete_passages, shard_index
from ragengine.errors import UnavailableError
from ragengine_serve.errors import SettingsError
from tests.support.bundles import rewrite_manifest
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
    """Three versions: what one process answers with each, and the running cluster.

    The second has another index than the first, the third also another model: question encoder and prompts.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.guarded: dict[str, Any] | None = None
        smaller = Path(shutil.copytree(WORLDFACTS / "index", folder / "smaller"))
        delete_passages(smaller, ["country-is-land"])
        bundle = WORLDFACTS / "bundle"
        self.bundles = [bundle, bundle, another_model(folder / "bundle-3")]
        self.indexes = [folder / f"index-{version}" for version in (1, 2, 3)]
        self.expected: list[Expected] = []
        for bundle, source, shards in zip(
            self.bundles, (WORLDFACTS / "index", smaller, WORLDFACTS / "index"), self.indexes, strict=True
        ):
            shard_index(source, shards, shards=2)
            with RagEngine.load(bundle, source, threads=1, device="cpu") as engine:
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
                "bundle": str(self.bundles[version - 1]),
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
        if self.guarded:
            content["applications"].append(self.guarded)
        return content  # type: ignore[no-any-return]

    def deploy(self, *versions: int) -> None:
        """`serve run` with that file; returns when all is up."""
        from ray import serve
        from ray.serve.scripts import cli

        config, path = self.config(*versions), self.folder / "serve.yaml"
        path.write_text(yaml.safe_dump(config))
        done = CliRunner().invoke(cli, ["run", "--non-blocking", str(path)], catch_exceptions=False)
        assert done.exit_code == 0, done.output

        def up() -> bool:
            found = serve.status().applications
            failed = {name: one.message for name, one in found.items() if "FAILED" in one.status}
            assert not failed
            return len(found) == len(config["applications"]) and all(
                one.status == "RUNNING" for one in found.values()
            )

        wait_for(up)

    def post(self, path: str, body: dict[str, Any] | None, key: str | None = None) -> tuple[int, str]:
        """Status and body; a GET where ``body`` is None."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def versions_of(self, question: str, content: str) -> frozenset[int]:
        """The versions that give this whole answer; none do where it is mixed, several where they agree."""
        answer = json.loads(content)
        ids = tuple(document["id"] for document in answer["documents"])
        found = []
        for version, expected in enumerate(self.expected, 1):
            text, score, documents = expected[question]
            if (answer["answer"], ids) == (text, documents) and abs(answer["score"] - score) < 1e-4:
                found.append(version)
        return frozenset(found)

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


def another_model(folder: Path) -> Path:
    """The worldfacts bundle with other weights in its question encoder, and another prompt."""
    shutil.copytree(WORLDFACTS / "bundle", folder)
    weights = folder / "question_encoder/weights.bin"
    values = np.fromfile(weights, np.float16).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
    (values * (1 + 0.2 * noise)).astype(np.float16).tofile(weights)
    manifest = json.loads((folder / "manifest.json").read_text())
    rewrite_manifest(
        folder,
        rag=manifest["rag"] | {"doc_sep": " - "},
        question_encoder=manifest["question_encoder"] | {"fingerprint": "a" * 64},
    )
    return folder


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
        assert 1 in world.versions_of(question, content), content
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
    wrong = [one for one in asked if one[1] == 200 and 1 not in world.versions_of(one[0], one[2])]
    assert not wrong
    # Only requests that the killed engine computed are lost: those to other parts are repeated.
    assert statuses.total() - statuses[200] <= 3
    wait_for(lambda: len(replica_pids("Engine")) == 2 and bool(replica_pids("Shard1")))


def updated(world: World, old: int, new: int) -> collections.Counter[frozenset[int]]:
    """By which versions the answers to requests are that came while a version was replaced; none failed."""
    asked = world.under_load(1, lambda: world.deploy(old, new))
    assert [one for one in asked if one[1] != 200] == []
    found = collections.Counter(world.versions_of(question, content) for question, _, content in asked)
    print("update:", dict(found))
    return found


def test_an_update_of_the_index_under_load(world: World) -> None:
    """Old and new version answer meanwhile, each answer is wholly of one, and no request fails."""
    found = updated(world, 1, 2)
    assert all(versions & {1, 2} for versions in found)
    assert {frozenset({1}), frozenset({2})} <= found.keys()
    status, content = world.post("/v1/answer", {"question": QUESTIONS[0]})
    assert status == 200
    assert world.versions_of(QUESTIONS[0], content) == {2}


def test_an_update_of_the_model_under_load(world: World) -> None:
    """As of the index: no encoder, shard or prompt of one version has a part in an answer of the other."""
    for question in QUESTIONS:
        scores = [expected[question][1] for expected in world.expected]
        assert abs(scores[2] - scores[1]) > 1e-2, "the versions must be told apart"
    world.deploy(1, 2)  # as the update before this has left it
    found = updated(world, 2, 3)
    assert all(versions & {2, 3} for versions in found)
    assert any(2 in versions for versions in found)
    assert frozenset({3}) in found
    for question in QUESTIONS:
        status, content = world.post("/v1/answer", {"question": question})
        assert (status, world.versions_of(question, content)) == (200, frozenset({3}))


KEY = "a-key-of-a-client"
LONG = {"question": QUESTIONS[0], "num_beams": 16, "n_docs": 16}


@pytest.fixture(scope="module")
def guarded(world: World) -> World:
    """With one more application: engines alone, below a path, that want a key, one or two by load."""
    (world.folder / "keys").write_text(f"{KEY}\n")
    (world.folder / "keys").chmod(0o600)
    scaling = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1}
    soon = {
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 1,
        "look_back_period_s": 2,
        "metrics_interval_s": 0.5,
    }
    world.guarded = {
        "name": "guarded",
        "route_prefix": "/rag",
        "import_path": "ragengine_ray.serve:app",
        "args": {
            "bundle": str(WORLDFACTS / "bundle"),
            "index": str(WORLDFACTS / "index"),
            "model_name": "worldfacts",
            "api_key_file": str(world.folder / "keys"),
            "encoders": 0,
            "max_replicas": 2,
            "cpus": 1,
            "drain_timeout": 60,
        },
        "deployments": [{"name": "Engine", "autoscaling_config": scaling | soon}],
    }
    world.deploy(3)
    return world


def test_below_a_path_with_keys(guarded: World) -> None:
    """Routes, keys and error bodies go by the path behind the prefix; the other application wants no key."""
    body = {"question": QUESTIONS[0]}
    status, content = guarded.post("/rag/v1/answer", body, KEY)
    assert (status, guarded.versions_of(QUESTIONS[0], content)) == (200, frozenset({1}))
    for key in (None, "another"):
        status, content = guarded.post("/rag/v1/answer", body, key)
        assert (status, json.loads(content)["error"]["type"]) == (401, "unauthorized")
    chat = {"messages": [{"role": "user", "content": QUESTIONS[0]}]}
    tensor = {"name": "question", "shape": [1], "datatype": "BYTES", "data": [QUESTIONS[0]]}
    status, content = guarded.post("/rag/v2/models/worldfacts/infer", {"inputs": [tensor]})
    assert (status, type(json.loads(content)["error"])) == (401, str), "KServe's form"
    status, content = guarded.post("/rag/v1/chat/completions", chat, KEY)
    assert status == 200
    text, _, _ = guarded.expected[0][QUESTIONS[0]]
    assert json.loads(content)["choices"][0]["message"]["content"] == text
    assert guarded.post("/rag/health", None)[0] == 200
    assert guarded.post("/rag/nothing", body, KEY)[0] == 404
    assert guarded.post("/ragged/v1/answer", body, KEY)[0] == 404
    assert guarded.post("/v1/answer", body)[0] == 200


def test_engines_follow_the_load(guarded: World) -> None:
    """A second one starts under load, both answer, and it ends when there is nothing to do."""
    done = threading.Event()

    def client() -> list[int]:
        found = []
        while not done.is_set():
            status, content = guarded.post("/rag/v1/answer", LONG, KEY)
            found.append(status)
            assert status != 200 or json.loads(content)["answer"]
        return found

    assert running("guarded") == 1
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        try:
            wait_for(lambda: running("guarded") == 2)
        finally:
            done.set()
        statuses = collections.Counter(status for one in clients for status in one.result())
    assert set(statuses) == {200}
    wait_for(lambda: running("guarded") == 1)


def running(application: str) -> int:
    """How many engines of an application take requests."""
    from ray import serve

    return int(
        serve.status().applications[application].deployments["Engine"].replica_states.get("RUNNING", 0)
    )


def test_requests_in_flight_finish(guarded: World) -> None:
    """An application that is removed answers what it has begun, streams too, and nothing after it."""
    from ray import serve

    def ask(number: int) -> tuple[int, str, float]:
        stream = {"stream": True, "num_beams": 1} if number == 0 else {}
        return *guarded.post("/rag/v1/answer", LONG | stream, KEY), time.monotonic()

    status, expected = guarded.post("/rag/v1/answer", LONG, KEY)
    assert status == 200
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(8)]
        wait_for(lambda: any(one.done() for one in asked))
        deleted = time.monotonic()
        serve.delete("guarded")
        answers = [one.result() for one in asked]
    assert [status for status, _, _ in answers] == [200] * 8
    late = sum(ended > deleted for _, _, ended in answers)
    print("answered after the removal began:", late)
    assert late >= 2, "all had been answered before"
    assert "event: final" in answers[0][1]
    for _, content, _ in answers[1:]:
        assert json.loads(content)["answer"] == json.loads(expected)["answer"]
    guarded.guarded = None
    assert guarded.post("/rag/v1/answer", LONG, KEY)[0] != 200


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
