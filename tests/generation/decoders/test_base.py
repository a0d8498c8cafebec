"""What both decoders share: whose past a beam continues, the shapes of a step, documents by themselves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ragengine.bundle.signatures import MIXTURE_OUTPUTS, array_of
from ragengine.generation.decoders.base import EncodedDocuments, StepInputs, StepOutputs, inherited


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.data())
def test_every_beam_inherits_the_past_of_its_parent(q: int, b: int, p: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    own_past = rng.integers(0, 2, (q, b, p)).astype(bool)
    parents = rng.integers(0, b, (q, 3))
    found = inherited(own_past, parents)
    assert found.shape == (q, 3, p)
    for question in range(q):
        for beam in range(3):
            np.testing.assert_array_equal(found[question, beam], own_past[question, parents[question, beam]])


def test_a_step_has_the_shapes_of_the_signature() -> None:
    q, d, b, c, probes = 2, 3, 4, 5, 6
    inputs = StepInputs(
        token_ids=np.zeros((q, b), np.int64),
        beam_indices=np.zeros((q, b), np.int64),
        log_weights=np.zeros((q, d, b), np.float32),
        beam_scores=np.zeros((q, b), np.float32),
        num_candidates=c,
        probe_ids=np.zeros((q, b, probes), np.int64),
    )
    sizes = {"Q": q, "D": d, "B": b, "C": c, "probes": probes}
    layouts = [array_of(value, sizes) for value in MIXTURE_OUTPUTS.values()]
    assert inputs.output_shapes == tuple(shape for shape, _ in layouts)
    outputs = StepOutputs(*(np.zeros(shape, dtype) for shape, dtype in layouts))
    assert outputs.shapes == inputs.output_shapes


def test_documents_by_themselves_are_questions_of_one_document() -> None:
    mask = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    encoded = EncodedDocuments(mask, {})
    alone = encoded.by_document()
    assert alone.context_attention_mask.shape == (6, 1, 4)
    np.testing.assert_array_equal(alone.context_attention_mask[4, 0], mask[1, 1])
    assert alone.memory is encoded.memory
    assert encoded.context_attention_mask.shape == (2, 3, 4)
