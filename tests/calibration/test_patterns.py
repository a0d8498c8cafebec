"""Questions that ask in the same words are one group."""

from ragengine.calibration.patterns import question_patterns

NAMES = ("Oslo", "Bergen", "New York City", "Lima", "Cairo Airport", "Rome", "Bonn", "Graz")


def test_names_do_not_part_questions() -> None:
    wordings = ("What is the capital of {}?", "how many people live in {}?", "{} is in which country?")
    questions = [wording.format(name) for wording in wordings for name in NAMES]
    groups = question_patterns(questions).reshape(3, len(NAMES))
    assert [len(set(row)) for row in groups.tolist()] == [1, 1, 1]
    assert len(set(groups[:, 0].tolist())) == 3


def test_a_typing_error_joins_its_pattern() -> None:
    questions = [f"What is the capital of {name}?" for name in NAMES]
    groups = question_patterns([*questions, "Waht is the capital of Wien?", "Who leads the town?"])
    assert groups[-2] == groups[0] != groups[-1]


def test_questions_of_their_own_are_groups_of_their_own() -> None:
    groups = question_patterns(["alpha beta", "gamma delta", "", "?"])
    assert len(groups) == 4
    assert question_patterns(["only one"]).shape == (1,)
