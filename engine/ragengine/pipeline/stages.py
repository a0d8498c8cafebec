"""The stages of a call, Figure 1 of the paper: from questions to what the generator reads, and to answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.confidence.corpus import Corpus
from ragengine.errors import ShardError
from ragengine.generation.generator import Generator
from ragengine.generation.search.rules import AllowedTokens
from ragengine.options import GenerationOptions
from ragengine.pipeline.answers import build_answer
from ragengine.pipeline.assessment import Evidence
from ragengine.pipeline.documents import (
    Documents,
    PassageScorer,
    SelectedDocuments,
    checked_filter,
    checked_pruning,
    given_documents,
    select_documents,
)
from ragengine.pipeline.labels import GivenAnswer, build_labels
from ragengine.pipeline.prepared import Asked, PreparedQuestion
from ragengine.pipeline.prompts import Prompts, build_prompts
from ragengine.pipeline.settings import OwnDocuments
from ragengine.pipeline.streaming import AnswerStream
from ragengine.results import Answer, Document, Hypothesis
from ragengine.retrieval.encoder import EncodedQuestions
from ragengine.retrieval.passage_filter import Filter, PassageFilter
from ragengine.retrieval.retriever import Retriever
from ragengine.retrieval.searching import search_index
from ragengine.runtime.cancellation import Stop
from ragengine.runtime.stage_clock import StageClock
from ragengine.tokenization import Tokenizer
from ragengine.validation import checked_flag


@dataclass(frozen=True)
class Wanted:
    """Which documents a call reads.

    n_docs       how many are searched for
    own          the caller's own, for each question, which are then not searched for
    doc_pruning  the prior under which one is left out
    passages     what is searched; None: all passages
    """

    n_docs: int
    own: Documents | None = None
    doc_pruning: float | None = None
    passages: PassageFilter | None = None

    @classmethod
    def checked(
        cls,
        asked: Asked,
        n_docs: int,
        documents: OwnDocuments = None,
        doc_pruning: float | None = None,
        filter: Filter | None = None,
    ) -> "Wanted":
        """From the arguments of a call; raises :class:`InputError` for what cannot be used."""
        own = given_documents(documents, len(asked.texts), single=asked.single)
        return cls(n_docs, own, checked_pruning(doc_pruning), checked_filter(filter, own))

    def said(self) -> dict[str, Any]:
        """What an answer says of it."""
        return {
            "doc_pruning": self.doc_pruning,
            "passages": self.passages,
            "own_documents": self.own is not None,
        }


class Stages:
    """What a :class:`RagEngine` computes with, once the arguments of a call are checked."""

    def __init__(
        self, bundle: Bundle, retriever: Retriever, scorer: PassageScorer, tokenizer: Tokenizer
    ) -> None:
        self._manifest, self._fingerprint = bundle.manifest, bundle.fingerprint
        self._retriever = retriever
        self._scorer = scorer
        self._tokenizer = tokenizer

    def encode(self, asked: Asked, stop: Stop) -> EncodedQuestions:
        """The questions as the index and the generator take them."""
        return asked.encoded() or self._retriever._encode_questions(asked.texts, stop)

    def search(
        self, asked: Asked, questions: EncodedQuestions, wanted: Wanted, stop: Stop
    ) -> SelectedDocuments:
        """The documents of every question with p(z | x)."""
        stop.check("before the search")
        corpora: tuple[Corpus | None, ...] = ()
        missing: tuple[tuple[str, ...], ...] = ()
        if wanted.own is not None:
            found = self._scorer.scored(wanted.own, questions.vectors, stop)
        elif (prepared := asked.found(wanted.n_docs, wanted.passages)) is not None:
            found, corpora, missing = prepared, asked.corpora(), asked.missing()
        else:
            with self._retriever.borrow_index() as index:
                result = search_index(index, questions.vectors, wanted.n_docs, wanted.passages, stop)
            found = result.documents
            corpora, missing = (result.corpus,) * len(found), (result.missing,) * len(found)
        selected = replace(select_documents(found, wanted.doc_pruning, corpora), missing=missing)
        stop.check("after the search")
        return selected

    def tokenize(self, questions: EncodedQuestions, selected: SelectedDocuments, stop: Stop) -> Prompts:
        """Every question joined with each of its documents, as tokens."""
        return build_prompts(self._manifest.rag, self._tokenizer, questions, selected, stop)

    def prompts(self, asked: Asked, wanted: Wanted, stop: Stop) -> Prompts:
        """All of the stages above."""
        questions = self.encode(asked, stop)
        selected = self.search(asked, questions, wanted, stop)
        if missing := sorted({name for names in selected.missing for name in names}):
            raise ShardError(
                f"An answer's probability cannot be given without {', '.join(missing)}; start its servers."
            )
        return self.tokenize(questions, selected, stop)

    def prepare(self, texts: list[str], counts: Sequence[int], stop: Stop) -> list[PreparedQuestion]:
        """Encode and search ``texts`` together, each for its number of documents."""
        encoded = self._retriever._encode_questions(texts, stop)
        clock = StageClock(encoded.timings_ms)
        found: list[list[Document]] = [[] for _ in texts]
        corpora: list[Corpus | None] = [None] * len(texts)
        missing: list[tuple[str, ...]] = [()] * len(texts)
        stop.check("before the search")
        with self._retriever.borrow_index() as index:
            for count in sorted(set(counts) - {0}):
                rows = [row for row, wanted in enumerate(counts) if wanted == count]
                result = search_index(index, encoded.vectors[rows], count, None, stop)
                for row, documents in zip(rows, result.documents, strict=True):
                    found[row], corpora[row], missing[row] = documents, result.corpus, result.missing
        clock.stage("search")
        return [
            PreparedQuestion(
                text,
                counts[row],
                tuple(found[row]),
                EncodedQuestions(
                    encoded.vectors[row : row + 1],
                    encoded.texts[row : row + 1],
                    encoded.truncated[row : row + 1],
                    clock.timings,
                ),
                corpora[row],
                missing[row],
            )
            for row, text in enumerate(texts)
        ]

    def score(
        self,
        asked: Asked,
        answers: Sequence[GivenAnswer],
        generator: Generator,
        options: GenerationOptions,
        wanted: Wanted,
        stop: Stop,
        *,
        with_bos: bool | None,
        exclude_bos_score: bool | None,
    ) -> FloatArray:
        """log p(y | x) of each answer, float32 [N]: to its own question, or all of them to a single one."""
        checked_flag("with_bos", with_bos)
        labels = build_labels(
            answers,
            options,
            tokenizer=self._tokenizer,
            spec=self._manifest.generator,
            with_bos=with_bos,
            stop=stop,
        )
        contexts = self.prompts(asked, wanted, stop).contexts
        return generator._score(contexts, labels, options.marginalize, exclude_bos_score, stop)

    def generate(
        self,
        asked: Asked,
        generator: Generator,
        options: GenerationOptions,
        wanted: Wanted,
        allowed: AllowedTokens | None,
        stop: Stop,
        *,
        adaptive_reading: bool,
        abstain: bool,
    ) -> list[Answer]:
        """Figure 1: an answer to each question."""
        questions = self.encode(asked, stop)  # q(x)
        clock = StageClock(questions.timings_ms)
        selected = self.search(asked, questions, wanted, stop)  # top-k of p(z | x)
        clock.stage("search")
        evidence = Evidence(self._fingerprint, selected.corpora, questions.vectors)
        if abstain:
            others = wanted.doc_pruning is not None or adaptive_reading or allowed is not None
            evidence.check_abstaining(options, others=others)
        prompts = self.tokenize(questions, selected, stop)  # x and z joined
        clock.stage("tokenize_documents")
        search = generator._generate_adaptively if adaptive_reading else generator._generate
        generated = search(prompts.contexts, evidence.search_options(options), allowed, stop)  # p(y | x)
        answers = [
            build_answer(
                text,
                number,
                prompts,
                generated.hypotheses[number],
                options,
                tokenizer=self._tokenizer,
                rag=self._manifest.rag,
                timings_ms=clock.timings | generated.timings_ms,
                read=generated.read[number] if generated.read else None,
                constrained=allowed is not None,
                **wanted.said(),
            )
            for number, text in enumerate(asked.texts)
        ]
        assessed = [
            evidence.assessed(answer, number).without_shards(selected.missing_shards(number))
            for number, answer in enumerate(answers)
        ]
        return [answer.abstain() for answer in assessed] if abstain else assessed

    def stream(
        self, asked: Asked, generator: Generator, options: GenerationOptions, wanted: Wanted, stop: Stop
    ) -> AnswerStream:
        """One question's answer in the making; its documents are read before this returns."""
        questions = self.encode(asked, stop)
        clock = StageClock(questions.timings_ms)
        selected = self.search(asked, questions, wanted, stop)
        clock.stage("search")
        prompts = self.tokenize(questions, selected, stop)
        clock.stage("tokenize_documents")
        evidence = Evidence(self._fingerprint, selected.corpora, questions.vectors)
        tokens = generator._stream(prompts.contexts, options, stop)
        clock.stage("read_documents")
        # Not this object, which holds the retriever and the passage encoder: streams may outlive the engine.
        missing = selected.missing_shards(0)
        text, tokenizer, rag = asked.texts[0], self._tokenizer, self._manifest.rag

        def finish(hypothesis: Hypothesis) -> Answer:
            """The answer; its stage ``decode`` counts what the caller did between two tokens, too."""
            if "decode" not in clock.timings:
                clock.stage("decode")
            answer = build_answer(
                text,
                0,
                prompts,
                [hypothesis],
                options,
                tokenizer=tokenizer,
                rag=rag,
                timings_ms=dict(clock.timings),
                **wanted.said(),
            )
            return evidence.assessed(answer, 0).without_shards(missing)

        return AnswerStream(
            text, selected.documents[0], selected.pruned[0], tokens, tokenizer, options, finish
        )
