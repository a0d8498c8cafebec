"""What is there for deployment: the Dockerfile's steps as plain shell, the unit, the sample configuration."""

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from ragengine_serve.configuration.sources import read_settings
from tests.support.paths import ROOT, WORLDFACTS
from tests.support.served import free_port

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
INSTRUCTIONS = [
    tuple(line.split(None, 1))
    for line in DOCKERFILE.replace("\\\n", " ").splitlines()
    if re.match(r"[A-Z]+ ", line)
]


def arguments(instruction: str) -> list[str]:
    return [text for name, text in INSTRUCTIONS if name == instruction]


def test_the_image_is_slim_not_root_and_has_a_health_check() -> None:
    assert all("slim" in image for image in arguments("FROM"))
    assert arguments("USER") == ["10001"]
    assert "/ready" in arguments("HEALTHCHECK")[0]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert arguments("ENTRYPOINT") == ['["ragengine", "serve"]']
    assert "--read-only" in DOCKERFILE
    # what is copied is there, and is all that the package is built of
    copied = {part for text in arguments("COPY") if "--from" not in text for part in text.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "engine", "serving"} <= copied


def test_the_unit_drains_and_has_few_rights() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(ROOT / "deploy" / "ragengine.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith("ragengine serve --config /etc/ragengine/serve.toml")
    assert int(service["TimeoutStopSec"]) > read_settings({}, {}).drain_timeout
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"


def test_the_sample_configuration_is_one() -> None:
    settings = read_settings({"config": ROOT / "deploy" / "serve.toml"}, {})
    assert [model.name for model in settings.models] == ["worldfacts"]


@pytest.mark.slow
def test_the_steps_of_the_image_make_a_server_that_answers(tmp_path: Path) -> None:
    """The build stage in a folder of its own, then the entry point with the image's environment."""
    source, installed = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for text in arguments("COPY"):
        if "--from" not in text:
            for name in text.split()[:-1]:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, source / name)
    for step in [text for text in arguments("RUN") if "useradd" not in text]:
        command = shlex.split(step.replace("/opt/ragengine", str(installed)))
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(command, cwd=source, env=clean, check=True, capture_output=True)
    environment = dict(pair.split("=", 1) for text in arguments("ENV") for pair in shlex.split(text))
    port = free_port()
    environment |= {"PATH": f"{installed}/bin", "RAGENGINE_PORT": str(port), "RAGENGINE_HOST": "127.0.0.1"}
    environment |= {
        "RAGENGINE_BUNDLE": str(WORLDFACTS / "bundle"),
        "RAGENGINE_INDEX": str(WORLDFACTS / "index"),
    }
    server = subprocess.Popen(
        ["ragengine", "serve"], env=environment, cwd="/", executable=f"{installed}/bin/ragengine"
    )
    try:
        latest = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < latest
                time.sleep(0.2)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    size = sum(
        file.stat().st_size for file in installed.rglob("*") if file.is_file() and not file.is_symlink()
    )
    print(f"installed: {size / 1e6:.0f} MB")
