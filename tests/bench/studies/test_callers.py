"""The study of callers and batches: every way asks every question once."""

from typing import Any

from ragengine_bench.parity.pairs import Pair
from ragengine_bench.studies.callers import ONE, ways

QUESTIONS = 37  # no multiple of a batch


class Asked:
    """Notes what an engine is asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def generate(self, questions: Any) -> None:
        self.calls.append(questions)


def test_every_way_asks_every_question_once() -> None:
    questions = [f"question {number}" for number in range(QUESTIONS)]
    for way in ways():
        asked = Asked()
        way.ask(asked, questions)
        given = [[call] if isinstance(call, str) else call for call in asked.calls]
        assert sorted(question for call in given for question in call) == sorted(questions), way.name
        largest = {"batches of 8": 8, "batches of 32": 32}.get(way.name, 1)
        assert max(map(len, given)) == largest, way.name


def test_a_row_has_a_ratio_and_the_stages_of_an_engine(pair: Pair) -> None:
    one, *_, batches = ways()
    for way in (one, batches):
        way.measure(pair.engine, pair.questions(0, 3))
    assert one.name == ONE
    assert list(one.cells(3, one))[2] == "1.00 x"
    for way in (one, batches):
        (stages,), (seconds,) = way.stages, way.seconds
        assert min(stages["decode"], stages["encode documents"]) > 0
        assert abs(sum(stages.values()) - seconds / 3) < 1e-9
