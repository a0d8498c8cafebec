"""The options of `ragengine bench`.

Imports nothing heavy, so that --help and usage errors appear at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragengine_bench import peers
from ragengine_bench.harness.runs import Workload
from ragengine_bench.peers import Contender
from ragengine_bench.roofline.sizes import BYTES_PER_WEIGHT

AXES = ("beams", "documents", "source", "target", "batch", "threads", "precision")
PRECISIONS = tuple(BYTES_PER_WEIGHT)  # of `ragengine_export`, which imports torch
KINDS = {"token": "RAG-Token", "sequence": "RAG-Sequence, thorough"}
_NO_PEERS = "none"


@dataclass(frozen=True)
class Plan:
    """The options of `ragengine bench`."""

    shape: str | None
    bundles: tuple[Path, ...]
    index: Path | None
    questions: Path | None
    limit: int
    checkpoint: Path | None
    precisions: tuple[str, ...]
    kinds: tuple[str, ...]
    documents: int
    source_tokens: int
    num_beams: int
    target_tokens: int
    batch: int | None
    sweeps: tuple[str, ...]
    peers: tuple[str, ...]
    optimum_python: str | None
    openvino_python: str | None
    repeats: int
    threads: int
    patience: int

    @property
    def pythons(self) -> dict[str, str]:
        """The environments that were given for peers, by peer."""
        given = {"optimum": self.optimum_python, "openvino": self.openvino_python}
        return {peer: python for peer, python in given.items() if python}

    @property
    def workload(self) -> Workload:
        """What is generated where nothing is varied."""
        return Workload(1, self.documents, self.source_tokens, self.num_beams, self.target_tokens)

    def chosen(self, rows: Sequence[Contender]) -> list[Contender]:
        """The peers whose names were given; all where none was."""
        return [] if _NO_PEERS in self.peers else peers.matching(rows, self.peers)
