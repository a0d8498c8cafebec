"""`RagEngine`: Figure 1 of the paper.  Encode the question, search, read the documents, generate."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle.bundle import Bundle
from ragengine.errors import InputError
from ragengine.generation.generator import Generator
from ragengine.generation.search.rules import AllowedTokens
from ragengine.options import GenerationOptions, checked_kind
from ragengine.pipeline.answers import build_answer
from ragengine.pipeline.documents import Documents, given_documents, prune, scored, with_priors
from ragengine.pipeline.labels import Output, build_labels, shares
from ragengine.pipeline.prompts import Prompts, build_prompts
from ragengine.pipeline.streaming import AnswerStream
from ragengine.results import Answer, Document
from ragengine.retrieval.custom import DocumentSearcher
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.retriever import Retriever
from ragengine.runtime.cancellation import Stop
from ragengine.runtime.devices import Device
from ragengine.runtime.lifecycle import Resource, awaited_at_exit, while_open
from ragengine.tokenization import Tokenizer
from ragengine.validation import (
    checked_answers,
    checked_flag,
    checked_labels,
    checked_question,
    checked_questions,
)

OwnDocuments: TypeAlias = Sequence[Document] | Sequence[Sequence[Document]] | None


class RagEngine(Resource):
    """A RAG model and an index, ready to answer.  Safe to use from several threads.

    It belongs to the process that loaded it (:class:`ProcessError` elsewhere), and its retriever and
    generator to it: :meth:`close` closes them, too.  Running questions and streams finish, every later call
    is a :class:`ClosedError`.
    """

    def __init__(
        self, bundle: Bundle, retriever: Retriever, generator: Generator, *, threads: int | None = None
    ) -> None:
        """``threads`` are for what is loaded later: the passage encoder, when documents come unscored."""
        super().__init__()
        self.bundle = bundle
        self.retriever = retriever
        self.generator = generator
        spec = bundle.manifest.generator
        self._tokenizer = Tokenizer(bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)
        self._passages: TextEncoder | None = None
        self._threads = threads
        self._loading = threading.Lock()

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

        ``device`` is auto, cpu or cuda, and ``search_device`` the same for the index alone (default: as
        ``device``); :attr:`device` and ``retriever.index.placement`` say what ``auto`` chose.
        ``threads`` are those a graph may use (default: all cores of this process).  ``verify="size"``
        compares the sizes of files instead of hashing them.  ``memory_limit`` is the bytes of memory this
        process should stay under, as in :meth:`Generator.load`.  Raises :class:`BundleError` or
        :class:`IndexFolderError` when a folder is not whole or the two do not belong together,
        :class:`MemoryLimitError` when they do not fit, :class:`DeviceError` where ``cuda`` cannot be.
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
    def retrieve(
        self,
        question: str,
        n_docs: int | None = None,
        *,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Document]:
        """The documents for one question, best first, with their scores and priors p(z | x).

        ``deadline`` and ``cancel`` as in :meth:`generate`.
        """
        stop = Stop.of(deadline, cancel)
        tokens = self.retriever.tokenize([checked_question(question)])
        with self.retriever.borrow_index() as index:
            vectors = self.retriever.encode(tokens, stop)
            stop.check("before the search")
            n_docs = self.default_options.n_docs if n_docs is None else n_docs
            found = index.search_documents(vectors, n_docs)
        return with_priors(found)[0]

    @overload
    def generate(self, question: str, **settings: Any) -> Answer: ...
    @overload
    def generate(self, question: Sequence[str], **settings: Any) -> list[Answer]: ...
    @while_open
    def generate(
        self,
        question: str | Sequence[str],
        *,
        options: GenerationOptions | None = None,
        documents: OwnDocuments = None,
        doc_pruning: float | None = None,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
        **overrides: Any,
    ) -> Answer | list[Answer]:
        """Answer a question, or several in one batch (the answers are those of one at a time).

        ``options`` are this model's defaults where not given; ``overrides`` change single ones by name
        (``num_beams=4``).  ``documents`` are read instead of searching: a list for one question, a list
        of lists for several.  They keep their scores, or are scored by the bundle's passage encoder.
        ``prefix_allowed_tokens_fn(question number, tokens so far)`` gives the token ids that may follow.

        ``doc_pruning`` leaves out, before they are read, documents whose prior p(z | x) is under it; the
        best one always stays.  The priors of those that stay are normalised anew, so the answer is
        exactly that of the model with these documents alone, and every distribution still sums to 1.  Let
        m be the prior of those left out together, m < doc_pruning · their number
        (:attr:`Answer.pruned_mass`).  Then, after any prefix, for any token,

            RAG-Token:     |p'(y_t | x, y_<t) - p(y_t | x, y_<t)| <= m
            RAG-Sequence:  |p'(y_<=t | x)     - p(y_<=t | x)|     <= m

        since p = (1 - m) p' + m r with r, the average under the documents left out, a probability: so
        p - p' = m (r - p'), and r - p' is between -1 and 1.  The sum over all tokens of |p' - p| is at
        most 2m for the same reason.  (RAG-Sequence's p(y_t | x, y_<t) alone has no such bound: a prefix
        can raise the posterior of a document left out.)

        ``deadline`` is in seconds from now (or a :class:`Stop` that several calls share) and ``cancel`` is
        set by another thread.  Between stages, batches of documents and tokens they end the call with
        :class:`DeadlineError` or :class:`CancelledError`; nothing of it is left, and of several questions
        none is answered.  A search of the index and one batch of documents are not interrupted.

        Raises :class:`OptionsError` and :class:`InputError` for what cannot be used.
        """
        stop = Stop.of(deadline, cancel)
        questions, single = checked_questions(question), isinstance(question, str)
        options = self._options(options, overrides)
        own = given_documents(documents, len(questions), single=single)
        if not questions:
            return []
        clock = _Clock()
        prompts = self._read(questions, options.n_docs, own, doc_pruning, clock, stop)
        hypotheses = self.generator.generate(
            *prompts.arrays, options, prefix_allowed_tokens_fn=prefix_allowed_tokens_fn, deadline=stop
        )
        clock.stage("generate")
        answers = [
            build_answer(
                asked,
                number,
                prompts,
                hypotheses[number],
                options,
                tokenizer=self._tokenizer,
                rag=self.bundle.manifest.rag,
                timings_ms=dict(clock.timings),
                doc_pruning=doc_pruning,
                own_documents=documents is not None,
            )
            for number, asked in enumerate(questions)
        ]
        return answers[0] if single else answers

    @while_open
    def stream(
        self,
        question: str,
        *,
        options: GenerationOptions | None = None,
        documents: Sequence[Document] | None = None,
        doc_pruning: float | None = None,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
        **overrides: Any,
    ) -> AnswerStream:
        """Answer one question token by token: iterate over the result for :class:`AnswerToken`.

        The tokens, their texts put together and their posteriors are those of :meth:`generate` with the
        same settings.  Raises :class:`OptionsError` at once, with the reason, for a search whose first
        token is not known before its last: several beams, sampling, and RAG-Sequence unless
        ``search="joint"``.  ``deadline``, counted from this call, and ``cancel`` as in :meth:`generate`.
        """
        stop = Stop.of(deadline, cancel)
        options = self._options(options, overrides)
        own = given_documents(documents, 1, single=True)
        prompts = self._read([checked_question(question)], options.n_docs, own, doc_pruning, _Clock(), stop)
        tokens = self.generator.stream(*prompts.arrays, options, deadline=stop)
        return AnswerStream(
            question, prompts.documents[0], prompts.pruned[0], tokens, self._tokenizer, options
        )

    @overload
    def score(self, question: str, answer: Output, **settings: Any) -> float: ...
    @overload
    def score(self, question: Sequence[str], answer: Sequence[Output], **settings: Any) -> list[float]: ...
    @while_open
    def score(
        self,
        question: str | Sequence[str],
        answer: Output | Sequence[Output],
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
        """log p(y | x) in nats of an answer to a question, or of one answer to each of several questions.

        An answer is token ids, as in `Hypothesis.token_ids` (the end token is one of them), or text.  Text
        becomes what a search would have to produce: the BOS token where the model forces one (``with_bos``
        says otherwise), the text's tokens, the end token.  It is tokenised as it stands: BART's tokenizer
        gives " Paris" and "Paris" different tokens, and a model has learned one of them, so compare
        `Answer.text` (not stripped) to see which.  Where the tokenizer gives an answer's text the tokens
        that the search chose, ``score(question, answer.text)`` is ``answer.log_prob``.

        ``documents`` and ``doc_pruning`` as in :meth:`generate`; ``exclude_bos_score`` (default: the
        checkpoint's) leaves the BOS out for RAG-Sequence.  It is `Generator.score`, the negative of
        transformers' `get_nll`, with its quirk: an empty answer of RAG-Sequence without BOS has one target
        token, and get_nll adds p(z | x) at the second.  ``deadline`` and ``cancel`` as in :meth:`generate`.
        """
        stop = Stop.of(deadline, cancel)
        questions, single = checked_questions(question), isinstance(question, str)
        answers = checked_answers(answer, len(questions), single=single)
        options = self._options(options, overrides)
        own = given_documents(documents, len(questions), single=single)
        if not questions:
            return []
        labels = self._labels(answers, options, with_bos)
        prompts = self._read(questions, options.n_docs, own, doc_pruning, _Clock(), stop)
        scores: list[float] = self.generator.score(
            *prompts.arrays,
            labels,
            marginalize=options.marginalize,
            exclude_bos_score=exclude_bos_score,
            deadline=stop,
        ).tolist()
        return scores[0] if single else scores

    @while_open
    def classify(
        self,
        question: str,
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
        """p(label | x) over the given labels, in their order: the paper's use for FEVER (section 3.4).

        The documents are searched and read once, and p(label | x) of :meth:`score` is normalised over
        the labels.  Write labels as the model has learned to write them (" supports", with its space, if
        so).  A longer label is a less probable output: choose labels of about equal length where nothing
        was trained.  ``deadline`` and ``cancel`` as in :meth:`generate`.
        """
        stop = Stop.of(deadline, cancel)
        chosen = checked_labels(labels)
        options = self._options(options, overrides)
        targets = self._labels(chosen, options, with_bos)
        own = given_documents(documents, 1, single=True)
        prompts = self._read([checked_question(question)], options.n_docs, own, doc_pruning, _Clock(), stop)
        log_probs = self.generator.score(
            *prompts.arrays, targets, marginalize=options.marginalize, deadline=stop
        )
        return dict(zip(chosen, shares(log_probs), strict=True))

    def swap_index(self, path: str | Path, *, verify: Literal["sha256", "size"] = "sha256") -> None:
        """Answer from the index at ``path`` from now on, without a pause: the paper's hot-swapping.

        The new index is opened, checked to belong to the bundle and searched once, then takes the old one's
        place.  Questions that run finish on the old one, which closes after the last of them: every answer
        comes wholly from one index.  ``path`` may be the same path, built again.  Raises
        :class:`IndexFolderError` where the new index cannot be used; then nothing has changed.
        """
        self._check_open()
        self.retriever.swap_index(path, verify=verify)

    def _release(self) -> None:
        self.retriever.close()
        self.generator.close()
        del self._tokenizer, self._passages

    def _options(self, options: GenerationOptions | None, overrides: dict[str, Any]) -> GenerationOptions:
        """The options of a call, checked before anything is computed."""
        options = checked_kind(self.default_options if options is None else options).replace(**overrides)
        self.generator.check_options(options)
        return options

    def _read(
        self,
        questions: list[str],
        n_docs: int,
        documents: Documents | None,
        doc_pruning: float | None,
        clock: "_Clock",
        stop: Stop,
    ) -> Prompts:
        """The left half of Figure 1: q(x), the documents with p(z | x), and what the generator reads."""
        retriever = self.retriever
        with retriever.borrow_index() as index:
            tokens = retriever.tokenize(questions)
            vectors = retriever.encode(tokens, stop)
            clock.stage("encode_question")
            stop.check("before the search")
            if documents is None:
                found = index.search_documents(vectors, n_docs)
            else:
                found = scored(documents, vectors, self._passage_encoder, stop)
        kept, pruned = prune(with_priors(found), doc_pruning)
        clock.stage("search")
        stop.check("after the search")
        texts = [retriever.question_text(encoded) for encoded in tokens]
        truncated = [encoded.truncated for encoded in tokens]
        prompts = build_prompts(
            self.bundle.manifest.rag, self._tokenizer, kept, pruned, texts, truncated, stop
        )
        clock.stage("tokenize_documents")
        return prompts

    def _labels(
        self, answers: Sequence[Output], options: GenerationOptions, with_bos: bool | None
    ) -> NDArray[np.int64]:
        checked_flag("with_bos", with_bos)
        spec = self.bundle.manifest.generator
        return build_labels(answers, options, tokenizer=self._tokenizer, spec=spec, with_bos=with_bos)

    def _passage_encoder(self) -> TextEncoder:
        spec = self.bundle.manifest.passage_encoder
        if spec is None:
            raise InputError(
                "Documents have no scores and this bundle has no passage encoder; "
                "give each a score, or export with --context-encoder."
            )
        with self._loading:
            if self._passages is None:
                self._passages = TextEncoder.load(self.bundle, spec, device="cpu", threads=self._threads)
            return self._passages


class _Clock:
    """Milliseconds since the last stage ended, by stage."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.timings[name] = (now - self._last) * 1000
        self._last = now
