"""The parts of a bundle fit together, or the error lists every mismatch.

Every folder here is forged: its manifest lists its files with matching hashes.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from ragengine import Generator, RagEngine
from ragengine.bundle.bundle import Bundle
from ragengine.cli.main import cli
from ragengine.errors import BundleError, ExportError, InputError, OptionsError
from ragengine.retrieval.index import PassageIndex
from ragengine_bench.checkpoints.rag_checkpoint import write_checkpoint
from ragengine_export import export_checkpoint
from tests.robustness.forgery import Change, field, tokenizer
from tests.robustness.golden.make import SPEC
from tests.support.bundles import rewrite_manifest
from tests.support.paths import GOLDEN

FAULTS_BEFORE_THE_REST = 20


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "bundle_v2", tmp_path / "bundle"))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "index_v1", tmp_path / "index"))


def graph(name: str, edit: Callable[[onnx.GraphProto], object]) -> Change:
    """Change a graph, but not its external weights."""

    def change(folder: Path) -> None:
        model = onnx.load(str(folder / name), load_external_data=False)
        edit(model.graph)
        (folder / name).write_bytes(model.SerializeToString())

    return change


def rename(values: Any, old: str, new: str) -> None:
    next(value for value in values if value.name == old).name = new


def dims(initializers: Any, name: str, *sizes: int) -> None:
    """Give a tensor other dimensions with the same number of elements."""
    next(tensor for tensor in initializers if tensor.name == name).dims[:] = sizes


def axis(values: Any, name: str, place: int, size: int) -> None:
    value = next(value for value in values if value.name == name)
    value.type.tensor_type.shape.dim[place].dim_value = size


def element_type(values: Any, name: str, data_type: int) -> None:
    next(value for value in values if value.name == name).type.tensor_type.elem_type = data_type


DECODER, ENCODER, CROSS = (f"generator/{name}.onnx" for name in ("decoder", "encoder", "cross"))
QUESTIONS = "question_encoder/encoder.onnx"
WORDS = "question_encoder/tokenizer.json"

MISFITS: dict[str, tuple[Change, str]] = {
    "another dimension": (
        field("question_encoder.dimension", 9),
        "question_encoder/encoder.onnx: its output vectors is float32 [N, 8], float32 [N, 9] was expected",
    ),
    "more layers": (field("generator.num_decoder_layers", 2), f"{DECODER}: it has no input past_key_1"),
    "more heads": (
        field("generator.num_heads", 4),
        f"{CROSS}: its output cross_key_0 is float32 [Q*D, 2, S, 4], float32 [Q*D, 4, S, 4] was expected",
    ),
    "another head size": (field("generator.head_size", 8), f"{DECODER}: its input past_value_0 is float32"),
    "a larger vocabulary": (
        field("generator.vocab_size", 284),
        f"{DECODER}: its table lm_head.weight is [283, 8], by the manifest [284, 8]",
    ),
    "a smaller vocabulary": (
        field("generator.vocab_size", 250),
        "generator/tokenizer.json: it has the token 279, the model has 250 tokens",
    ),
    "more positions": (
        field("generator.max_positions", 81),
        f"{ENCODER}: its table model.encoder.embed_positions.weight is [82, 8], by the manifest [83, 8]",
    ),
    "prompts longer than the positions": (
        field("generator.tokenizer.max_length", 81),
        "generator.tokenizer.max_length is 81, generator.max_positions 80",
    ),
    "questions longer than the positions": (
        field("question_encoder.tokenizer.max_length", 65),
        "question_encoder.tokenizer.max_length is 65, question_encoder/encoder.onnx has 64 positions",
    ),
    "a pad beyond the vocabulary": (
        field("generator.pad_token_id", 283),
        "generator.pad_token_id is 283, the model has 283 tokens",
    ),
    "a tokenizer's pad beyond it": (
        field("question_encoder.tokenizer.pad_token_id", 200),
        "question_encoder.tokenizer.pad_token_id is 200, the model has 200 tokens",
    ),
    "a bos beyond the vocabulary": (
        field("generator.bos_token_id", 1000),
        "generator.bos_token_id is 1000, the model has 283 tokens",
    ),
    "an option that is wrong": (
        field("generation.num_beams", 0),
        "generation: Wrong generation options: num_beams",
    ),
    "an option that is unknown": (field("generation.beams", 4), "'beams' is not a generation option"),
    "an option beyond the vocabulary": (
        field("generation.eos_token_id", 283),
        "generation.eos_token_id is 283, the vocabulary has 283 tokens",
    ),
    "an option beyond the positions": (
        field("generation.max_length", 81),
        "generation.max_length is 81, the model has 80 positions",
    ),
    "an input of another name": (
        graph(DECODER, lambda g: rename(g.input, "position", "place")),
        f"{DECODER}: it has no input position; {DECODER}: it has the unknown input 'place'",
    ),
    "an output of another name": (
        graph(CROSS, lambda g: rename(g.output, "cross_value_0", "cross_value_1")),
        f"{CROSS}: it has no output cross_value_0; {CROSS}: it has the unknown output 'cross_value_1'",
    ),
    "one input more": (
        graph(ENCODER, lambda g: g.input.append(helper.make_tensor_value_info("secret", 1, []))),
        f"{ENCODER}: it has the unknown input 'secret'",
    ),
    "an axis of one size": (
        graph(DECODER, lambda g: axis(g.input, "token_ids", 1, 4)),
        f"{DECODER}: its input token_ids is int64 [Q, 4], int64 [Q, B] was expected",
    ),
    "an axis less": (
        graph(DECODER, lambda g: g.input[0].type.tensor_type.shape.dim.pop()),
        f"{DECODER}: its input token_ids is int64 [Q], int64 [Q, B] was expected",
    ),
    "any shape": (
        graph(DECODER, lambda g: g.input[0].type.tensor_type.ClearField("shape")),
        f"{DECODER}: its input token_ids is int64 of any shape",
    ),
    "another type": (
        graph(QUESTIONS, lambda g: element_type(g.input, "input_ids", TensorProto.INT32)),
        f"{QUESTIONS}: its input input_ids is type 6 [N, S], int64 [N, S] was expected",
    ),
    "one graph in float16": (
        graph(ENCODER, lambda g: element_type(g.output, "states", TensorProto.FLOAT16)),
        f"{CROSS}: its input states is float32 [Q*D, S, 8], float16 [Q*D, S, 8] was expected",
    ),
    "no head": (
        graph(DECODER, lambda g: rename(g.initializer, "lm_head.weight", "head")),
        f"{DECODER}: its table lm_head.weight is missing",
    ),
    "a head turned over": (
        graph(DECODER, lambda g: dims(g.initializer, "lm_head.weight", 8, 283)),
        f"{DECODER}: its table lm_head.weight is [8, 283]",
    ),
    "no table of words": (
        graph(QUESTIONS, lambda g: rename(g.initializer, "embeddings.word_embeddings.weight", "words")),
        f"{QUESTIONS}: it lacks the table embeddings.word_embeddings.weight",
    ),
    "weights of another folder": (
        graph(DECODER, lambda g: location(g, "../question_encoder/weights.bin")),
        "'../question_encoder/weights.bin', which the manifest does not list in this folder",
    ),
    "weights that end before": (
        lambda folder: (folder / "generator" / "weights.bin").write_bytes(b"\0" * 64),
        "generator/cross.onnx: tensor 'model.decoder.layers.0.encoder_attn",
    ),
    "a graph that is none": (
        lambda folder: (folder / DECODER).write_bytes(b"no graph"),
        f"{DECODER}: it cannot be read as a graph",
    ),
    "an empty graph": (
        lambda folder: (folder / DECODER).write_bytes(b""),
        f"{DECODER}: it cannot be read as a graph: there is none in it",
    ),
    "a token beyond the vocabulary": (
        tokenizer(WORDS, lambda t: t["model"]["vocab"].update(new=200)),
        f"{WORDS}: it has the token 200, the model has 200 tokens",
    ),
    "an added token beyond it": (
        tokenizer(WORDS, lambda t: t["added_tokens"][0].update(id=4_000_000_000)),
        f"{WORDS}: it has the token 4000000000",
    ),
    "a special token beyond it": (
        tokenizer(WORDS, lambda t: t["post_processor"]["special_tokens"]["[CLS]"].update(ids=[300])),
        f"{WORDS}: it has the token 300",
    ),
    "a tokenizer that is none": (
        lambda folder: (folder / WORDS).write_text("[1, 2]"),
        f"{WORDS}: it is not a tokenizer",
    ),
    "a tokenizer of texts": (
        tokenizer(WORDS, lambda t: t["model"].update(vocab={"a": "b"})),
        f"{WORDS}: it is not a tokenizer: its tokens are not numbers",
    ),
    "a tokenizer so deep": (
        lambda folder: (folder / WORDS).write_text("[" * 100_000),
        f"{WORDS}: it is not a tokenizer",
    ),
}


def location(graph: onnx.GraphProto, to: str) -> None:
    tensor = next(t for t in graph.initializer if t.data_location == TensorProto.EXTERNAL)
    next(entry for entry in tensor.external_data if entry.key == "location").value = to


@pytest.mark.parametrize("case", MISFITS)
def test_a_misfit_is_named_before_anything_is_loaded(bundle: Path, case: str) -> None:
    change, message = MISFITS[case]
    change(bundle)
    rewrite_manifest(bundle)
    for verify in ("sha256", "size"):
        with pytest.raises(BundleError) as caught:
            Bundle.open(bundle, verify=verify)
        assert message in str(caught.value)
        assert "does not fit together: " in str(caught.value)
        assert len(str(caught.value)) < 5000


def test_all_misfits_are_named_at_once(bundle: Path) -> None:
    cases = [
        "another dimension",
        "a bos beyond the vocabulary",
        "an option that is wrong",
        "a head turned over",
    ]
    cases += ["a token beyond the vocabulary", "prompts longer than the positions"]
    for case in cases:
        MISFITS[case][0](bundle)
    rewrite_manifest(bundle)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    for case in cases:
        assert MISFITS[case][1] in str(caught.value)


def test_very_many_mismatches_are_cut_and_counted(bundle: Path) -> None:
    field("generator.num_decoder_layers", 1000)(bundle)
    with pytest.raises(BundleError, match=r"cross_key_1; .*; and [0-9]{4,} more errors") as caught:
        Bundle.open(bundle)
    assert str(caught.value).count("it has no") == FAULTS_BEFORE_THE_REST


def test_a_checkpoint_that_does_not_fit_together_is_not_exported(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(dataclasses.replace(SPEC, vocab_size=270), tmp_path)
    reason = r"not fit together: generator/tokenizer\.json: it has the token 279, the model has 270 tokens"
    with pytest.raises(ExportError, match=reason):
        export_checkpoint(checkpoint.source, tmp_path / "bundle", check=False)
    assert not (tmp_path / "bundle").exists()


def test_a_graph_that_will_not_be_used_is_checked_too(bundle: Path) -> None:
    """A later version might use it, and every listed file is checked."""
    (bundle / "generator" / "extra.onnx").write_bytes((bundle / CROSS).read_bytes())
    graph("generator/extra.onnx", lambda g: location(g, "/etc/passwd"))(bundle)
    rewrite_manifest(bundle)
    with pytest.raises(BundleError, match=r"generator/extra\.onnx: tensor .* is in '/etc/passwd'"):
        Bundle.open(bundle)


def test_options_of_a_call_have_the_limits_of_the_defaults(bundle: Path) -> None:
    generator = Generator.load(bundle, device="cpu", threads=1)
    ids, scores = np.ones((1, 1, 3), np.int64), np.zeros((1, 1), np.float32)
    options = generator.default_options.replace(max_length=81, eos_token_id=283)
    with pytest.raises(OptionsError, match=r"max_length is 81, .* 80 positions; eos_token_id is 283"):
        generator.generate(ids, ids, scores, options)


@pytest.mark.parametrize("verify", ["md5", "", None, True, 1, ["sha256"]])
def test_an_unknown_way_to_verify_is_an_error(bundle: Path, index: Path, verify: Any) -> None:
    with pytest.raises(InputError, match=r"verify is .*; it must be 'sha256' or 'size'"):
        Bundle.open(bundle, verify=verify)
    with pytest.raises(InputError, match=r"verify is .*; it must be 'sha256' or 'size'"):
        PassageIndex.open(index, verify=verify)
    with pytest.raises(InputError, match=r"verify is .*; it must be 'sha256' or 'size'"):
        RagEngine.load(bundle, index=index, device="cpu", verify=verify)


def test_the_command_line_can_do_without_hashes(bundle: Path, index: Path) -> None:
    weights = bundle / "generator" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    command = ["ask", str(bundle), str(index), "who ?", "--json", "--device", "cpu", "--threads", "1"]
    with pytest.raises(BundleError, match=r"generator/weights\.bin has another sha256"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    answered = CliRunner().invoke(cli, [*command, "--verify", "size"], catch_exceptions=False)
    assert json.loads(answered.stdout)["question"] == "who ?"
    assert CliRunner().invoke(cli, [*command, "--verify", "md5"]).exit_code == 2
