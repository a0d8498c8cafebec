"""Whatever is sent, the answer is JSON with a reason, and the server works afterwards."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.served import QUESTION, Served, exchange, running, until, write_keys

KEY, ADMIN = "a-key-for-the-clients", "a-key-for-the-admins"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with keys, small limits and little patience."""
    folder = tmp_path_factory.mktemp("keys")
    with running(
        api_key_file=write_keys(folder / "api", KEY, "another-key-of-a-client"),
        admin_key_file=write_keys(folder / "admin", ADMIN),
        index_root=folder,
        max_request_bytes=2000,
        request_timeout=1,
        cors_allow_origin=("https://example.org",),
    ) as served:
        yield served


def body_of(reply: bytes) -> dict[str, Any]:
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"application/json" in head, reply
    content: dict[str, Any] = json.loads(body)
    return content["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nothing", b"\xff\xfe", b'{"question": NaN}', b'{"question": "a", "question": "b"}',
        b'{"question": "\\ud800"}', b"[" * 1500, b'{"question": 1' + b"0" * 500 + b"}",
        b'{"question": 1e999}',
    ],
)  # fmt: skip
def test_a_malformed_body_is_refused(guarded: Served, body: bytes) -> None:
    reply = guarded.post("/v1/answer", body, Authorization=f"Bearer {KEY}")
    assert reply.status == 400, reply.content
    assert reply.content["error"]["type"] == "invalid_json"
    assert "Traceback" not in str(reply.content)


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null", b"{}", b'{"question": {"a": 1}}'])
def test_json_of_a_wrong_shape_is_refused(guarded: Served, body: bytes) -> None:
    reply = guarded.post("/v1/answer", body, Authorization=f"Bearer {KEY}")
    assert (reply.status, reply.content["error"]["type"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"question": 5}, "question: Input should be a valid string or a valid list."),
        ({"question": ["a", 5]}, "question.1: Input should be a valid string."),
        ({"question": "a", "documents": [{"title": "t"}]}, "documents.0.text: Field required."),
        (
            {"question": "a", "early_stopping": "x"},
            "early_stopping: Input should be a valid boolean or 'never'.",
        ),
        ({"question": "a", "num_beams": "x"}, "num_beams: Input should be a valid integer."),
        (
            {"question": 5, "quest": "a"},
            "quest: Extra inputs are not permitted; "
            "question: Input should be a valid string or a valid list.",
        ),
        ([], "The body: Input should be a valid dictionary or object to extract fields from."),
    ],
)
def test_what_is_wrong_is_said_in_the_body_s_own_words(guarded: Served, body: Any, message: str) -> None:
    reply = guarded.post("/v1/answer", body, Authorization=f"Bearer {KEY}")
    assert (reply.status, reply.content["error"]["message"]) == (422, message)
    assert reply.content["error"]["field"] == (
        None if body == [] else message.partition(":")[0].split(".")[0]
    )


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        (
            "/v1/answer",
            {"query": "a"},
            "query",
            "query: Extra inputs are not permitted; question: Field required.",
        ),
        ("/v1/answer", {"question": "a", "foo": 1}, "foo", "foo: Extra inputs are not permitted."),
        (
            "/v1/answer",
            {"question": []},
            "question",
            "question: Input should be a valid string or "
            "List should have at least 1 item after validation, not 0.",
        ),
        (
            "/v1/answer",
            {"question": ["a", 3]},
            "question",
            "question.1: Input should be a valid string.",
        ),
        ("/v1/answer", [], None, None),
        (
            "/v1/answer",
            {"question": "a", **{f"no{i}": 1 for i in range(9)}},
            "no0",
            "; ".join(f"no{i}: Extra inputs are not permitted" for i in range(5)) + ".",
        ),
        (
            "/v1/answer",
            {"question": "a", "x" * 500: 1},
            "x" * 80,
            f"{'x' * 80}: Extra inputs are not permitted.",
        ),
    ],
)
def test_a_refusal_names_the_fields_as_they_were_sent(
    guarded: Served, path: str, body: Any, field: str | None, message: str | None
) -> None:
    reply = guarded.post(path, body, Authorization=f"Bearer {KEY}")
    error = reply.content["error"]
    assert (reply.status, error["field"]) == (422, field)
    assert message is None or error["message"] == message


def test_a_field_that_is_called_path_is_named(guarded: Served) -> None:
    reply = guarded.post("/admin/index", {"path": 3}, Authorization=f"Bearer {ADMIN}")
    assert (reply.status, reply.content["error"]["field"]) == (422, "path")
    assert reply.content["error"]["message"] == "path: Input should be a valid string."


def test_only_json_is_read(guarded: Served) -> None:
    """A page of another site can send any other type without asking first."""
    reply = guarded.post(
        "/v1/answer", {"question": "x"}, Authorization=f"Bearer {KEY}", Content_Type="text/plain"
    )
    assert (reply.status, reply.content["error"]["type"]) == (415, "not_json")


def test_a_body_that_is_too_long_is_refused_by_its_length_and_while_it_comes(guarded: Served) -> None:
    reply = guarded.post("/v1/answer", {"question": "x" * 3000}, Authorization=f"Bearer {KEY}")
    assert (reply.status, reply.content["error"]["type"]) == (413, "body_too_long")
    head = f"POST /v1/answer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = exchange(guarded.port, head + (b"400\r\n" + b"x" * 0x400 + b"\r\n") * 3)
    assert said.startswith(b"HTTP/1.1 413")
    assert body_of(said)["type"] == "body_too_long"


@pytest.mark.parametrize(
    ("path", "key", "kind", "status"),
    [
        ("/v1/answer", KEY, "application/json", 413),
        ("/v1/answer", "no such key at all", "application/json", 401),
        ("/admin/index", "no such key at all", "application/json", 401),
        ("/nowhere", KEY, "application/json", 413),
    ],
)
def test_a_client_that_sends_megabytes_gets_the_reason(
    guarded: Served, path: str, key: str, kind: str, status: int
) -> None:
    """Most clients read when they have sent everything; a connection reset before would hide the reason."""
    reply = guarded.post(path, b"x" * 20_000_000, Authorization=f"Bearer {key}", Content_Type=kind)
    assert reply.status == status
    assert reply.headers["Connection"] == "close"


def test_a_reply_does_not_wait_for_a_body_that_never_comes(guarded: Served) -> None:
    head = f"POST /v1/answer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 5000\r\n"
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n")
        said = b""
        while b"body_too_long" not in said:
            said += connection.recv(65536)
        assert time.monotonic() - begun < 1
    until(lambda: guarded.metric("rag_requests_in_flight") <= 1)  # its own


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"GET / HTT", b"POST /v1/answer HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/answer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer "
        + KEY.encode() + b"\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["nothing", "a line", "headers", "a body"],
)  # fmt: skip
def test_a_slow_client_is_sent_away(guarded: Served, sent: bytes) -> None:
    begun = time.monotonic()
    said = exchange(guarded.port, sent)
    assert 0.5 < time.monotonic() - begun < 8
    assert said.startswith(b"HTTP/1.1 408")
    assert body_of(said)["type"] == "slow_client"


def test_a_second_request_on_a_connection_may_not_be_slow_either(guarded: Served) -> None:
    first = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
        connection.sendall(first)
        said = b""
        while b'"ok"' not in said:
            said += connection.recv(65536)
        connection.sendall(b"GET /hea")
        said = b""
        while part := connection.recv(65536):
            said += part
    assert said.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"\x00\x01\x02\r\n\r\n", b"GET /\r\n\r\n", b"x" * 70000])
def test_what_is_no_http_is_refused(guarded: Served, sent: bytes) -> None:
    said = exchange(guarded.port, sent)
    assert said.startswith(b"HTTP/1.1 400")
    assert body_of(said)["type"] == "invalid_http"


@pytest.mark.parametrize(
    "told", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe9"]
)
def test_a_wrong_key_is_refused(guarded: Served, told: str) -> None:
    reply = guarded.post("/v1/answer", {"question": QUESTION}, Authorization=told)
    assert (reply.status, reply.content["error"]["type"]) == (401, "unauthorized")
    assert reply.headers["WWW-Authenticate"] == "Bearer"


def test_right_keys_open(guarded: Served) -> None:
    for headers in (
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": "bearer another-key-of-a-client"},
        {"X_API_Key": KEY},
    ):
        assert guarded.post("/v1/retrieve", {"question": "x"}, **headers).status == 200
    assert guarded.get("/info").status == 401
    for path in ("/health", "/ready", "/metrics", "/", "/docs", "/openapi.json", "/v2/health/ready"):
        assert guarded.get(path).status == 200


def test_the_keys_of_clients_do_not_open_admin(guarded: Served) -> None:
    body = {"path": "nothing"}
    assert guarded.post("/admin/index", body, Authorization=f"Bearer {KEY}").status == 401
    assert guarded.post("/admin/index", body, Authorization=f"Bearer {ADMIN}").status == 400
    assert guarded.post("/v1/answer", {"question": "x"}, Authorization=f"Bearer {ADMIN}").status == 401


def test_only_named_origins_may_call(guarded: Served) -> None:
    allowed = guarded.get("/health", Origin="https://example.org").headers
    assert allowed["Access-Control-Allow-Origin"] == "https://example.org"
    assert guarded.get("/health", Origin="https://evil.org").headers["Access-Control-Allow-Origin"] is None


def test_afterwards_nothing_is_left(guarded: Served) -> None:
    """Run last in this file: no request and no question is left of those before."""
    assert guarded.state.scheduler.idle
    until(lambda: guarded.state.requests_in_flight == 0)
    assert guarded.metric("rag_queue_size") == 0
    assert guarded.post("/v1/answer", {"question": "x"}, Authorization=f"Bearer {KEY}").status == 200


@pytest.mark.parametrize("content", ["", "# only a remark\n", "short\n", "ein-schlüssel-der-lang-ist\n"])
def test_a_key_file_without_good_keys_is_refused(tmp_path: Path, content: str) -> None:
    from ragengine_serve.configuration.keys import Keys
    from ragengine_serve.errors import SettingsError

    (tmp_path / "keys").write_text(content, "utf-8")
    with pytest.raises(SettingsError, match="at least one key"):
        Keys(tmp_path / "keys")
    with pytest.raises(SettingsError, match="cannot be read"):
        Keys(tmp_path / "missing")
