"""Contexts: a part of the questions, and the tokens that the mask shows."""

import numpy as np

from ragengine.generation.contexts import Contexts


def test_a_part_has_the_same_questions_in_every_array() -> None:
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 9, (4, 2, 3)), rng.integers(0, 2, (4, 2, 3))
    contexts = Contexts(ids, mask, rng.normal(size=(4, 2)).astype(np.float32))
    part = contexts[1:3]
    assert (len(contexts), len(part)) == (4, 2)
    np.testing.assert_array_equal(part.input_ids, ids[1:3])
    np.testing.assert_array_equal(part.attention_mask, mask[1:3])
    np.testing.assert_array_equal(part.log_prior, contexts.log_prior[1:3])


def test_what_the_mask_hides_is_no_token() -> None:
    contexts = Contexts(np.array([[[5, 6, 1]]]), np.array([[[1, 1, 0]]]), np.zeros((1, 1), np.float32))
    assert contexts.visible_ids.tolist() == [[[5, 6, -1]]]
