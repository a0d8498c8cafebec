"""Servers of shards behind TLS, and the keys that they ask for."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragengine import RagEngine, answer_file
from ragengine.errors import InputError, ShardError
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding.manifest import ShardsManifest
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from tests.support.commands import run
from tests.support.paths import WORLDFACTS
from tests.support.served import QUESTION, Served, running, write_keys
from tests.support.sharded import addressed, shard_folders, write_shards
from tests.support.tls import self_signed, tls_before

KEY, LOAD = "k" * 20, {"device": "cpu", "threads": 1, "verify": "size"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "shards", 2)


@pytest.fixture(scope="module")
def keys(folder: Path) -> Path:
    return write_keys(folder.parent / "keys", KEY)


@pytest.fixture(scope="module")
def servers(folder: Path, keys: Path) -> Iterator[list[Served]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running(models=(), shard=path, api_key_file=keys))
            for path in shard_folders(folder)
        ]


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Path:
    return self_signed(folder.parent / "certificate")[0]


@pytest.fixture(scope="module")
def secure(folder: Path, servers: list[Served], certificate: Path) -> Iterator[Path]:
    """``shards.json`` with ``https://`` addresses, whose certificates vouch for themselves."""
    with contextlib.ExitStack() as stack:
        urls = [
            stack.enter_context(tls_before(server.port, certificate, certificate.with_name("key.pem")))
            for server in servers
        ]
        yield addressed(folder, folder.parent / "secure", [[url] for url in urls])


def test_an_engine_answers_over_tls_with_a_key(secure: Path, certificate: Path, keys: Path) -> None:
    remote = RemoteOptions(key_file=keys, ca_file=str(certificate))
    with (
        RagEngine.load(WORLDFACTS / "bundle", secure, remote=remote, **LOAD) as ours,
        RagEngine.load(WORLDFACTS / "bundle", WORLDFACTS / "index", **LOAD) as theirs,
    ):
        for _ in range(3):  # connections stay open
            assert [*ours.retrieve(QUESTION, 5)] == [*theirs.retrieve(QUESTION, 5)]
        assert ours.generate(QUESTION).text == theirs.generate(QUESTION).text == "Reykjavik"


@pytest.mark.parametrize("trusted", ["the system's", "another's", "of another name"])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    trusted: str, secure: Path, servers: list[Served], folder: Path, keys: Path, tmp_path: Path
) -> None:
    given = None
    if trusted != "the system's":
        given, key = self_signed(tmp_path / "c", "DNS:elsewhere" if "name" in trusted else "IP:127.0.0.1")
    with contextlib.ExitStack() as stack:
        path, said = secure, "certificate verify failed: self-signed certificate"
        if trusted == "of another name":
            url = stack.enter_context(tls_before(servers[0].port, given, key))
            path = addressed(folder, tmp_path / "renamed", [[url], [servers[1].url]])
            said = "IP address mismatch"
        with pytest.raises(ShardError, match=rf"The shard 0 .*{said}"):
            open_index(path, remote=RemoteOptions(key_file=keys, ca_file=given))


def test_plain_http_to_a_tls_port_and_tls_to_a_plain_one_fail(
    secure: Path, servers: list[Served], folder: Path, keys: Path, certificate: Path, tmp_path: Path
) -> None:
    remote = RemoteOptions(timeout=10, key_file=keys, ca_file=certificate)
    first = ShardsManifest.read(secure).shards[0].addresses[0].replace("https:", "http:")
    for number, url in enumerate((first, servers[0].url.replace("http:", "https:"))):
        path = addressed(folder, tmp_path / str(number), [[url], [servers[1].url]])
        with pytest.raises(ShardError, match=f"The shard 0 .*{url}"):
            open_index(path, remote=remote)


def test_certificates_that_cannot_be_read_are_refused_before_anybody_is_asked(
    secure: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no certificate\n")
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    for name in ("missing", "text", "binary", "."):
        with pytest.raises(InputError, match=r"certificates for the shards .* PEM"):
            open_index(secure, remote=RemoteOptions(ca_file=tmp_path / name))


@pytest.mark.parametrize("key", [None, "w" * 20])
def test_a_missing_or_wrong_key_is_named_and_not_shown(
    key: str | None, folder: Path, servers: list[Served], tmp_path: Path
) -> None:
    path = addressed(folder, tmp_path / "keyed", [[server.url] for server in servers])
    file = None if key is None else write_keys(tmp_path / "wrong", key)
    with pytest.raises(ShardError, match=r"The shard 0 .*401") as refused:
        open_index(path, remote=RemoteOptions(key_file=file))
    assert refused.value.refused
    assert key is None or key not in str(refused.value)


def test_commands_and_processes_ask_over_tls(
    secure: Path, certificate: Path, keys: Path, tmp_path: Path
) -> None:
    options = ["--threads", "1", "--verify", "size"]
    given = ["--remote-shards", "--shard-key-file", keys, "--shard-ca-file", certificate]
    asked = run("ask", WORLDFACTS / "bundle", secure, QUESTION, *given, *options)
    assert (asked.returncode, "Reykjavik" in asked.stdout) == (0, True), asked.stderr
    refused = run("ask", WORLDFACTS / "bundle", secure, QUESTION, *given[:3], *options)
    assert (refused.returncode, "CERTIFICATE_VERIFY_FAILED" in refused.stderr) == (1, True)
    questions = tmp_path / "questions.txt"
    questions.write_text(f"{QUESTION}\nWhat is the capital of Peru?\n")
    quick = {"n_docs": 2, "max_length": 8, "num_beams": 1, "threads": 1, "verify": "size", "batch_size": 1}
    for processes, index, remote in (
        (1, WORLDFACTS / "index", None),
        (2, secure, RemoteOptions(key_file=keys, ca_file=certificate)),
    ):
        output = tmp_path / f"{processes}.jsonl"
        done = answer_file(
            WORLDFACTS / "bundle", index, questions, output, processes=processes, remote=remote, **quick
        )
        assert (done.questions, done.failed) == (2, 0)
    assert '"answer": "Reykjavik"' in output.read_text("utf-8")
    assert '"answer": "Lima"' in output.read_text("utf-8")
