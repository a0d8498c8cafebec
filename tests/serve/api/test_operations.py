"""What an operator and a browser see."""

import re

from ragengine.version import __version__
from tests.support.served import QUESTION, Served


def test_the_server_is_healthy_and_ready(server: Served) -> None:
    assert server.get("/health").content == {"status": "ok"}
    assert server.get("/ready").content == {"status": "ok"}


def test_info_tells_models_and_limits(server: Served) -> None:
    info = server.get("/info").content
    (model,) = info["models"]
    assert info["version"] == __version__
    assert model["name"] == "worldfacts"
    assert model["bundle"]["precision"] == "fp32"
    assert re.fullmatch(r"[0-9a-f]{16}", model["bundle"]["fingerprint"])
    assert model["index"]["passages"] == 10000
    assert model["default_options"]["num_beams"] == 4
    assert model["streaming"] == ["token"]
    assert info["limits"]["max_num_beams"] == 32


def test_metrics_count_requests_by_endpoint_and_outcome(server: Served) -> None:
    def count(endpoint: str, outcome: str) -> float:
        return server.metric(f'rag_request_count_total{{endpoint="{endpoint}",outcome="{outcome}"}}')

    before = count("/v1/answer", "success"), count("/v1/answer", "invalid")
    decoded = server.metric("rag_request_decode_duration_seconds_count")
    server.post("/v1/answer", {"question": QUESTION})
    server.post("/v1/answer", {"question": 3})
    server.post("/nothing", {})
    assert (count("/v1/answer", "success"), count("/v1/answer", "invalid")) == (before[0] + 1, before[1] + 1)
    assert count("other", "not_found") >= 1
    for stage in ("queue", "tokenization", "encode", "search", "read_documents", "decode"):
        assert server.metric(f"rag_request_{stage}_duration_seconds_count") >= 1, stage
    assert server.metric("rag_request_decode_duration_seconds_count") == decoded + 1
    assert server.metric("rag_resident_bytes") > 1e7
    assert server.metric("rag_queue_size") == 0
    text = server.get("/metrics").content
    assert re.search(r'^rag_model_info\{.*model="worldfacts".*\} 1\.0$', text, re.M)
    assert re.search(r'^rag_index_info\{.*model="worldfacts".*\} 10000\.0$', text, re.M)
    assert re.search(r'^rag_generated_tokens_total\{model="worldfacts"\} [1-9]', text, re.M)


def test_the_reference_runs_nothing(server: Served) -> None:
    reply = server.get("/docs")
    assert reply.headers["Content-Type"].startswith("text/html")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", reply.content)
    assert policy.count("sha256-") == len(re.findall(r"<style>", reply.content)) == 1


def test_the_reference_lists_every_call_with_an_example(server: Served) -> None:
    page, document = server.get("/docs").content, server.get("/openapi.json").content
    assert len(document["paths"]) >= 20
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    assert "curl http://127.0.0.1:8000/v1/answer" in page
    options = document["components"]["schemas"]["AnswerRequest"]["properties"]
    assert {"n_docs", "num_beams", "seed"} <= options.keys()
    assert options["num_beams"]["description"] == "B; 1 is greedy search, or sampling"


def test_unknown_paths_and_methods_answer_in_json(server: Served) -> None:
    assert server.get("/nothing").content["error"]["type"] == "not_found"
    reply = server.get("/v1/answer")
    assert (reply.status, reply.content["error"]["type"]) == (405, "wrong_method")
    assert reply.headers["Allow"] == "POST"


def test_a_request_keeps_its_id(server: Served) -> None:
    assert server.get("/health", **{"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    assert server.get("/health", **{"X-Request-Id": "a b"}).headers["X-Request-Id"] != "a b"
