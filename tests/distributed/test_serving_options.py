"""Arguments of the application on Ray Serve (`make test-ray`)."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ragengine_serve.errors import SettingsError
from tests.support.paths import ROOT, WORLDFACTS
from tests.support.ray_serving import EXAMPLE

pytestmark = pytest.mark.ray


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
