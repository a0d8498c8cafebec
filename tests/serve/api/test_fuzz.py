"""The API fuzzed from its own OpenAPI document: no failure, and no status and shape that it does not tell."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ragengine_serve.app import create_app
from ragengine_serve.configuration.settings import Settings
from ragengine_serve.state import ServerState
from tests.support.served import Served, running

schemathesis = pytest.importorskip("schemathesis", reason="the extra serve-test is not installed")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

SMALL = {"max_n_docs": 5, "max_num_beams": 4, "max_new_tokens": 39, "max_questions": 3}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
DOCUMENT = create_app(ServerState.of(Settings())).openapi()
CALLS = [(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Served]:
    """A server whose limits keep each request short."""
    with running(**SMALL) as served:
        yield served


@pytest.fixture(scope="module")
def api(fuzzed: Served) -> Any:
    return schemathesis.openapi.from_url(fuzzed.url + "/openapi.json")


@pytest.mark.parametrize(("path", "method"), CALLS)
def test_no_request_is_answered_otherwise_than_told(api: Any, path: str, method: str) -> None:
    call = api[path][method]
    modes = list(schemathesis.GenerationMode)
    cases = st.one_of([call.as_strategy(generation_mode=mode) for mode in modes])

    @hypothesis.settings(
        max_examples=6, deadline=None, suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=True, database=None, phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(cases)
    def ask(case: Any) -> None:
        response = case.call(timeout=60)
        case.validate_response(response, checks=CHECKS)
        assert b"Traceback" not in response.content

    ask()


def test_the_server_is_idle_afterwards(fuzzed: Served) -> None:
    assert fuzzed.state.scheduler.idle
    assert fuzzed.post("/v1/answer", {"question": "x"}).status == 200
