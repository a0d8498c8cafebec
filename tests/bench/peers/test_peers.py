"""The engines of the benchmark do the same work: same inputs, same search, same answers where they can be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import ExportError
from ragengine_bench import peers
from ragengine_bench.checkpoints.random_checkpoint import GENERATOR, RAG, write_random_checkpoint
from ragengine_bench.checkpoints.shapes import SHAPES
from ragengine_bench.harness.runs import Workload
from ragengine_bench.parity.pairs import Pair
from ragengine_bench.peers.ragengine import STAGES, RagengineGenerator, RagengineRag
from ragengine_bench.peers.transformers import TransformersGenerator, TransformersRag
from ragengine_export import export_checkpoint
from tests.support.paths import WORLDFACTS

LOAD = Workload(batch=2, documents=3, source=9, beams=3, target=7)


@pytest.fixture(scope="module", params=["tiny", "tiny-t5", "tiny-mbart"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, shape = tmp_path_factory.mktemp("tiny"), SHAPES[request.param]
    write_random_checkpoint(shape, folder)
    export_checkpoint(folder / RAG, folder / "bundle", check=False)
    LOAD.write(folder / "inputs.npz", shape.vocabulary)
    return folder


def _prepared(engine: Any, folder: Path, options: dict[str, Any], **preparation: Any) -> Any:
    engine.prepare(str(folder / "inputs.npz"), options, **preparation)
    return engine


@pytest.mark.parametrize("marginalize", ["token", "sequence"])
def test_transformers_and_ragengine_give_the_same_tokens(folder: Path, marginalize: str) -> None:
    options = {**LOAD.options, "marginalize": marginalize}
    ours = _prepared(RagengineGenerator(str(folder / "bundle"), 1), folder, options).generate()
    theirs = TransformersGenerator(str(folder / RAG), 1, "fp32", marginalize)
    found = _prepared(theirs, folder, options, pad_to=0).generate()["outputs"]
    assert ours["outputs"] == found
    assert [len(output) for output in found] == [LOAD.target - 1] * LOAD.batch
    if (
        marginalize == "token"
    ):  # RAG-Sequence of transformers 5 reads the padding (docs/concepts/transformers.md)
        assert _prepared(theirs, folder, options, pad_to=20).generate()["outputs"] == found


def test_autocast_searches_as_long(folder: Path) -> None:
    engine = TransformersGenerator(str(folder / RAG), 1, "bf16 autocast", "token")
    found = _prepared(engine, folder, LOAD.options, pad_to=0).generate()["outputs"]
    assert [len(output) for output in found] == [LOAD.target - 1] * LOAD.batch


def test_a_batch_and_one_by_one_give_the_same_tokens(folder: Path) -> None:
    engine = _prepared(RagengineGenerator(str(folder / "bundle"), 1), folder, LOAD.options)
    together, alone = engine.generate(), engine.generate(one_by_one=True)
    assert together["outputs"] == alone["outputs"]
    assert together["tokens"] == LOAD.batch * (LOAD.target - 1)
    sizes = together["sizes"]
    assert sizes["documents"] == [[LOAD.source] * LOAD.batch * LOAD.documents]
    rows = LOAD.batch * LOAD.documents
    first, second = sizes["steps"][:2]
    assert tuple(first) == (rows, rows * LOAD.source, 1, 1)
    assert tuple(second) == (rows, rows * LOAD.source, LOAD.beams, 2)
    assert alone["sizes"]["documents"] == [[LOAD.source] * LOAD.documents] * LOAD.batch


def test_stages_are_there_and_put_back(folder: Path) -> None:
    before = [getattr(owner, name) for owner, name in STAGES.values()]
    engine = _prepared(RagengineGenerator(str(folder / "bundle"), 1), folder, LOAD.options)
    reply = engine.generate()
    assert [getattr(owner, name) for owner, name in STAGES.values()] == before
    assert set(reply["stages"]) == {"encode documents", "decode", "between"}
    assert all(seconds > 0 for seconds in reply["stages"].values())
    assert len(reply["step_seconds"]) == LOAD.target - 1


def test_ctranslate2_searches_every_document(folder: Path) -> None:
    pytest.importorskip("ctranslate2")
    from ragengine_bench.peers.ctranslate2 import Ctranslate2Generator

    engine = Ctranslate2Generator(str(folder / GENERATOR), 1, "float32")
    found = _prepared(engine, folder, LOAD.options).generate()["outputs"]
    assert [len(output) for output in found] == [LOAD.target - 1] * LOAD.batch * LOAD.documents


def test_contenders_say_what_they_leave_out() -> None:
    found = peers.generation_peers(Path("rag"), Path("bart"), 2, 300, "token", {})
    less = {peer.name for peer in found if peer.does_less}
    assert less == {"CTranslate2 float32", "CTranslate2 int8", "optimum-onnx fp32", "OpenVINO int8"}
    assert len({peer.name for peer in found}) == len(found) == 9
    assert len({peer.process for peer in found}) == 7  # both paddings share an engine
    sequence = peers.generation_peers(Path("rag"), Path("bart"), 2, 300, "sequence", {})
    assert not any(peer.does_less for peer in sequence)
    assert [peer.name for peer in peers.matching(found, ["CTRANSLATE2 int8"])] == ["CTranslate2 int8"]
    assert peers.matching(found, []) == found


def test_transformers_answers_questions_from_the_same_index(pair: Pair) -> None:
    questions, options = pair.questions(7, 3), {"num_beams": 3, "max_length": 9}
    index = pair.bundle.parent / "index"
    found = TransformersRag(str(pair.checkpoint.source), str(index), 1, "fp32").ask(questions, options)
    chosen = pair.engine.default_options.replace(**options)
    assert found["outputs"] == [answer.raw_text for answer in pair.engine.generate(questions, options=chosen)]


def test_a_checkpoint_of_a_stranger_is_checked_as_for_export(pair: Pair, tmp_path: Path) -> None:
    source = Path(shutil.copytree(pair.checkpoint.source, tmp_path / "source"))
    config = json.loads((source / "config.json").read_text("utf-8"))
    (source / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Model"}}))
    with pytest.raises(ExportError, match="brings code of its own"):
        TransformersRag(str(source), str(pair.bundle.parent / "index"), 1, "fp32")


def test_rows_that_read_fewer_documents_give_the_answers_of_all() -> None:
    """Of worldfacts, whose first documents answer; their stages say that fewer were read."""
    whole = peers.rag("ours", WORLDFACTS / "bundle", WORLDFACTS / "index", 1)
    engine = RagengineRag(**whole.settings)
    questions = ["What is the capital of Iceland?", "What is the capital of Kenya?"]
    replies = {
        row.name: engine.ask(questions, {}, one_by_one=True, **row.arguments)
        for row in (whole, *peers.fewer_documents(whole, "token"))
    }
    assert list(replies) == [
        "ours",
        "ours, doc_pruning 0.001",
        "ours, greedy",
        "ours, greedy, adaptive_reading",
    ]
    assert len({tuple(reply["outputs"]) for reply in replies.values()}) == 1
    read = [
        sum(map(len, reply["sizes"]["documents"])) for reply in replies.values()
    ]  # adaptive reading may read more in a second go
    assert read[1] < read[0] == read[2] > read[3]


def test_adaptive_reading_has_no_row_of_rag_sequence() -> None:
    whole = peers.rag("ours", WORLDFACTS / "bundle", WORLDFACTS / "index", 1)
    (pruned,) = peers.fewer_documents(whole, "sequence")
    assert pruned.does_less == "documents with p(z|x) under 0.001 are not read"
