"""The models that are measured: random ones of a shape, or given bundles."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragengine.bundle.bundle import Bundle
from ragengine_bench import peers
from ragengine_bench.checkpoints.random_checkpoint import GENERATOR, RAG, write_random_checkpoint
from ragengine_bench.checkpoints.shapes import SHAPES
from ragengine_bench.peers import Contender
from ragengine_export import export_checkpoint
from ragengine_export.export import PRECISIONS
from ragengine_export.weights import Precision

Say = Callable[[str], None]


@dataclass
class RandomModel:
    """A random checkpoint of a shape in ``folder``, written and exported when it is first needed."""

    name: str
    folder: Path
    threads: int
    say: Say
    _bundles: dict[str, Path] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        return SHAPES[self.name].vocabulary

    @property
    def positions(self) -> int:
        return SHAPES[self.name].positions

    @property
    def title(self) -> str:
        return f"{self.name} shape, random weights"

    def generators(self, precisions: Sequence[str], threads: int | None = None) -> list[Contender]:
        """ragengine in each of ``precisions``."""
        return [
            peers.generator(f"ragengine {precision}", self._bundle(precision), threads or self.threads)
            for precision in precisions
        ]

    def peers(self, marginalize: str, pythons: Mapping[str, str]) -> list[Contender]:
        """Everything else on the same weights."""
        folder = self._checkpoint()
        config = json.loads((folder / RAG / "config.json").read_text("utf-8"))
        return peers.generation_peers(
            folder / RAG,
            folder / GENERATOR,
            self.threads,
            min(config["max_combined_length"], self.positions),
            marginalize,
            pythons,
        )

    def _bundle(self, precision: str) -> Path:
        if precision not in self._bundles:
            path = self.folder / f"{self.name}-{precision}"
            checkpoint = self._checkpoint()
            self.say(f"exporting {self.name} in {precision}")
            export_checkpoint(checkpoint / RAG, path, _precision(precision), check=False)
            self._bundles[precision] = path
        return self._bundles[precision]

    def _checkpoint(self) -> Path:
        path = self.folder / f"{self.name}-checkpoint"
        if not path.exists():
            self.say(f"writing a random {self.name} model")
            write_random_checkpoint(SHAPES[self.name], path)
        return path


@dataclass(frozen=True)
class BundleModel:
    """Exported models that share an index: one of several precisions."""

    paths: tuple[Path, ...]
    index: Path
    threads: int

    @property
    def title(self) -> str:
        return "trained model"

    def precisions(self) -> list[str]:
        """The precision of each bundle."""
        return [Bundle.open(path, verify="size").manifest.precision for path in self.paths]

    def engines(self) -> list[Contender]:
        """ragengine from text to text, with every bundle."""
        rows = zip(self._names(), self.paths, strict=True)
        return [peers.rag(name, path, self.index, self.threads) for name, path in rows]

    def _names(self) -> list[str]:
        """By precision; bundles of the same one by their folder too."""
        found = self.precisions()
        return [
            f"ragengine {p}" if found.count(p) == 1 else f"ragengine {p}, {path.name}"
            for p, path in zip(found, self.paths, strict=True)
        ]

    def generators(self, precisions: Sequence[str], threads: int | None = None) -> list[Contender]:
        """Their generators alone; ``precisions`` is ignored, each has its own."""
        rows = zip(self._names(), self.paths, strict=True)
        return [peers.generator(name, path, threads or self.threads) for name, path in rows]

    @property
    def vocabulary(self) -> int:
        return Bundle.open(self.paths[0], verify="size").manifest.generator.vocab_size

    @property
    def positions(self) -> int:
        return Bundle.open(self.paths[0], verify="size").manifest.generator.longest


def _precision(name: str) -> Precision:
    return next(precision for precision in PRECISIONS if precision == name)
