"""Every output gets its own probabilities, and every shared prefix is read once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.errors import CancelledError
from ragengine.generation.search.prefix_trie import output_log_probs
from ragengine.runtime.cancellation import Stop
from tests.support.table_model import START, TableModel, V

OUTPUTS = st.lists(st.lists(st.integers(0, V - 1), max_size=4), max_size=6)


def following(outputs: list[list[int]], depth: int) -> dict[tuple[int, ...], set[int]]:
    """Which tokens follow each prefix of ``depth`` tokens."""
    found: dict[tuple[int, ...], set[int]] = {}
    for tokens in outputs:
        if len(tokens) > depth:
            found.setdefault(tuple(tokens[:depth]), set()).add(tokens[depth])
    return found


@given(st.lists(OUTPUTS, min_size=1, max_size=3), st.integers(0, 99))
def test_the_log_probs_of_every_output(outputs: list[list[list[int]]], seed: int) -> None:
    model = TableModel(seed, q=len(outputs), d=2)
    given = [[np.array(tokens, np.int64) for tokens in own] for own in outputs]
    found = output_log_probs(model, model.encoded, given, [START] * model.q)
    for question, own in enumerate(outputs):
        for tokens, log_probs in zip(own, found[question], strict=True):
            assert log_probs.shape == (len(tokens), 2)
            for t, token in enumerate(tokens):
                for document in range(2):
                    expected = model.next_log_probs(2 * question + document, (START, *tokens[:t]))[token]
                    assert log_probs[t, document] == expected
    # Every prefix is read once, and no more is asked for than is needed.
    depths = max([len(tokens) for own in outputs for tokens in own], default=0)
    levels = [[following(own, depth) for own in outputs] for depth in range(depths)]
    widths = [max(map(len, level)) for level in levels]
    edges = [max(len(tokens) for nodes in level for tokens in nodes.values()) for level in levels]
    assert model.started == [(max(widths, default=1), depths)]
    assert [step.token_ids.shape[1] for step in model.steps] == widths
    assert [step.probe_ids.shape[2] for step in model.steps] == edges
    assert all(step.num_candidates == 1 for step in model.steps)


def test_a_stop_ends_it_between_two_steps() -> None:
    class Event:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 2

    model = TableModel(q=1)
    with pytest.raises(CancelledError, match="after 2 tokens"):
        output_log_probs(
            model,
            model.encoded,
            [[np.array([3, 3, 3, 3])]],
            [START],
            Stop(cancel=Event()),
        )
    assert len(model.steps) == 2
