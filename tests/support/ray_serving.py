"""The application on Ray Serve: deployed in several versions, asked while something happens to it."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from click.testing import CliRunner

from ragengine import RagEngine, delete_passages, shard_index
from tests.support.bundles import rewrite_manifest
from tests.support.paths import ROOT, WORLDFACTS
from tests.support.served import free_port

EXAMPLE = ROOT / "examples/cluster/serve.yaml"
QUESTIONS = [
    "What is the capital of Iceland?", "What is the capital of Kenya?", "Which continent is Peru in?",
    "What is the capital of Norway?",
]  # fmt: skip
READY = 240  # seconds
Expected = dict[str, tuple[str, float, tuple[str, ...]]]


class Cluster:
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
        return content

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
