"""The session's parity figures, printed at its end; too many ties fail it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers.utils import logging

from .tally import MOST_TIES, PROPERTY, Tally

_TALLY = Tally()


@pytest.fixture(autouse=True, scope="session")
def _quiet_and_single_threaded() -> Iterator[None]:
    """Small models run faster on one thread, and more threads would only fight the engine's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, figures in report.user_properties:
            if name == PROPERTY and isinstance(figures, dict):
                _TALLY.add(figures)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TALLY.configurations:
        terminalreporter.section("parity with transformers")
        terminalreporter.write_line(str(_TALLY))
        if _TALLY.too_many_ties:
            terminalreporter.write_line(f"FAILED: more than {MOST_TIES:.0%} ties", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _TALLY.too_many_ties:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
