"""Beams as arrays: taking, continuing and joining them keeps every beam's fields together."""

import numpy as np
import pytest

from ragengine import GenerationOptions
from ragengine.generation.search.beams import Beams
from ragengine.generation.search.candidates import DEAD, Candidates

OPTIONS = GenerationOptions(max_length=5, decoder_start_token_id=7)
Q, N, D = 2, 4, 3


@pytest.fixture
def beams() -> Beams:
    rng = np.random.default_rng(0)
    found = Beams.started(Q, N, D, OPTIONS)
    found.scores = rng.normal(size=(Q, N)).astype(np.float32)
    found.tokens[:, :, 1:] = rng.integers(0, 9, (Q, N, 4))
    found.log_probs[:] = rng.normal(size=found.log_probs.shape)
    found.lengths[:] = rng.integers(1, 6, (Q, N))
    return found


def test_empty_places_are_dead_and_started_ones_are_not() -> None:
    assert (Beams.empty(Q, N, D, OPTIONS).scores == DEAD).all()
    started = Beams.started(Q, N, D, OPTIONS)
    assert (started.scores == 0).all()
    assert (started.tokens[:, :, 0] == 7).all()
    assert (started.lengths == 1).all()


def test_take_keeps_fields_together(beams: Beams) -> None:
    places = np.array([[3, 0, 0], [1, 2, 3]])
    taken = beams.take(places)
    for q in range(Q):
        for new, old in enumerate(places[q]):
            assert taken.scores[q, new] == beams.scores[q, old]
            np.testing.assert_array_equal(taken.tokens[q, new], beams.tokens[q, old])
            np.testing.assert_array_equal(taken.log_probs[q, new], beams.log_probs[q, old])
            assert taken.lengths[q, new] == beams.lengths[q, old]
    taken.tokens[:] = 0
    assert beams.tokens.any()  # a copy


def test_a_candidate_continues_its_beam(beams: Beams) -> None:
    chosen = Candidates(
        scores=np.array([[-1.0, -2.0], [-3.0, -4.0]], np.float32),
        beams=np.array([[2, 2], [0, 3]]),
        tokens=np.array([[5, 6], [7, 8]]),
        log_probs=np.arange(Q * D * 2, dtype=np.float32).reshape(Q, D, 2),
    )
    longer = beams.continued(chosen, 3)
    np.testing.assert_array_equal(longer.scores, chosen.scores)
    np.testing.assert_array_equal(longer.tokens[:, :, 3], chosen.tokens)
    np.testing.assert_array_equal(longer.tokens[0, 1, :3], beams.tokens[0, 2, :3])
    np.testing.assert_array_equal(longer.log_probs[1, 1, 3], chosen.log_probs[1, :, 1])
    np.testing.assert_array_equal(longer.lengths[0], beams.lengths[0, [2, 2]] + 1)


def test_best_is_by_score_and_then_by_place() -> None:
    found = Beams.started(1, 4, 1, OPTIONS)
    found.scores = np.array([[-1, -0.5, -1, DEAD]], np.float32)
    assert found.best(4).tolist() == [[1, 0, 2, 3]]
    assert found.joined(found).best(3).tolist() == [[1, 5, 0]]


def test_outputs_leave_out_empty_places_and_the_start_token(beams: Beams) -> None:
    beams.scores[0, 1] = DEAD
    found = beams.outputs(3)
    assert [len(outputs) for outputs in found] == [2, 3]
    length = int(beams.lengths[0, 2])
    np.testing.assert_array_equal(found[0][1].token_ids, beams.tokens[0, 2, 1:length])
    assert found[0][1].log_probs.shape == (length - 1, D)
