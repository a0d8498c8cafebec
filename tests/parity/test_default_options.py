"""With no options in the call: what a checkpoint says, wherever it says it, both sides do alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import RagSequenceForGeneration, RagTokenForGeneration
from transformers.generation import GenerationMixin

from ragengine import GenerationOptions, Generator
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_bench.parity.margins import RecordingBart
from ragengine_export import export_checkpoint
from ragengine_export.checkpoint import load_checkpoint
from ragengine_export.generation_defaults import generation_defaults

# transformers warns of the default length that these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")

CLASSES = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}
# Where a checkpoint can say it: config.json, the generator's part of it, generation_config.json; the first
# two with and without a generation_config.json beside them.
PLACES = ("config", "generator", "generation", "config alone", "generator alone")
READ = {
    "token": ("generation", "config alone", "generator alone"),
    "sequence": ("generator", "generator alone"),
}
VALUES: dict[str, Any] = {
    "max_length": 13, "max_new_tokens": 7, "min_length": 5, "min_new_tokens": 4, "num_beams": 3,
    "num_return_sequences": 2, "length_penalty": 0.5, "early_stopping": True, "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "bad_words_ids": [[7]],
    "suppress_tokens": [8], "begin_suppress_tokens": [9], "forced_bos_token_id": 0, "forced_eos_token_id": 2,
    "eos_token_id": 11, "bos_token_id": 12, "pad_token_id": 13, "decoder_start_token_id": 14,
    "do_sample": True, "temperature": 0.6, "top_k": 3, "top_p": 0.8, "typical_p": 0.7, "epsilon_cutoff": 0.01,
}  # fmt: skip
LENGTHS = {"max_length", "max_new_tokens", "min_length", "min_new_tokens"}
TOGETHER = {name: value for name, value in VALUES.items() if name not in LENGTHS}
SETTINGS: list[dict[str, Any]] = [{}, TOGETHER, *({name: VALUES[name]} for name in sorted(LENGTHS))]
SETTINGS += [{"max_length": 20}, {"max_length": 21}]
SETTINGS += [{"eos_token_id": 0}, {"eos_token_id": [2, 11]}, {"eos_token_id": []}, {"eos_token_id": None}]
SETTINGS += [{"forced_eos_token_id": None}, {"bos_token_id": None}]
SETTINGS += [{"min_length": 6, "min_new_tokens": 3}, {"min_length": 6, "min_new_tokens": 0}]
SETTINGS += [{"max_length": 9, "max_new_tokens": 4}]
ALONE: list[dict[str, Any]] = [{name: value} for name, value in TOGETHER.items()]
FAST = [
    pytest.param(kind, place, SETTINGS if place == READ[kind] else [VALUES], id=f"{kind}-{place}")
    for kind in CLASSES
    for place in PLACES
]
SLOW = [
    pytest.param(kind, place, SETTINGS + ALONE, id=f"{kind}-{place}-each", marks=pytest.mark.slow)
    for kind in CLASSES
    for place in PLACES
]
NEEDS_BEAMS = {"num_return_sequences", "length_penalty", "early_stopping"}
COMPARED = set(TOGETHER) - {"num_return_sequences", "eos_token_id", "bos_token_id", "pad_token_id"}
COMPARED -= {"decoder_start_token_id"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that seldom ends an answer, so that its longest shows."""
    spec = random_spec(
        5, tied=True, forced_bos=False, forced_eos=False, n_docs=2, eos_shift=-6.0, final_logits_bias=False
    )
    return write_checkpoint(spec, tmp_path_factory.mktemp("defaults")).source


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The generation configs that transformers searched with, after all its preparations."""
    found: list[dict[str, Any]] = []
    original = GenerationMixin._get_logits_processor

    def recording(self: Any, generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        values = {name: getattr(generation_config, name) for name in VALUES}
        for name in ("eos", "decoder_start"):
            tensor = getattr(generation_config, f"_{name}_token_tensor")
            values[f"{name}_token_id"] = None if tensor is None else tensor.tolist()
        found.append(values)
        return original(self, generation_config, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "_get_logits_processor", recording)
    return found


def saying(source: Path, folder: Path, kind: str, place: str, settings: dict[str, Any]) -> Path:
    """The checkpoint of ``kind`` with ``settings`` in ``place``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in source.iterdir():
        if path.name not in ("config.json", "generation_config.json"):
            (folder / path.name).symlink_to(path)
    config = json.loads((source / "config.json").read_text()) | {"architectures": [CLASSES[kind].__name__]}
    generation = json.loads((source / "generation_config.json").read_text())
    where = place.split()[0]
    {"config": config, "generator": config["generator"], "generation": generation}[where].update(settings)
    (folder / "config.json").write_text(json.dumps(config))
    if "alone" not in place:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def theirs(folder: Path, kind: str, prepared: list[dict[str, Any]]) -> dict[str, Any]:
    """What transformers did: the prepared config, how many rows it returned and how long the longest is."""
    prepared.clear()
    model = CLASSES[kind].from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(5, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    rows = model.generate(
        context_input_ids=ids,
        context_attention_mask=torch.ones_like(ids),
        doc_scores=torch.tensor([[0.3, 0.1]]),
        n_docs=2,
    )
    return prepared[0] | {"rows": rows.shape[0], "longest": rows.shape[1]}


def differences(expected: dict[str, Any], ours: GenerationOptions, kind: str) -> dict[str, Any]:
    shortest = expected["min_length"]
    if expected["min_new_tokens"]:
        shortest = max(shortest, 1 + expected["min_new_tokens"])
    eos = expected["eos_token_id"] or []
    # a search that may start again returns at most max_length: the prepared one is the limit
    pairs = {
        "longest": (expected["max_length"], ours.longest),
        "shortest": (max(shortest, 1), max(ours.shortest, 1)),
        "rows": (expected["rows"], ours.num_return_sequences),
        "eos_token_ids": (tuple(eos), ours.eos_token_ids),
        "decoder_start_token_id": (expected["decoder_start_token_id"], ours.decoder_start_token_id),
        "marginalize": (kind, ours.marginalize),
    }
    given = json.loads(json.dumps(ours.to_dict()))
    pairs |= {name: (expected[name], given[name]) for name in COMPARED}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@pytest.mark.parametrize(("kind", "place", "settings"), FAST + SLOW)
def test_defaults(
    source: Path,
    tmp_path: Path,
    prepared: list[dict[str, Any]],
    kind: str,
    place: str,
    settings: list[dict[str, Any]],
) -> None:
    """``settings`` one after the other, each in a checkpoint of its own."""
    wrong = {}
    for said in settings:
        given = dict(said)
        if NEEDS_BEAMS & set(given):
            given |= {"num_beams": 3}
        if kind == "token":  # transformers counts documents as questions there, and fails
            given.pop("encoder_no_repeat_ngram_size", None)
        folder = saying(source, tmp_path / "said", kind, place, given)
        expected = theirs(folder, kind, prepared)
        options, _ = generation_defaults(load_checkpoint(str(folder)))
        if found := differences(expected, options, kind):
            wrong[str(given)] = found
    assert not wrong


@pytest.mark.parametrize("kind", CLASSES)
def test_answers_without_options(source: Path, tmp_path: Path, kind: str) -> None:
    """The same tokens, as long as the default allows: 19 new ones of RAG-Token, 20 of RAG-Sequence."""
    folder = saying(source, tmp_path / "said", kind, "config", {})
    model = CLASSES[kind].from_pretrained(folder, dtype=torch.float32).eval()
    if kind == "sequence":
        model.rag.generator.__class__ = RecordingBart
        model.rag.generator.calls = []
    export_checkpoint(folder, tmp_path / "bundle", check=False)
    generator = Generator.load(tmp_path / "bundle", device="cpu", threads=1)
    for seed in range(5):
        rng = torch.Generator().manual_seed(seed)
        ids, scores = torch.randint(5, 300, (2, 9), generator=rng), torch.randn(1, 2, generator=rng)
        mask = torch.ones_like(ids)
        (row,) = model.generate(
            context_input_ids=ids, context_attention_mask=mask, doc_scores=scores, n_docs=2
        ).tolist()
        ((ours,),) = generator.generate(ids.numpy()[None], mask.numpy()[None], scores.numpy())
        assert ours.token_ids.tolist() == row[1:]
        assert len(row) == (20 if kind == "token" else 21)


@pytest.mark.parametrize("place", ["generation", "config alone", "generator alone"])
def test_max_new_tokens_of_rag_token_is_said_to_be_unread(source: Path, tmp_path: Path, place: str) -> None:
    folder = saying(source, tmp_path / "said", "token", place, {"max_new_tokens": 7})
    options, warnings = generation_defaults(load_checkpoint(str(folder)))
    assert options.max_new_tokens is None
    assert any("max_new_tokens=7" in warning for warning in warnings)
