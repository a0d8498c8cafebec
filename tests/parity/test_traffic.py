"""What crosses from the device to the host in a step: a few candidates, whatever the options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ragengine import Generator
from ragengine.generation.decoders.base import StepOutputs
from ragengine.generation.model import GeneratorModel
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_bench.parity.pairs import full_options
from ragengine_export import export_checkpoint
from tests.support.searches import FEW_CANDIDATES, WHOLE_DISTRIBUTIONS

V, Q, D = 6000, 2, 5


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("traffic")
    spec = random_spec(1300, vocab_size=V, forced_bos=False, forced_eos=False)
    checkpoint = write_checkpoint(spec, folder)
    export_checkpoint(checkpoint.source, folder / "bundle", precision="fp32", check=False)
    return Generator.load(folder / "bundle", device="cpu")


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that each step brings to the host, a question."""
    found: list[int] = []
    decode_step = GeneratorModel.decode_step

    def counting(self: GeneratorModel, *args: Any, **settings: Any) -> Any:
        result = decode_step(self, *args, **settings)
        assert isinstance(result, StepOutputs)
        found.append(sum(array.size for array in vars(result).values()) // Q)
        return result

    monkeypatch.setattr(GeneratorModel, "decode_step", counting)
    return found


def run(generator: Generator, name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(5, V, (Q, D, 20))
    allowed = (lambda question, tokens: [2, 5, 9, 11]) if name == "allowed" else None
    generator.generate(
        ids,
        np.ones_like(ids),
        rng.normal(size=(Q, D)).astype(np.float32),
        full_options(max_length=12, **options),
        prefix_allowed_tokens_fn=allowed,
    )


@pytest.mark.parametrize("name", FEW_CANDIDATES)
def test_a_step_brings_a_few_candidates(generator: Generator, sizes: list[int], name: str) -> None:
    """Under every option less than a number for each token of the vocabulary, let alone [D, B, V]."""
    run(generator, name, FEW_CANDIDATES[name])
    assert sizes
    assert max(sizes) < V // 2


@pytest.mark.parametrize("name", WHOLE_DISTRIBUTIONS)
def test_only_whole_distributions_bring_whole_distributions(
    generator: Generator, sizes: list[int], name: str
) -> None:
    """And only for the call that draws from them."""
    run(generator, name, WHOLE_DISTRIBUTIONS[name])
    assert max(sizes) >= V
    sizes.clear()
    run(generator, "beams", FEW_CANDIDATES["beams"])
    assert max(sizes) < V // 2
