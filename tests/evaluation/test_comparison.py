"""Two systems on the same questions: what is compared, and by which test."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragengine.errors import InputError
from ragengine.evaluation import Measured, Prediction, Question, compare, report
from ragengine.evaluation.statistics import Resampling

QUICK = Resampling(resamples=200)
UNIT = st.floats(0, 1)


def measured(values: list[dict[str, float]]) -> list[Measured]:
    return [
        Measured(Question(f"q{number}", ("a",)), Prediction("a", 0.5, ()), row)
        for number, row in enumerate(values)
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), UNIT), min_size=1, max_size=20))
def test_equal_systems_differ_in_nothing(rows: list[tuple[float, float]]) -> None:
    one = measured([{"exact_match": em, "f1": f1} for em, f1 in rows])
    for table in compare(one, one, QUICK).values():
        assert (table.difference, table.p, table.interval) == (0, 1, (0, 0))


def test_a_comparison_is_over_what_both_have() -> None:
    first = measured([{"exact_match": 1.0, "f1": 1.0}, {"exact_match": 0.0, "f1": 0.5, "recall@9": 1.0}, {}])
    second = measured([{"exact_match": 0.0, "f1": 0.25}, {"exact_match": 0.0}, {}])
    tables = compare(first, second, QUICK)
    assert list(tables) == ["exact_match", "f1"]
    assert tables["exact_match"].test == "mcnemar"
    assert (tables["exact_match"].only_first, tables["exact_match"].only_second) == (1, 0)
    assert (tables["f1"].n, tables["f1"].difference, tables["f1"].test) == (1, -0.75, "permutation")
    with pytest.raises(InputError, match="different questions"):
        compare(first, second[:2], QUICK)


def test_bleu_of_two_systems_is_compared_as_the_reports_have_it() -> None:
    right = [f"the capital of country {number} is city {number}" for number in range(20)]
    asked = [Question(str(number), (text,)) for number, text in enumerate(right)]
    asked += [Question("pattern", (".",), regex=True), Question("unanswerable", ())]

    def system(texts: list[str]) -> list[Measured]:
        said = [Prediction(text, 0.5, ()) for text in (*texts, "x", "y")]
        return [Measured(question, one, {}) for question, one in zip(asked, said, strict=True)]

    good, bad = system(right), system([text.replace("the capital of", "in") for text in right])
    tables = compare(bad, good, QUICK, task="generation")
    assert list(tables) == ["bleu", "bleu-1"]
    for name, table in tables.items():
        first, second = (report(one, task="generation").figures[name] for one in (bad, good))
        assert (table.n, table.first, table.second) == (20, first, second)
        assert table.difference == second - first > 0
        assert (table.test, table.p) == ("bootstrap", 1 / 201)
        assert 0 < table.interval[0] <= table.difference <= table.interval[1]
    for table in compare(good, good, QUICK, task="generation").values():
        assert (table.difference, table.p, table.interval) == (0, 1, (0, 0))
    assert compare(bad, good, Resampling(0), task="generation")["bleu"].p is None
    assert compare(bad, good, QUICK) == {}
