"""ragengine, every stage timed while it does what it always does.

The stages are functions and methods of the engine; for the length of a run each is replaced by itself with
a clock around it.  What is left of the whole (`between`) is the host's part of the search and bookkeeping.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import ragengine.pipeline.stages
from ragengine import Generator, RagEngine
from ragengine.bundle.bundle import Bundle
from ragengine.generation.model import GeneratorModel
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.retriever import Retriever
from ragengine.runtime.devices import Device, ResolvedDevice
from ragengine_bench.roofline.roofline import RunSizes, StepSizes

# stage -> where it is, in the order of Figure 1
STAGES: dict[str, tuple[Any, str]] = {
    "tokenise question": (Retriever, "_tokenize"),
    "encode question": (Retriever, "encode"),
    "search": (PassageIndex, "search"),
    "fetch passages": (PassageIndex, "passages"),
    "tokenise documents": (ragengine.pipeline.stages, "build_prompts"),
    "encode documents": (GeneratorModel, "encode_documents"),
    "decode": (GeneratorModel, "decode_step"),
    "detokenise": (ragengine.pipeline.stages, "build_answer"),
}
CROSS = "cross-attention keys, values"
STATIC_STAGES = STAGES | {CROSS: (GeneratorModel, "start")}
"""Those of the static decoder, which projects what it reads when a search starts."""
BETWEEN = "between"


@dataclass
class StageTimes:
    """Seconds of every call of every stage of one run, and the sizes its roofline follows from."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    sizes: RunSizes = field(default_factory=RunSizes)

    def note_sizes(self, stage: str, arguments: tuple[Any, ...]) -> None:
        """Keep the sizes that ``stage`` was called with; the first argument is the object."""
        if stage == "encode question":
            self.sizes.questions.append([len(tokens.ids) for tokens in arguments[1]])
        elif stage == "encode documents":
            self.sizes.documents.append((arguments[2] != 0).sum(axis=2).ravel().tolist())
        elif stage == "decode":
            mask, beams = arguments[1].encoded.context_attention_mask, arguments[2].token_ids.shape[1]
            documents = mask.shape[0] * mask.shape[1]
            self.sizes.steps.append(StepSizes(documents, int((mask != 0).sum()), beams, arguments[1].length))

    def reply(self, seconds: float, outputs: list[Any], tokens: int) -> dict[str, Any]:
        """The reply to the parent, which makes a sample of it."""
        stages = {name: sum(values) for name, values in self.seconds.items()}
        return {
            "seconds": seconds,
            "stages": stages | {BETWEEN: seconds - sum(stages.values())},
            "step_seconds": self.seconds.get("decode", []),
            "sizes": asdict(self.sizes),
            "outputs": outputs,
            "tokens": tokens,
        }


@contextmanager
def timed_stages(stages: Mapping[str, tuple[Any, str]] = STAGES) -> Iterator[StageTimes]:
    """Time every stage that runs inside."""
    record = StageTimes()
    with ExitStack() as stack:
        for stage, (owner, name) in stages.items():
            stack.enter_context(patch.object(owner, name, _timed(stage, getattr(owner, name), record)))
        yield record


def _timed(stage: str, function: Callable[..., Any], record: StageTimes) -> Callable[..., Any]:
    def timed(*arguments: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **settings)
        record.seconds.setdefault(stage, []).append(time.perf_counter() - start)
        record.note_sizes(stage, arguments)
        return result

    return timed


def load_generator(
    bundle: str | Path | Bundle, device: ResolvedDevice, threads: int, *, cuda_graphs: bool, static: bool
) -> Generator:
    """A generator; ``static`` takes the decoder of a GPU on a CPU too."""
    generator = Generator.load(bundle, device, threads, cuda_graphs=cuda_graphs)
    if static and device == "cpu":
        generator._model = GeneratorModel(generator.bundle, device="cpu", threads=threads, decoder="static")
    return generator


class RagengineGenerator:
    """`Generator.generate` from documents that are tokens already."""

    def __init__(
        self,
        bundle: str,
        threads: int,
        device: ResolvedDevice = "cpu",
        cuda_graphs: bool = True,
        static: bool = False,
    ) -> None:
        self._generator = load_generator(bundle, device, threads, cuda_graphs=cuda_graphs, static=static)
        self._stages = STATIC_STAGES if static else STAGES

    def prepare(self, arrays: str, options: dict[str, Any]) -> None:
        """Take ids [Q, D, S], mask and scores from a file, and search with ``options``."""
        with np.load(arrays, allow_pickle=False) as given:
            self._arrays = given["ids"], given["mask"], given["scores"]
        self._options = self._generator.default_options.replace(**options)

    def generate(self, one_by_one: bool = False) -> dict[str, Any]:
        """Search for all questions in one batch, or one after the other."""
        ids, mask, scores = self._arrays
        size = 1 if one_by_one else len(ids)
        parts = [slice(start, start + size) for start in range(0, len(ids), size)]
        with timed_stages(self._stages) as record:
            start = time.perf_counter()
            found = [
                hypotheses[0].token_ids.tolist()
                for part in parts
                for hypotheses in self._generator.generate(ids[part], mask[part], scores[part], self._options)
            ]
            seconds = time.perf_counter() - start
        return record.reply(seconds, found, sum(map(len, found)))


def load_engine(
    bundle: str | Path, index: str | Path, device: ResolvedDevice, threads: int, *, static: bool = False
) -> RagEngine:
    """As `RagEngine.load`, but an index that ``device`` cannot search is searched on the CPU."""
    search_device: Device = "cpu" if device == "cpu" else "auto"
    engine = RagEngine.load(bundle, index, device, threads, search_device=search_device)
    if static and device == "cpu":
        engine.generator.close()
        engine.generator = load_generator(bundle, device, threads, cuda_graphs=True, static=True)
    return engine


class RagengineRag:
    """`RagEngine.generate`: from questions to answers."""

    def __init__(
        self, bundle: str, index: str, threads: int, device: ResolvedDevice = "cpu", static: bool = False
    ) -> None:
        self._engine = load_engine(bundle, index, device, threads, static=static)
        self._stages = STATIC_STAGES if static else STAGES

    def placement(self) -> str:
        """Where the index is searched, and why."""
        return str(self._engine.retriever.index.placement)

    def ask(
        self,
        questions: list[str],
        options: dict[str, Any],
        one_by_one: bool = False,
        reading: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Answer questions in one batch, or one after the other.

        ``reading`` are arguments of :meth:`RagEngine.generate` that say how many documents are read.
        """
        chosen, given = self._engine.default_options.replace(**options), reading or {}
        with timed_stages(self._stages) as record:
            start = time.perf_counter()
            if one_by_one:
                answers = [self._engine.generate(question, options=chosen, **given) for question in questions]
            else:
                answers = self._engine.generate(questions, options=chosen, **given)
            seconds = time.perf_counter() - start
        tokens = sum(len(answer.hypotheses[0].token_ids) for answer in answers)
        return record.reply(seconds, [answer.raw_text for answer in answers], tokens)
