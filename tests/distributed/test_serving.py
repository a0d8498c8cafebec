"""The application on Ray Serve answers as one process does, whatever dies meanwhile (`make test-ray`)."""

from __future__ import annotations

import collections
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ragengine.errors import UnavailableError
from tests.support.paths import WORLDFACTS
from tests.support.ray_serving import QUESTIONS, Cluster, replica_pids, wait_for

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    import ray
    from ray import serve

    made = Cluster(tmp_path_factory.mktemp("cluster"))
    ray.init(num_cpus=16, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    try:
        made.deploy(1)
        yield made
    finally:
        serve.shutdown()
        ray.shutdown()


def test_the_routes_answer_as_one_process(cluster: Cluster) -> None:
    """Native, OpenAI, KServe and events, with the documents and scores of the index without shards."""
    for question in QUESTIONS:
        status, content = cluster.post("/v1/answer", {"question": question})
        assert status == 200, content
        assert 1 in cluster.versions_of(question, content), content
    text, _, _ = cluster.expected[0][QUESTIONS[0]]
    status, content = cluster.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTIONS[0]}]}
    )
    assert status == 200
    assert json.loads(content)["choices"][0]["message"]["content"] == text
    tensor = {"name": "question", "shape": [1], "datatype": "BYTES", "data": [QUESTIONS[0]]}
    status, content = cluster.post("/v2/models/worldfacts/infer", {"inputs": [tensor]})
    assert status == 200
    assert text in content
    status, content = cluster.post("/v1/answer", {"question": QUESTIONS[0], "stream": True, "num_beams": 1})
    assert status == 200
    names = [line.removeprefix("event: ") for line in content.splitlines() if line.startswith("event: ")]
    assert names[0] == "documents"
    assert names[-1] == "final"
    assert "token" in names
    assert f'"answer": "{text}"' in content
    status, content = cluster.post("/v1/answer", {"question": QUESTIONS[0], "n_docs": 0})
    assert status == 400
    assert json.loads(content)["error"]["type"] == "invalid_options"


def test_another_version_is_not_asked(cluster: Cluster) -> None:
    """A replica refuses the fingerprint of another version, and the caller says so."""
    from ray import serve

    from ragengine_ray.serve.calls import Peer

    for name, method, arguments in (
        ("QuestionEncoder", "encode", [[101, 102]]),
        ("Shard0", "ask", "vectors"),
    ):
        handle = serve.get_deployment_handle(name, app_name="retrieval-1")
        peer = Peer("part", lambda handle=handle: handle, 1.0)
        with pytest.raises(
            UnavailableError, match=r"did not answer in 1 seconds .* not the 000000000000 asked"
        ):
            peer.ask(method, "0" * 64, arguments)


def test_replicas_killed_under_load(cluster: Cluster) -> None:
    """SIGKILL of an encoder, a shard and an engine: no wrong answer, and a lost one is an HTTP error."""

    def kill() -> None:
        for deployment in ("QuestionEncoder", "Shard1", "Engine"):
            os.kill(replica_pids(deployment)[0], signal.SIGKILL)
            time.sleep(0.3)

    asked = cluster.under_load(4, kill)
    statuses = collections.Counter(status for _, status, _ in asked)
    print("killed under load:", dict(statuses))
    assert statuses[200]
    assert set(statuses) <= {200, 500, 503}
    wrong = [one for one in asked if one[1] == 200 and 1 not in cluster.versions_of(one[0], one[2])]
    assert not wrong
    # Only requests that the killed engine computed are lost: those to other parts are repeated.
    assert statuses.total() - statuses[200] <= 3
    wait_for(lambda: len(replica_pids("Engine")) == 2 and bool(replica_pids("Shard1")))


def updated(cluster: Cluster, old: int, new: int) -> collections.Counter[frozenset[int]]:
    """By which versions the answers to requests are that came while a version was replaced; none failed."""
    asked = cluster.under_load(1, lambda: cluster.deploy(old, new))
    assert [one for one in asked if one[1] != 200] == []
    found = collections.Counter(cluster.versions_of(question, content) for question, _, content in asked)
    print("update:", dict(found))
    return found


def test_an_update_of_the_index_under_load(cluster: Cluster) -> None:
    """Old and new version answer meanwhile, each answer is wholly of one, and no request fails."""
    found = updated(cluster, 1, 2)
    assert all(versions & {1, 2} for versions in found)
    assert {frozenset({1}), frozenset({2})} <= found.keys()
    status, content = cluster.post("/v1/answer", {"question": QUESTIONS[0]})
    assert status == 200
    assert cluster.versions_of(QUESTIONS[0], content) == {2}


def test_an_update_of_the_model_under_load(cluster: Cluster) -> None:
    """As of the index: no encoder, shard or prompt of one version has a part in an answer of the other."""
    for question in QUESTIONS:
        scores = [expected[question][1] for expected in cluster.expected]
        assert abs(scores[2] - scores[1]) > 1e-2, "the versions must be told apart"
    cluster.deploy(1, 2)  # as the update before this has left it
    found = updated(cluster, 2, 3)
    assert all(versions & {2, 3} for versions in found)
    assert any(2 in versions for versions in found)
    assert frozenset({3}) in found
    for question in QUESTIONS:
        status, content = cluster.post("/v1/answer", {"question": question})
        assert (status, cluster.versions_of(question, content)) == (200, frozenset({3}))


KEY = "a-key-of-a-client"
LONG = {"question": QUESTIONS[0], "num_beams": 16, "n_docs": 16}


@pytest.fixture(scope="module")
def guarded(cluster: Cluster) -> Cluster:
    """With one more application: engines alone, below a path, that want a key, one or two by load."""
    (cluster.folder / "keys").write_text(f"{KEY}\n")
    (cluster.folder / "keys").chmod(0o600)
    scaling = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1}
    soon = {
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 1,
        "look_back_period_s": 2,
        "metrics_interval_s": 0.5,
    }
    cluster.guarded = {
        "name": "guarded",
        "route_prefix": "/rag",
        "import_path": "ragengine_ray.serve:app",
        "args": {
            "bundle": str(WORLDFACTS / "bundle"),
            "index": str(WORLDFACTS / "index"),
            "model_name": "worldfacts",
            "api_key_file": str(cluster.folder / "keys"),
            "encoders": 0,
            "max_replicas": 2,
            "cpus": 1,
            "drain_timeout": 60,
        },
        "deployments": [{"name": "Engine", "autoscaling_config": scaling | soon}],
    }
    cluster.deploy(3)
    return cluster


def test_below_a_path_with_keys(guarded: Cluster) -> None:
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


def test_engines_follow_the_load(guarded: Cluster) -> None:
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


def test_requests_in_flight_finish(guarded: Cluster) -> None:
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
