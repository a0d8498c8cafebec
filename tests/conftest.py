"""Settings for all tests, made before anything imports the libraries that read them."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

# The hooks are here since pytest-xdist's controller, which prints the figures, reads no other conftest.py.
from tests.support.tally import (  # noqa: F401
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for the hub fails at once, and says so
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # some tests import onnxruntime before ragengine

# A shell ignores Ctrl-C for what it runs in the background, and children inherit that: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.support.models", "tests.support.bundles"]

# Machines that run the tests are shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile(
    "ragengine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ragengine")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist run all tests of a file: they share its fixtures."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
