"""What the parity tests found, added up over the session: configurations, ties, the largest difference.

Tests hand their figures over as pytest's `user_properties`, which also arrive from pytest-xdist's workers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PROPERTY = "parity"
MOST_TIES = 0.03


@dataclass
class Tally:
    """Sums over configurations; `ties` counts those where a difference was excused by a tie on HF's side.

    `distorted` counts RAG-Sequence questions that cannot be compared: see `sequence_reference`.
    """

    kind: str = "token"
    configurations: int = 0
    ties: int = 0
    hypotheses: int = 0
    never_found: int = 0
    distorted: int = 0
    score_difference: float = 0.0
    log_prob_difference: float = 0.0
    doc_score_difference: float = 0.0

    def as_property(self) -> dict[str, Any]:
        return asdict(self)

    def add(self, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            if name == "kind":
                continue
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name.endswith("_difference") else mine + value)

    @property
    def too_many_ties(self) -> bool:
        return self.ties > MOST_TIES * self.configurations

    def __str__(self) -> str:
        return (
            f"RAG-{self.kind.capitalize()}: {self.configurations} configurations, {self.ties} ties, "
            f"max |score difference| {self.score_difference:.1e} "
            f"(log-probability {self.log_prob_difference:.1e}, doc_score {self.doc_score_difference:.1e}), "
            f"{self.hypotheses} hypotheses, {self.never_found} that HF never found"
            + (f", {self.distorted} questions whose scores those distort" if self.distorted else "")
        )
