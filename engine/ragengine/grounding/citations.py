"""Which sentence of which passage an answer's words are copied from."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ragengine.grounding.sentences import sentence_around
from ragengine.grounding.words import Word, distinct_words, words_of
from ragengine.results import Citation, Document

_SHORTEST = 4  # letters of a single word that is not the whole answer: shorter ones are everywhere
_READ = 20_000  # characters of a document that are looked through; no generator reads as many
_PLACES = 50  # of one run in a document that are compared


@dataclass(frozen=True)
class _Run:
    """``length`` words of the answer, which stand in a document's text from its word ``place`` on."""

    length: int
    document: int
    place: int


def cite(answer: str, question: str, documents: Sequence[Document]) -> tuple[Citation, ...]:
    """The sentences that hold the words of an answer, in the answer's order; none where no text has them.

    From each word on, the longest run of the answer's words that some document's text has is taken, from the
    document with the larger share of the answer where several have it, and there from the sentence with more
    words of the question.  Runs of one sentence are one citation.  Words are compared without case and
    accents; a single short word counts only where it is the whole answer.

    Args:
        answer: the answer's text.
        question: the question.
        documents: those that were read, with their ``posterior``.
    """
    wanted = words_of(answer)
    said = {word.folded for word in wanted}
    texts = [_words_with(said, document.text[:_READ]) for document in documents]
    search = _Search(wanted, distinct_words(question), documents, texts, [_places(t) for t in texts])
    citations: list[Citation] = []
    at = 0
    while at < len(wanted):
        run = search.longest_run(at, citations[-1] if citations else None)
        if run is None:
            at += 1
            continue
        found = search.citation(at, run)
        joined = _joined(citations[-1], found, documents) if citations else None
        if joined is None:
            citations.append(found)
        else:
            citations[-1] = joined
        at += run.length
    return tuple(citations)


@dataclass(frozen=True)
class _Search:
    wanted: list[Word]
    asked: set[str]
    documents: Sequence[Document]
    texts: list[list[Word]]
    places: list[dict[str, list[int]]]

    def longest_run(self, at: int, before: Citation | None) -> _Run | None:
        """The best run of the answer's words from ``at`` on, or None."""
        best: tuple[tuple[float, ...], _Run] | None = None
        for number, places in enumerate(self.places):
            starts = places.get(self.wanted[at].folded, ())
            lengths = {place: self._length(at, number, place) for place in starts}
            longest = max(lengths.values(), default=0)
            if longest == 0 or (best is not None and longest < best[1].length):
                continue
            for place in [place for place in starts if lengths[place] == longest][:_PLACES]:
                rank = (float(longest), *self._rank(number, place, longest, before), -number, -place)
                if best is None or rank > best[0]:
                    best = rank, _Run(longest, number, place)
        if best is None or not self._counts(at, best[1].length):
            return None
        return best[1]

    def citation(self, at: int, run: _Run) -> Citation:
        """The citation of ``run``, which begins with the answer's word ``at``."""
        own = self.wanted[at], self.wanted[at + run.length - 1]
        words = self.texts[run.document]
        return _citation(
            run.document,
            self.documents[run.document],
            (own[0].start, own[1].end),
            (words[run.place].start, words[run.place + run.length - 1].end),
        )

    def _length(self, at: int, number: int, place: int) -> int:
        """How many words of the answer from ``at`` on follow one another in a document from ``place`` on."""
        pairs = zip(self.wanted[at:], self.texts[number][place : place + len(self.wanted)], strict=False)
        same = itertools.takewhile(lambda pair: pair[0].folded == pair[1].folded, pairs)
        return sum(1 for _ in same)

    def _rank(self, number: int, place: int, length: int, before: Citation | None) -> tuple[float, ...]:
        """Whether it is in the sentence cited before, the document's share, the question's words there."""
        document, words = self.documents[number], self.texts[number]
        start, end = sentence_around(document.text, words[place].start, words[place + length - 1].end)
        same = before is not None and (number, start) == (before.document, before.sentence_start)
        first = bisect.bisect_left(words, start, key=lambda word: word.start)
        near = {word.folded for word in itertools.takewhile(lambda word: word.start < end, words[first:])}
        return float(same), document.posterior or 0.0, float(len(near & self.asked))

    def _counts(self, at: int, length: int) -> bool:
        """Whether a run is more than a short word that any text may hold."""
        word = self.wanted[at].folded
        whole = length == len(self.wanted)
        return whole or length > 1 or len(word) >= _SHORTEST or not word.isascii() or word.isdigit()


def _words_with(said: set[str], text: str) -> list[Word]:
    """The words of a text; none where it has none of those that were ``said``."""
    return [] if said.isdisjoint(distinct_words(text)) else words_of(text)


def _places(words: Sequence[Word]) -> dict[str, list[int]]:
    """Where each word stands."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word.folded, []).append(place)
    return places


def _joined(first: Citation, second: Citation, documents: Sequence[Document]) -> Citation | None:
    """One citation of two that follow each other in one sentence; else None."""
    place = first.document, first.sentence_start, first.sentence_end
    if place != (second.document, second.sentence_start, second.sentence_end):
        return None
    return _citation(
        first.document,
        documents[first.document],
        (first.answer_start, second.answer_end),
        (min(first.start, second.start), max(first.end, second.end)),
    )


def _citation(number: int, document: Document, answer: tuple[int, int], span: tuple[int, int]) -> Citation:
    start, end = span
    first, last = sentence_around(document.text, start, end)
    return Citation(
        document=number,
        start=start,
        end=end,
        text=document.text[start:end],
        sentence_start=first,
        sentence_end=last,
        sentence=document.text[first:last],
        answer_start=answer[0],
        answer_end=answer[1],
    )


def missing_words(answer: str, question: str, documents: Sequence[Document]) -> list[str]:
    """The words of an answer that neither a document nor the question has, as the answer writes them."""
    missing = {word.folded: answer[word.start : word.end] for word in words_of(answer)}
    read = (text for document in documents for text in (document.title, document.text[:_READ]))
    for text in (question, *read):
        if not missing:
            break
        for word in missing.keys() & distinct_words(text):
            del missing[word]
    return list(missing.values())
