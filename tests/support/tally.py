"""The figures of the parity tests, printed at the end of a run; too many ties fail it.

Tests hand their figures over as pytest's `user_properties`, which also arrive from pytest-xdist's workers.
The hooks work in a `conftest.py` that imports them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pytest

PROPERTY = "parity"
MOST_TIES = 0.03


@dataclass
class Tally:
    """Sums over configurations; `ties` counts those where a difference was excused by a tie on HF's side.

    `distorted` counts RAG-Sequence questions that cannot be compared: see `sequence_reference`. `beyond`
    counts hypotheses whose log-probabilities differ by more than 1e-4, where that is allowed; the `exact`
    differences are those from the same model's in float64.
    """

    kind: str = "token"
    model_type: str = "bart"
    configurations: int = 0
    ties: int = 0
    hypotheses: int = 0
    never_found: int = 0
    distorted: int = 0
    beyond: int = 0
    score_difference: float = 0.0
    log_prob_difference: float = 0.0
    doc_score_difference: float = 0.0
    exact_difference: float = 0.0  # ours
    reference_exact_difference: float = 0.0

    def as_property(self) -> dict[str, Any]:
        return asdict(self)

    def add(self, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            if name in ("kind", "model_type"):
                continue
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name.endswith("_difference") else mine + value)

    @property
    def too_many_ties(self) -> bool:
        return self.ties > MOST_TIES * self.configurations

    def __str__(self) -> str:
        return (
            f"{'' if self.model_type == 'bart' else self.model_type + ', '}"
            f"RAG-{self.kind.capitalize()}: {self.configurations} configurations, {self.ties} ties, "
            f"max |score difference| {self.score_difference:.1e} "
            f"(log-probability {self.log_prob_difference:.1e}, doc_score {self.doc_score_difference:.1e}), "
            f"{self.hypotheses} hypotheses, {self.never_found} that HF never found"
            + (f", {self.distorted} questions whose scores those distort" if self.distorted else "")
            + (f", {self.beyond} beyond 1e-4" if self.beyond else "")
            + (
                f"; from float64: ours {self.exact_difference:.1e}, HF {self.reference_exact_difference:.1e}"
                if self.exact_difference
                else ""
            )
        )


_TALLIES: dict[tuple[str, str], Tally] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, figures in report.user_properties:
            if name == PROPERTY and isinstance(figures, dict):
                key = figures["model_type"], figures["kind"]
                _TALLIES.setdefault(key, Tally(key[1], key[0])).add(figures)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TALLIES:
        terminalreporter.section("parity with transformers")
    for tally in _TALLIES.values():
        terminalreporter.write_line(str(tally))
        if tally.too_many_ties:
            terminalreporter.write_line(f"FAILED: more than {MOST_TIES:.0%} ties", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if any(tally.too_many_ties for tally in _TALLIES.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
