"""Where an answer's words are copied from: exact places in any script, or none."""

import itertools
import string

import hypothesis
import hypothesis.strategies as st
import pytest

from ragengine import Citation, Document
from ragengine.grounding.citations import cite, missing_words
from ragengine.grounding.sentences import sentence_around
from ragengine.grounding.words import distinct_words, fold, folded_words, words_of

ICELAND = Document(
    "Iceland", "Iceland is an island. Its capital is Reykjavík. It lies in Europe.", posterior=0.7
)
NORWAY = Document(
    "Norway", "Norway's capital is Oslo; Reykjavik is not. Oslo lies on a fjord.", posterior=0.3
)


def cited(answer: str, *documents: Document, question: str = "Which?") -> list[tuple[int, str, str]]:
    return [(c.document, c.text, c.sentence) for c in cite(answer, question, documents)]


def test_an_answer_is_cited_with_its_sentence() -> None:
    assert cited("reykjavik", ICELAND, NORWAY) == [(0, "Reykjavík", "Its capital is Reykjavík.")]
    (citation,) = cite("Reykjavik", "?", [ICELAND])
    assert ICELAND.text[citation.start : citation.end] == citation.text
    assert (citation.answer_start, citation.answer_end) == (0, 9)


def test_the_document_with_the_larger_share_is_cited() -> None:
    other = Document("Norway", NORWAY.text, posterior=0.9)
    assert cited("Reykjavik", ICELAND, other)[0][0] == 1
    assert cited("Reykjavik", other, ICELAND)[0][0] == 0


def test_the_longest_run_goes_before_the_share() -> None:
    long = Document("", "The nearest place is North Uist.", posterior=0.1)
    short = Document("", "North is cold. Uist is an island.", posterior=0.9)
    assert cited("North Uist", short, long) == [(1, "North Uist", "The nearest place is North Uist.")]


def test_of_two_sentences_the_one_about_the_question() -> None:
    text = "Oslo has a river. Oslo is the capital. Oslo has a harbour."
    asked = "What is the capital?"
    assert cited("Oslo", Document("", text), question=asked) == [(0, "Oslo", "Oslo is the capital.")]


def test_parts_from_two_sentences_are_two_citations() -> None:
    document = Document("", "Its code is NOK. The money is the Norwegian krone.")
    assert cited("Norwegian krone, NOK1", document) == [
        (0, "Norwegian krone", "The money is the Norwegian krone.")
    ]
    found = cite("NOK and Norwegian krone", "?", [document])
    assert [c.text for c in found] == ["Norwegian krone"]  # a short word alone says nothing
    found = cite("code krone", "?", [document])
    assert [(c.text, c.answer_start, c.answer_end) for c in found] == [("code", 0, 4), ("krone", 5, 10)]


def test_runs_of_one_sentence_are_one_citation() -> None:
    document = Document("", "It borders Namibia in the west and Zimbabwe in the east.")
    (found,) = cite("Namibia, Zimbabwe", "?", [document])
    assert found.text == "Namibia in the west and Zimbabwe"
    assert (found.answer_start, found.answer_end) == (0, 17)


@pytest.mark.parametrize("answer", ["", " ", "?!", "Copenhagen", "Os", "of the"])
def test_what_no_passage_has_is_not_cited(answer: str) -> None:
    assert cite(answer, "?", [ICELAND, NORWAY]) == ()


@pytest.mark.parametrize(
    ("answer", "text", "span"),
    [
        ("東京", "日本の首都は東京です。人口は多い。", "東京"),
        ("ΑΘΉΝΑ", "Πρωτεύουσα είναι η Αθήνα.", "Αθήνα"),
        ("café", "It is a cafe\u0301 by the sea.", "cafe\u0301"),
        ("STRASSE", "Die Straße ist lang.", "Straße"),
        ("ﬁve", "There are five of them.", "five"),
        ("48.48° N", "Its latitude is 48.48° N.", "48.48° N"),
        ("กรุงเทพ", "เมืองหลวงคือกรุงเทพ", "กรุงเทพ"),
    ],
)
def test_places_are_exact_in_every_script(answer: str, text: str, span: str) -> None:
    found = cite(answer, "?", [Document("", text)])
    assert found
    assert found[0].text == span
    assert text[found[0].start : found[0].end] == span


TEXTS = st.text(
    alphabet=st.one_of(st.characters(), st.sampled_from(string.ascii_letters + " .!?\n。é́京")), max_size=80
)


@hypothesis.settings(max_examples=300)
@hypothesis.given(TEXTS, TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_every_citation_is_a_part_of_its_passage_and_of_the_answer(
    answer: str, question: str, texts: list[str]
) -> None:
    documents = [Document("", text, posterior=1 / len(texts)) for text in texts]
    found = cite(answer, question, documents)
    for citation in found:
        check(citation, answer, texts)
    ends = [0, *(citation.answer_end for citation in found)]
    starts = [citation.answer_start for citation in found]
    assert all(end <= start for end, start in zip(ends, starts, strict=False))  # in order, and disjoint


def check(citation: Citation, answer: str, texts: list[str]) -> None:
    text = texts[citation.document]
    first, last = citation.sentence_start, citation.sentence_end
    assert 0 <= first <= citation.start < citation.end <= last <= len(text)
    assert text[citation.start : citation.end] == citation.text
    assert text[first:last] == citation.sentence
    said = folded_words(answer[citation.answer_start : citation.answer_end])
    assert said
    assert set(said) <= set(folded_words(citation.text))


@hypothesis.settings(max_examples=300)
@hypothesis.given(TEXTS, TEXTS, TEXTS)
def test_an_answer_that_stands_in_a_passage_is_found_whole(before: str, answer: str, after: str) -> None:
    text = f"{before} | {answer} | {after}"
    hypothesis.assume(words_of(answer))
    found = cite(answer, "?", [Document("", text)])
    assert found
    covered = " ".join(answer[c.answer_start : c.answer_end] for c in found)
    assert folded_words(covered)[:1] == folded_words(answer)[:1]
    assert folded_words(covered)[-1:] == folded_words(answer)[-1:]


@hypothesis.given(TEXTS)
def test_words_stand_where_they_say(text: str) -> None:
    for word in words_of(text):
        assert fold(text[word.start : word.end]) == word.folded != ""


@hypothesis.given(TEXTS, st.characters(max_codepoint=127))
def test_words_are_the_same_beside_other_characters(text: str, ascii_character: str) -> None:
    ascii_text = f"{text.encode('ascii', 'ignore').decode()}{ascii_character}Oslo 12_b"
    beside = words_of(f"{ascii_text} \u00e9")  # not ASCII any more
    assert words_of(ascii_text) == beside[:-1]
    assert folded_words(ascii_text) == [word.folded for word in beside[:-1]]


@hypothesis.given(TEXTS)
@hypothesis.example("Łódź łódź LODZ a\u0301 \u0301 stra\u00dfe STRASSE 12")
@hypothesis.example("Oslo\u0085Łódź\u2028Oslo\u00a0\u3000東京 \x1c\u0301x y\u0301")
def test_distinct_words_are_those_of_the_list(text: str) -> None:
    assert distinct_words(text) == set(folded_words(text))


@hypothesis.given(TEXTS, st.data())
def test_sentences_hold_the_part(text: str, data: st.DataObject) -> None:
    hypothesis.assume(text)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    first, last = sentence_around(text, start, end)
    assert 0 <= first <= start < end <= last <= len(text)


@pytest.mark.parametrize(
    ("text", "part", "sentence"),
    [
        ("It is St. Helens. It rains.", "Helens", "It is St. Helens."),
        ("He is J. R. Tolkien. He wrote.", "Tolkien", "He is J. R. Tolkien."),
        ("It has 5.5 km. Then more.", "km", "It has 5.5 km."),
        ('He said "Go!" They went.', "went", "They went."),
        ("One line\nanother line", "another", "another line"),
        ("雨が降る。雪も降る。", "雪", "雪も降る。"),
        ("no end", "end", "no end"),
    ],
)
def test_a_sentence_ends_where_readers_see_it(text: str, part: str, sentence: str) -> None:
    start = text.index(part)
    first, last = sentence_around(text, start, start + len(part))
    assert text[first:last] == sentence


def test_missing_words_are_in_no_document_and_not_in_the_question() -> None:
    assert missing_words("Reykjavik, Island", "Which island?", [ICELAND]) == []
    assert missing_words("Kópavogur Reykjavik", "Which?", [ICELAND, NORWAY]) == ["Kópavogur"]
    assert missing_words("", "Which?", [ICELAND]) == []


@hypothesis.given(TEXTS, TEXTS, st.lists(st.tuples(TEXTS, TEXTS), max_size=3))
def test_missing_words_are_those_that_nothing_read_has(
    answer: str, question: str, read: list[tuple[str, str]]
) -> None:
    documents = [Document(title, text) for title, text in read]
    known = {word for text in (question, *itertools.chain(*read)) for word in folded_words(text)}
    expected = [word for word in dict.fromkeys(folded_words(answer)) if word not in known]
    assert [fold(word) for word in missing_words(answer, question, documents)] == expected


def test_a_very_long_passage_costs_little() -> None:
    repeated = Document("", "Oslo " * 200_000, posterior=1.0)
    (found,) = cite("Oslo Oslo", "?", [repeated])
    assert (found.start, found.end) == (0, 9)
