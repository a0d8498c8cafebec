"""The page's computations, by their modules in the browser."""

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.browser import Tab

pytestmark = pytest.mark.xdist_group("page")


def call(tab: "Tab", module: str, function: str, *arguments: Any) -> Any:
    told = ", ".join(map(json.dumps, arguments))
    return tab.evaluate(f"import('/page/{module}').then((module) => module.{function}({told}))")


def token(text: str, *posterior: float, log_prob: float | None = -0.1) -> dict[str, Any]:
    return {"text": text, "posterior": list(posterior) or [1.0], "log_prob": log_prob}


def test_words_know_their_tokens(tab: "Tab") -> None:
    cases: list[tuple[str, list[str], list[list[int]]]] = [
        (" Reykjavik", [" Re", "yk", "javik", "</s>"], [[0, 1, 2]]),
        (" a b", ["<s>", " a", " b", "</s>"], [[1], [2]]),
        ("a, b", ["a", ",", " b"], [[0, 1], [2]]),
        ("47° E", ["47", "\ufffd", "\ufffd", " E"], [[0, 1], [3]]),  # a character of two tokens
        ("der Fluss", ["der", "Fluss"], [[0], [1]]),  # tokens that lost their spaces
        ("it is.", ["it", " is", " ."], [[0], [1, 2]]),  # a space that was cleaned up
        ("", ["</s>"], []),
        ("東京 都", ["東京", " 都"], [[0], [1]]),
        ("so so so", [" so", " so", " so"], [[0], [1], [2]]),
        ("Reykjavik", [" Re", "yk", "javik", "</s>"], [[0, 1, 2]]),  # an answer begins without its space
        ("a b", ["<s>", " a", " b", "</s>"], [[1], [2]]),
    ]
    for text, tokens, expected in cases:
        words = call(tab, "words.js", "wordsOf", text, [token(one) for one in tokens])
        assert [word["tokens"] for word in words] == expected, (text, words)
        assert "".join(word["space"] + word["text"] for word in words) == text


def test_a_words_posterior_is_that_of_its_tokens(tab: "Tab") -> None:
    tokens = [token("a", 1, 0), token("b", 0.5, 0.5, log_prob=-0.2)]
    word = {"tokens": [0, 1]}
    assert call(tab, "words.js", "posteriorOf", word, tokens, "token") == [0.75, 0.25]
    assert call(tab, "words.js", "posteriorOf", word, tokens, "sequence") == [0.5, 0.5]
    assert call(tab, "words.js", "probabilityOf", word, tokens) == pytest.approx(0.7408, abs=1e-4)
    assert call(tab, "words.js", "probabilityOf", word, [tokens[0], token("b", 0, 1, log_prob=None)]) is None


def test_the_sentence_has_the_longest_part_of_the_answer(tab: "Tab") -> None:
    text = "Its area is 5 km. The island is North Uist. North of it is Harris. Élan lies there."
    sentences = call(tab, "sentences.js", "sentencesOf", text)
    assert "".join(sentences) == text
    assert len(sentences) == 4

    def found(words: str, number: int) -> int:
        place: int = call(tab, "sentences.js", "sentenceWith", sentences, words.split(), number)
        return place

    assert found("North Uist", 0) == 1  # not 2, which has only the word
    assert found("North Harris", 0) == 1
    assert found("harris.", 0) == 2
    assert found("elan", 0) == 3
    assert found("isl", 0) == -1  # a part of a word is not the word
    assert found("Skye", 0) == -1


def test_an_answer_is_doubted_as_the_server_says(tab: "Tab") -> None:
    answer = {"log_prob": -0.1, "confidence": 0.25, "notes": ["The answer is empty."]}
    found = call(tab, "confidence.js", "confidenceOf", answer)
    assert found["probability"] == pytest.approx(0.9048, abs=1e-4)
    assert (found["confidence"], found["warnings"]) == (0.25, ["The answer is empty."])
    older = call(tab, "confidence.js", "confidenceOf", {"log_prob": None, "notes": []})  # kept by the tab
    assert older == {"probability": None, "confidence": None, "warnings": []}


def test_numbers_are_never_rounded_to_certainty(tab: "Tab") -> None:
    cases = {
        0: "0 %",
        1e-9: "<0.1 %",
        0.012: "1.2 %",
        0.5: "50 %",
        0.994: "99 %",
        0.997: "99.7 %",
        1: "100 %",
    }
    for number, expected in cases.items():
        assert call(tab, "format.js", "percent", number) == expected
    assert call(tab, "format.js", "percent", 0.99996) == ">99.9 %"
    assert call(tab, "format.js", "percent", None) == "–"
