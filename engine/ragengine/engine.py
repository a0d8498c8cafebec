"""`RagEngine`: Figure 1 of the paper.  Encode the question, search, read the documents, generate."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.bundle import Bundle
from ragengine.confidence.corpus import Corpus
from ragengine.generation.generator import Generator
from ragengine.generation.search.rules import AllowedTokens
from ragengine.generation.validation import check_streamable, checked_allowed
from ragengine.options import GenerationOptions, checked_kind
from ragengine.pipeline.answers import build_answer
from ragengine.pipeline.assessment import Evidence
from ragengine.pipeline.documents import (
    Documents,
    PassageScorer,
    SelectedDocuments,
    checked_pruning,
    given_documents,
    select_documents,
)
from ragengine.pipeline.labels import GivenAnswer, build_labels, shares
from ragengine.pipeline.prepared import Asked, PreparedQuestion, Question, checked_counts
from ragengine.pipeline.prompts import Prompts, build_prompts
from ragengine.pipeline.streaming import AnswerStream
from ragengine.results import Answer, Document, Hypothesis
from ragengine.retrieval.custom import DocumentSearcher
from ragengine.retrieval.encoder import EncodedQuestions
from ragengine.retrieval.retriever import Retriever
from ragengine.runtime.cancellation import Stop
from ragengine.runtime.devices import Device
from ragengine.runtime.lifecycle import Resource, awaited_at_exit, while_open
from ragengine.runtime.stage_clock import StageClock
from ragengine.tokenization import Tokenizer
from ragengine.validation import (
    checked_answers,
    checked_flag,
    checked_labels,
    checked_questions,
)

OwnDocuments: TypeAlias = Sequence[Document] | Sequence[Sequence[Document]] | None


class RagEngine(Resource):
    """A RAG model and an index, ready to answer.  Safe to use from several threads.

    Only the process that loaded it can use it; a fork gets :class:`ProcessError`.  :meth:`close` closes its
    retriever and generator too: running questions and streams finish, every later call raises
    :class:`ClosedError`.
    """

    def __init__(
        self, bundle: Bundle, retriever: Retriever, generator: Generator, *, threads: int | None = None
    ) -> None:
        """``threads`` are for the passage encoder, which is loaded when documents come without scores."""
        super().__init__()
        self.bundle = bundle
        """The model's folder: its manifest and its files."""
        self.retriever = retriever
        """From a question to its documents: the question encoder and the index."""
        self.generator = generator
        """From documents to an answer: tokenizer, encoder, decoder and their options."""
        spec = bundle.manifest.generator
        self._tokenizer = Tokenizer(bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)
        self._scorer = PassageScorer(bundle, threads)
        self._fingerprint = bundle.fingerprint

    @classmethod
    @awaited_at_exit
    def load(
        cls,
        bundle: str | Path,
        index: str | Path | DocumentSearcher,
        device: Device = "auto",
        threads: int | None = None,
        verify: Literal["sha256", "size"] = "sha256",
        memory_limit: int | None = None,
        search_device: Device | None = None,
    ) -> "RagEngine":
        """Open a bundle and an index, a folder or a :class:`DocumentSearcher` of your own.

        Args:
            bundle: the bundle's folder.
            index: the index's folder, or a :class:`DocumentSearcher` of your own, which then searches.
            device: where the graphs run: auto, cpu or cuda; :attr:`device` says what auto chose.
            threads: threads of a graph; None takes all cores of this process.
            verify: "sha256" hashes every file, "size" compares sizes alone.
            memory_limit: bytes of memory that this process should stay under, as in :meth:`Generator.load`.
            search_device: where the index is searched, ``device`` where not given;
                ``retriever.index.placement`` says what auto chose.

        Raises:
            BundleError, IndexFolderError: a folder is not whole, or the two do not belong together.
            MemoryLimitError: they do not fit into ``memory_limit``.
            DeviceError: the device is cuda and cannot be used.
        """
        opened = Bundle.open(bundle, verify=verify)
        retriever = Retriever.load(
            opened, index, device=device, threads=threads, verify=verify, search_device=search_device
        )
        try:
            generator = Generator(opened, device=device, threads=threads, memory_limit=memory_limit)
            return cls(opened, retriever, generator, threads=threads)
        except BaseException:
            retriever.close()
            raise

    @property
    def device(self) -> str:
        """Where the graphs run, ``cpu`` or ``cuda``."""
        return self.generator.device

    @property
    def default_options(self) -> GenerationOptions:
        """The options of this model where a call does not say otherwise."""
        return self.generator.default_options

    @while_open
    def prepare(
        self,
        questions: Sequence[str],
        n_docs: int | Sequence[int] | None = None,
        *,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
    ) -> list[PreparedQuestion]:
        """Encode questions and search for their documents together, before each is answered by its own call.

        :meth:`retrieve`, :meth:`generate`, :meth:`stream`, :meth:`score` and :meth:`classify` take a prepared
        question in the place of its text, and go on from there: with options, a deadline and a cancellation
        of its own.  A server shares the first two stages among its waiting requests in this way.

        Args:
            questions: the questions.
            n_docs: documents to search for, for all or for each question; the model's default where not
                given.  0 searches for none, for documents of the caller's own.
            deadline: seconds from now, or a :class:`Stop` that several calls share.
            cancel: an event that another thread sets to end the call.

        Raises:
            InputError: a question or a number that cannot be used.
        """
        stop = Stop.of(deadline, cancel)
        texts = checked_questions(questions)
        counts = checked_counts(self.default_options.n_docs if n_docs is None else n_docs, len(texts))
        if not texts:
            return []
        encoded = self.retriever._encode_questions(texts, stop)
        clock = StageClock(encoded.timings_ms)
        found: list[list[Document]] = [[] for _ in texts]
        stop.check("before the search")
        with self.retriever.borrow_index() as index:
            corpus = index.corpus
            for count in sorted(set(counts) - {0}):
                rows = [row for row, wanted in enumerate(counts) if wanted == count]
                for row, documents in zip(
                    rows, index.search_documents(encoded.vectors[rows], count), strict=True
                ):
                    found[row] = documents
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
                corpus,
            )
            for row, text in enumerate(texts)
        ]

    @while_open
    def retrieve(
        self,
        question: Question,
        n_docs: int | None = None,
        *,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Document]:
        """The documents for one question, best first, with their scores and priors p(z | x).

        Args:
            question: the question x.
            n_docs: how many documents; the model's default where not given.
            deadline: seconds from now, or a :class:`Stop` that several calls share.
            cancel: an event that another thread sets to end the call.
        """
        stop = Stop.of(deadline, cancel)
        n_docs = self.default_options.n_docs if n_docs is None else n_docs
        asked = Asked.one(question)
        return self._search(asked, self._encoded(asked, stop), n_docs, None, None, stop).documents[0]

    @overload
    def generate(self, question: Question, **settings: Any) -> Answer: ...
    @overload
    def generate(self, question: Sequence[Question], **settings: Any) -> list[Answer]: ...
    @while_open
    def generate(
        self,
        question: Question | Sequence[Question],
        *,
        options: GenerationOptions | None = None,
        documents: OwnDocuments = None,
        doc_pruning: float | None = None,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        abstain: bool = False,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
        **overrides: Any,
    ) -> Answer | list[Answer]:
        """Answer a question, or several in one batch (the answers are those of one at a time).

        Args:
            question: the question x, a :class:`PreparedQuestion`, or a list of either.
            options: how to search for the answer; the model's defaults where not given.
            documents: documents to read instead of searching: a list for one question, a list of lists for
                several.  They keep their scores, or are scored by the bundle's passage encoder.
            doc_pruning: leave out, before they are read, documents whose prior p(z | x) is under this; the
                best always stays.
            prefix_allowed_tokens_fn: called with a question's number and its tokens so far, int64 [T] with
                the start token; returns the token ids that may follow.  Its exceptions come out unchanged.
            abstain: give no text, but the documents, where the confidence is under the threshold of the
                index's calibration (:meth:`Answer.abstain`).
            deadline: seconds from now, or a :class:`Stop` that several calls share.
            cancel: an event that another thread sets to end the call.
            overrides: single options by name, such as ``num_beams=4``.

        Returns:
            An answer, or a list of them for a list of questions.

        Raises:
            OptionsError, InputError: something that cannot be used, or ``abstain`` without a calibration;
                nothing has been generated.
            DeadlineError, CancelledError: the call was ended.  Both are checked between stages, batches of
                documents and tokens; a search of the index and one batch of documents are not interrupted.
                Of several questions none is answered.

        With ``doc_pruning`` the answer is exactly that of the model with the documents that stay, and
        :attr:`Answer.pruned_mass` bounds how far its probabilities are from those with all documents
        (:func:`~ragengine.pipeline.documents.select_documents`).
        """
        stop = Stop.of(deadline, cancel)
        asked = Asked.some(question)
        options = self._options(options, overrides)
        own = given_documents(documents, len(asked.texts), single=asked.single)
        doc_pruning = checked_pruning(doc_pruning)
        allowed = checked_allowed(prefix_allowed_tokens_fn, self.bundle.manifest.generator.vocab_size)
        if not asked.texts:
            return []
        questions = self._encoded(asked, stop)  # q(x)
        clock = StageClock(questions.timings_ms)
        selected = self._search(asked, questions, options.n_docs, own, doc_pruning, stop)  # top-k of p(z | x)
        clock.stage("search")
        evidence = self._evidence(questions, selected)
        if abstain:
            evidence.check_abstaining(options, doc_pruning)
        prompts = self._tokenize_documents(questions, selected, stop)  # x and z joined
        clock.stage("tokenize_documents")
        searched = evidence.search_options(options)
        generated = self.generator._generate(prompts.contexts, searched, allowed, stop)  # p(y | x)
        answers = [
            build_answer(
                text,
                number,
                prompts,
                generated.hypotheses[number],
                options,
                tokenizer=self._tokenizer,
                rag=self.bundle.manifest.rag,
                timings_ms=clock.timings | generated.timings_ms,
                doc_pruning=doc_pruning,
                own_documents=documents is not None,
            )
            for number, text in enumerate(asked.texts)
        ]
        answers = [evidence.assessed(answer, number) for number, answer in enumerate(answers)]
        if abstain:
            answers = [answer.abstain() for answer in answers]
        return answers[0] if asked.single else answers

    @while_open
    def stream(
        self,
        question: Question,
        *,
        options: GenerationOptions | None = None,
        documents: Sequence[Document] | None = None,
        doc_pruning: float | None = None,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
        **overrides: Any,
    ) -> AnswerStream:
        """Answer one question token by token.

        Arguments as in :meth:`generate`; ``deadline`` counts from this call.

        Returns:
            An iterator over :class:`AnswerToken`.  The tokens, their texts put together and their posteriors
            are those of :meth:`generate` with the same settings.

        Raises:
            OptionsError: the search does not know its first token before its last: several beams, sampling,
                and RAG-Sequence unless ``search="joint"``.
        """
        stop = Stop.of(deadline, cancel)
        asked, options = Asked.one(question), self._options(options, overrides)
        check_streamable(options)
        own = given_documents(documents, 1, single=True)
        doc_pruning = checked_pruning(doc_pruning)
        questions = self._encoded(asked, stop)
        clock = StageClock(questions.timings_ms)
        selected = self._search(asked, questions, options.n_docs, own, doc_pruning, stop)
        clock.stage("search")
        prompts = self._tokenize_documents(questions, selected, stop)
        clock.stage("tokenize_documents")
        evidence = self._evidence(questions, selected)
        tokens = self.generator._stream(prompts.contexts, options, stop)
        clock.stage("read_documents")
        tokenizer, rag = self._tokenizer, self.bundle.manifest.rag

        def finish(hypothesis: Hypothesis) -> Answer:
            """The answer; its stage ``decode`` counts what the caller did between two tokens, too."""
            if "decode" not in clock.timings:
                clock.stage("decode")
            answer = build_answer(
                asked.texts[0],
                0,
                prompts,
                [hypothesis],
                options,
                tokenizer=tokenizer,
                rag=rag,
                timings_ms=dict(clock.timings),
                doc_pruning=doc_pruning,
                own_documents=documents is not None,
            )
            return evidence.assessed(answer, 0)

        return AnswerStream(
            asked.texts[0], selected.documents[0], selected.pruned[0], tokens, tokenizer, options, finish
        )

    @overload
    def score(self, question: Question, answer: GivenAnswer, **settings: Any) -> float: ...
    @overload
    def score(
        self, question: Sequence[Question], answer: Sequence[GivenAnswer], **settings: Any
    ) -> list[float]: ...
    @while_open
    def score(
        self,
        question: Question | Sequence[Question],
        answer: GivenAnswer | Sequence[GivenAnswer],
        *,
        options: GenerationOptions | None = None,
        documents: OwnDocuments = None,
        doc_pruning: float | None = None,
        with_bos: bool | None = None,
        exclude_bos_score: bool | None = None,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
        **overrides: Any,
    ) -> float | list[float]:
        """log p(y | x) of an answer to a question, or of one answer to each of several questions.

        Arguments that are not named here are those of :meth:`generate`.

        Args:
            question: the question x, or a list of them.
            answer: text, or token ids as in `Hypothesis.token_ids` (the end token is one of them).  Text is
                tokenised as it stands: BART's tokenizer gives " Paris" and "Paris" different tokens, and a
                model has learned one of them; `Answer.raw_text` shows which.
            with_bos: whether a text's tokens begin with the BOS token; where not given, they do if the model
                forces one.
            exclude_bos_score: leave that BOS out of RAG-Sequence's score; the checkpoint's setting where not
                given.

        Returns:
            Nats.  Where the tokenizer gives an answer's text the tokens that the search chose,
            ``score(question, answer.raw_text)`` is ``answer.log_prob``.

        This is `Generator.score`, the negative of transformers' `get_nll`, with its quirk: an empty answer of
        RAG-Sequence without BOS has one target token, and get_nll adds p(z | x) at the second.
        """
        stop = Stop.of(deadline, cancel)
        asked = Asked.some(question)
        answers = checked_answers(answer, len(asked.texts), single=asked.single)
        options = self._options(options, overrides)
        own = given_documents(documents, len(asked.texts), single=asked.single)
        doc_pruning = checked_pruning(doc_pruning)
        checked_flag("exclude_bos_score", exclude_bos_score)
        if not asked.texts:
            return []
        labels = self._labels(answers, options, with_bos, stop)
        prompts = self._prompts(asked, options.n_docs, own, doc_pruning, stop)
        scores: list[float] = self.generator._score(
            prompts.contexts, labels, options.marginalize, exclude_bos_score, stop
        ).tolist()
        return scores[0] if asked.single else scores

    @while_open
    def classify(
        self,
        question: Question,
        labels: Sequence[str],
        *,
        options: GenerationOptions | None = None,
        documents: Sequence[Document] | None = None,
        doc_pruning: float | None = None,
        with_bos: bool | None = None,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
        **overrides: Any,
    ) -> dict[str, float]:
        """p(label | x) over the given labels, as the paper classifies FEVER's claims (section 3.4).

        The documents are searched and read once.  Arguments that are not named here are those of
        :meth:`generate`.

        Args:
            question: the claim or question x.
            labels: different texts, written as the model has learned to write them (" supports", with its
                space, if so).  A longer label is a less probable output: choose labels of about equal length
                where nothing was trained.
            with_bos: as in :meth:`score`.

        Returns:
            For each label, in their order, exp of :meth:`score` normalised over the labels.
        """
        stop = Stop.of(deadline, cancel)
        chosen = checked_labels(labels)
        options = self._options(options, overrides)
        asked, targets = Asked.one(question), self._labels(chosen, options, with_bos, stop)
        own = given_documents(documents, 1, single=True)
        prompts = self._prompts(asked, options.n_docs, own, checked_pruning(doc_pruning), stop)
        log_probs = self.generator._score(prompts.contexts, targets, options.marginalize, None, stop)
        return dict(zip(chosen, shares(log_probs), strict=True))

    @while_open
    def encode_passages(
        self,
        documents: Sequence[Document],
        *,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
    ) -> FloatArray:
        """d(z), the vectors of passages, as the bundle's passage encoder makes them for an index.

        Args:
            documents: the passages; scores are not looked at.
            deadline: seconds from now, or a :class:`Stop` that several calls share.
            cancel: an event that another thread sets to end the call.

        Returns:
            float32 [N, E].

        Raises:
            InputError: a document that cannot be used, or a bundle without a passage encoder.
        """
        stop = Stop.of(deadline, cancel)
        given = given_documents(documents, 1, single=True)
        return self._scorer.encode([] if given is None else given[0], stop)

    def swap_index(self, path: str | Path, *, verify: Literal["sha256", "size"] = "sha256") -> None:
        """Answer from the index at ``path`` from now on, without a pause: the paper's hot-swapping.

        The new index is opened, checked to belong to the bundle and searched once, then takes the old one's
        place.  Questions that run finish on the old one, which closes after the last of them: every answer
        comes wholly from one index.

        Args:
            path: the new index's folder; it may be the same path, built again.
            verify: "sha256" hashes every file, "size" compares sizes alone.

        Raises:
            IndexFolderError: the new index cannot be used; nothing has changed.
            InputError: the engine searches with a :class:`DocumentSearcher`, not with an index folder.
        """
        self._check_open()
        self.retriever.swap_index(path, verify=verify)

    def _release(self) -> None:
        self.retriever.close()
        self.generator.close()
        self._drop("_tokenizer", "_scorer")

    def _options(self, options: GenerationOptions | None, overrides: dict[str, Any]) -> GenerationOptions:
        """The options of a call, checked before anything is computed."""
        options = checked_kind(self.default_options if options is None else options)
        if overrides:
            options = options.replace(**overrides)
        self.generator.check_options(options)
        return options

    def _prompts(
        self,
        asked: Asked,
        n_docs: int,
        own: Documents | None,
        doc_pruning: float | None,
        stop: Stop,
    ) -> Prompts:
        """The left half of Figure 1: from questions to what the generator reads."""
        questions = self._encoded(asked, stop)
        selected = self._search(asked, questions, n_docs, own, doc_pruning, stop)
        return self._tokenize_documents(questions, selected, stop)

    def _encoded(self, asked: Asked, stop: Stop) -> EncodedQuestions:
        """The questions as the index and the generator take them."""
        return asked.encoded() or self.retriever._encode_questions(asked.texts, stop)

    def _search(
        self,
        asked: Asked,
        questions: EncodedQuestions,
        n_docs: int,
        own: Documents | None,
        doc_pruning: float | None,
        stop: Stop,
    ) -> SelectedDocuments:
        """The documents of every question with p(z | x): the index's ``n_docs`` best, or the caller's own."""
        stop.check("before the search")
        corpora: tuple[Corpus | None, ...] = ()
        if own is not None:
            found = self._scorer.scored(own, questions.vectors, stop)
        elif (prepared := asked.found(n_docs)) is not None:
            found, corpora = prepared, asked.corpora()
        else:
            with self.retriever.borrow_index() as index:
                found = index.search_documents(questions.vectors, n_docs)
                corpora = (index.corpus,) * len(found)
        selected = select_documents(found, doc_pruning, corpora)
        stop.check("after the search")
        return selected

    def _tokenize_documents(
        self, questions: EncodedQuestions, selected: SelectedDocuments, stop: Stop
    ) -> Prompts:
        """Every question joined with each of its documents, as tokens."""
        return build_prompts(self.bundle.manifest.rag, self._tokenizer, questions, selected, stop)

    def _evidence(self, questions: EncodedQuestions, selected: SelectedDocuments) -> Evidence:
        """What the answers are assessed by."""
        return Evidence(self._fingerprint, selected.corpora, questions.vectors)

    def _labels(
        self,
        answers: Sequence[GivenAnswer],
        options: GenerationOptions,
        with_bos: bool | None,
        stop: Stop,
    ) -> IntArray:
        checked_flag("with_bos", with_bos)
        spec = self.bundle.manifest.generator
        return build_labels(
            answers, options, tokenizer=self._tokenizer, spec=spec, with_bos=with_bos, stop=stop
        )
