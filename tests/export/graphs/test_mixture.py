"""The mixture in the graph beside the same sums in numpy, with computed and with given shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from ragengine.bundle.onnx_reader import BOOL, FLOAT, INT64, Value
from ragengine.bundle.signatures import MIXTURE_OUTPUTS, STEP_INPUTS, Signature, shape_inputs, sized
from ragengine.generation.decoders.base import StepInputs
from ragengine_export.graphs import mixture as mixture_module
from ragengine_export.graphs.decoder_step import StaticInputs, computed_shapes, given_shapes
from ragengine_export.graphs.mixture import Mixture
from ragengine_export.graphs.models import GraphOfSignature
from tests.support.table_model import TableModel, mixture

Q, D, B, V, C, PROBES = 2, 3, 4, 11, 6, 5
MIXED = ("log_weights", "beam_scores", "num_candidates", "probe_ids")
SPEC = TableModel().spec


def session(form: str, folder: Path) -> ort.InferenceSession:
    inputs = {"logits": Value(FLOAT, ("Q", "B", "D", V))} | {name: STEP_INPUTS[name] for name in MIXED}
    if form == "computed":
        inputs |= {"own_past": Value(BOOL, ("Q", "B", "P"))}
        inputs |= {"context_attention_mask": Value(INT64, ("Q", "D", "S"))}
    else:
        inputs |= {name: Value(INT64, (len(axes),)) for name, axes in shape_inputs(SPEC).items()}
        inputs |= {"best_scores": Value(FLOAT, ("Q", 1)), "slots": Value(INT64, ("B",))}
        inputs |= {"part_candidates": Value(INT64, (1,))}
    graph = GraphOfSignature("mixture", Signature(inputs, MIXTURE_OUTPUTS))
    op, given = graph.op, graph.inputs
    static = None
    if form == "computed":
        names = ("log_weights", "own_past", "context_attention_mask", "num_candidates", "probe_ids")
        shapes = computed_shapes(op, **{name: given[name] for name in names}, d_model=8, bias_heads=1)
    else:
        shapes = given_shapes(given)
        unused = given["slots"]
        static = StaticInputs(
            places=unused, context_bias=unused, best_scores=given["best_scores"], slots=given["slots"],
            part_candidates=given["part_candidates"],
        )  # fmt: skip
    values = [given[name] for name in MIXED]
    outputs = Mixture(V)(op, given["logits"], *values, shapes, static)
    ir.save(graph.model([outputs[name] for name in MIXTURE_OUTPUTS]), folder / "mixture.onnx")
    return ort.InferenceSession(str(folder / "mixture.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("form", "width"), [("computed", 4), ("given", 1024), ("given", 4), ("given", 3)])
def test_the_graph_is_the_sum_over_documents(
    form: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the candidates come from parts of the vocabulary, of which the last is not full."""
    monkeypatch.setattr(mixture_module, "PART_WIDTH", width)
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(Q, B, D, V)).astype(np.float32)
    weights = np.log(rng.dirichlet(np.ones(D), (Q, B))).astype(np.float32).transpose(0, 2, 1)
    weights[0, 1] = -np.inf  # a document left out
    scores = rng.normal(size=(Q, B)).astype(np.float32)
    scores[1, 2] = -np.inf  # no beam
    inputs = StepInputs(
        token_ids=np.zeros((Q, B), np.int64),
        beam_indices=np.zeros((Q, B), np.int64),
        log_weights=np.ascontiguousarray(weights),
        beam_scores=scores,
        num_candidates=C,
        probe_ids=rng.integers(0, V, (Q, B, PROBES)),
    )
    feeds: dict[str, Any] = {"logits": logits, "num_candidates": np.array([C])}
    feeds |= {name: getattr(inputs, name) for name in ("log_weights", "beam_scores", "probe_ids")}
    if form == "given":
        sizes = {"Q": Q, "D": D, "Q*D": Q * D, "B": B, "P": 1, "C": C, "probes": PROBES}
        feeds |= {name: np.array(sized(axes, sizes)) for name, axes in shape_inputs(SPEC).items()}
        feeds["best_scores"] = scores.max(axis=1, keepdims=True)
        feeds |= {"slots": 7 + np.arange(B), "part_candidates": np.array([min(C, width)])}
    else:
        feeds |= {"own_past": np.ones((Q, B, 1), bool), "context_attention_mask": np.ones((Q, D, 1), int)}
    run = session(form, tmp_path)
    wanted = {value.name for value in run.get_inputs()}
    found = run.run(list(MIXTURE_OUTPUTS), {name: feed for name, feed in feeds.items() if name in wanted})

    by_document = logits.transpose(0, 2, 1, 3).astype(np.float64)
    log_probs = by_document - np.logaddexp.reduce(by_document, axis=3, keepdims=True)
    with np.errstate(invalid="ignore"):
        expected = mixture(log_probs.astype(np.float32), inputs)
    np.testing.assert_allclose(found[0], expected.scores, atol=1e-4)
    np.testing.assert_array_equal(found[1], expected.beams)
    np.testing.assert_array_equal(found[2], expected.tokens)
    np.testing.assert_allclose(found[3], expected.log_probs, atol=1e-4)
    np.testing.assert_allclose(found[4], expected.probe_log_probs, atol=1e-4)
