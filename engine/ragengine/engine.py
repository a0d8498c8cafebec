"""`RagEngine`: Figure 1 of the paper.  Encode the question, search, read the documents, generate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack, overload

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.generation.adaptive import check_adaptive
from ragengine.generation.generator import Generator
from ragengine.generation.search.rules import AllowedTokens
from ragengine.generation.validation import check_streamable, checked_allowed
from ragengine.options import GenerationOptions, GenerationOverrides, ScoringOverrides, checked_kind
from ragengine.pipeline.documents import PassageScorer, given_documents
from ragengine.pipeline.labels import GivenAnswer, shares
from ragengine.pipeline.prepared import Asked, PreparedQuestion, Question, checked_counts
from ragengine.pipeline.settings import GenerateSettings, OwnDocuments, ScoreSettings
from ragengine.pipeline.stages import Stages, Wanted
from ragengine.pipeline.streaming import AnswerStream
from ragengine.results import Answer, Document
from ragengine.retrieval.custom import DocumentSearcher
from ragengine.retrieval.passage_filter import Filter
from ragengine.retrieval.retriever import Retriever
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.runtime.cancellation import CancelSignal, Stop
from ragengine.runtime.devices import Device
from ragengine.runtime.lifecycle import Resource, awaited_at_exit, while_open
from ragengine.tokenization import Tokenizer
from ragengine.validation import checked_answers, checked_flag, checked_labels, checked_questions


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
        self._stages = Stages(bundle, retriever, self._scorer, self._tokenizer)

    @classmethod
    @awaited_at_exit
    def load(
        cls,
        bundle: str | Path,
        index: str | Path | DocumentSearcher | None = None,
        device: Device = "auto",
        threads: int | None = None,
        verify: Literal["sha256", "size"] = "sha256",
        memory_limit: int | None = None,
        search_device: Device | None = None,
        remote: RemoteOptions | None = None,
        allow_partial: bool = False,
    ) -> "RagEngine":
        """Open a bundle and an index, a folder or a :class:`DocumentSearcher` of your own; or a bundle alone.

        Args:
            bundle: the bundle's folder.
            index: the index's folder, or a :class:`DocumentSearcher` of your own, which then searches; None
                where every question comes with its documents.
            device: where the graphs run: auto, cpu or cuda; :attr:`device` says what auto chose.
            threads: threads of a graph; None takes all cores of this process.
            verify: "sha256" hashes every file, "size" compares sizes alone.
            memory_limit: bytes of memory that this process should stay under, as in :meth:`Generator.load`.
            search_device: where the index is searched, ``device`` where not given;
                ``retriever.index.placement`` says what auto chose.
            remote: how shards of the index on other machines are asked; None: they are not.
            allow_partial: answer without shards that do not answer; ``missing_shards`` names them.

        Raises:
            BundleError, IndexFolderError: a folder is not whole, or the two do not belong together.
            MemoryLimitError: they do not fit into ``memory_limit``.
            DeviceError: the device is cuda and cannot be used.
        """
        opened = Bundle.open(bundle, verify=verify)
        retriever = Retriever.load(
            opened, index, device=device, threads=threads, verify=verify, search_device=search_device,
            remote=remote, allow_partial=allow_partial,
        )  # fmt: skip
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
        cancel: CancelSignal | None = None,
    ) -> list[PreparedQuestion]:
        """Encode questions and search for their documents together, before each is answered by its own call.

        :meth:`retrieve`, :meth:`generate`, :meth:`stream`, :meth:`score` and :meth:`classify` take a prepared
        question in the place of its text, and go on from there: with options, a deadline and a cancellation
        of its own.  A server shares the first two stages among its waiting requests in this way.

        Args:
            questions: the questions.
            n_docs: documents to search for, for all or for each question; the model's default where not
                given.  0 searches for none: for documents of the caller's own, and for a filter.
            deadline: seconds from now, or a :class:`Stop` that several calls share.
            cancel: an event that another thread sets to end the call.

        Raises:
            InputError: a question or a number that cannot be used.
        """
        stop = Stop.of(deadline, cancel)
        texts = checked_questions(questions)
        counts = checked_counts(self.default_options.n_docs if n_docs is None else n_docs, len(texts))
        return self._stages.prepare(texts, counts, stop) if texts else []

    @while_open
    def retrieve(
        self,
        question: Question,
        n_docs: int | None = None,
        *,
        filter: Filter | None = None,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
    ) -> list[Document]:
        """The documents for one question, best first, with their scores and priors p(z | x).

        Args:
            question: the question x.
            n_docs: how many documents; the model's default where not given.
            filter: as in :meth:`generate`.
            deadline: seconds from now, or a :class:`Stop` that several calls share.
            cancel: an event that another thread sets to end the call.
        """
        stop = Stop.of(deadline, cancel)
        n_docs = self.default_options.n_docs if n_docs is None else n_docs
        asked = Asked.one(question)
        wanted = Wanted.checked(asked, n_docs, filter=filter)
        return self._stages.search(asked, self._stages.encode(asked, stop), wanted, stop).found(0)

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self, question: Question, **settings: Unpack[GenerateSettings]
    ) -> Answer: ...
    @overload
    def generate(
        self, question: Sequence[Question], **settings: Unpack[GenerateSettings]
    ) -> list[Answer]: ...
    @while_open
    def generate(
        self,
        question: Question | Sequence[Question],
        *,
        options: GenerationOptions | None = None,
        documents: OwnDocuments = None,
        doc_pruning: float | None = None,
        filter: Filter | None = None,
        adaptive_reading: bool = False,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        abstain: bool = False,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
        **overrides: Unpack[GenerationOverrides],
    ) -> Answer | list[Answer]:
        """Answer a question, or several in one batch (the answers are those of one at a time).

        Args:
            question: the question x, a :class:`PreparedQuestion`, or a list of either.
            options: all of them; the model's, :attr:`default_options`, where not given.
            documents: documents to read instead of searching: a list for one question, a list of lists for
                several.  They keep their scores, or are scored by the bundle's passage encoder.
            doc_pruning: leave out, before they are read, documents whose prior p(z | x) is under this; the
                best always stays.
            filter: search only passages whose metadata has these values: ``{"owner": "data"}``, or
                ``{"year": [2024, 2025]}`` for any of several.  Where fewer than ``n_docs`` match, those.
            adaptive_reading: read the documents in the order of p(z | x), and each only while it could change
                a token of greedy RAG-Token; :attr:`Answer.pruned` are those that were not read.
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
            OptionsError, InputError: something that cannot be used, a filter that no passage matches, or
                ``abstain`` without a calibration; nothing has been generated.
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
        if checked_flag("adaptive_reading", adaptive_reading):
            check_adaptive(options)
        wanted = Wanted.checked(asked, options.n_docs, documents, doc_pruning, filter)
        checked_flag("abstain", abstain)
        allowed = checked_allowed(prefix_allowed_tokens_fn, self.bundle.manifest.generator.vocab_size)
        if not asked.texts:
            return []
        answers = self._stages.generate(
            asked, self.generator, options, wanted, allowed, stop,
            adaptive_reading=adaptive_reading, abstain=abstain,
        )  # fmt: skip
        return answers[0] if asked.single else answers

    @while_open
    def stream(
        self,
        question: Question,
        *,
        options: GenerationOptions | None = None,
        documents: Sequence[Document] | None = None,
        doc_pruning: float | None = None,
        filter: Filter | None = None,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
        **overrides: Unpack[GenerationOverrides],
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
        check_streamable(options, self.default_options)
        wanted = Wanted.checked(asked, options.n_docs, documents, doc_pruning, filter)
        return self._stages.stream(asked, self.generator, options, wanted, stop)

    @overload
    def score(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self, question: Question, answer: GivenAnswer, **settings: Unpack[ScoreSettings]
    ) -> float: ...
    @overload
    def score(
        self,
        question: Sequence[Question],
        answer: Sequence[GivenAnswer],
        **settings: Unpack[ScoreSettings],
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
        filter: Filter | None = None,
        with_bos: bool | None = None,
        exclude_bos_score: bool | None = None,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
        **overrides: Unpack[ScoringOverrides],
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
            ``score(question, answer.raw_text)`` is ``answer.log_prob``, but for ``search="fast"``.

        This is `Generator.score`, the negative of transformers' `get_nll`, with its quirk: an empty answer of
        RAG-Sequence without BOS has one target token, and get_nll adds p(z | x) at the second.
        """
        stop = Stop.of(deadline, cancel)
        asked = Asked.some(question)
        answers = checked_answers(answer, len(asked.texts), single=asked.single)
        options = self._options(options, overrides)
        wanted = Wanted.checked(asked, options.n_docs, documents, doc_pruning, filter)
        checked_flag("exclude_bos_score", exclude_bos_score)
        if not asked.texts:
            return []
        scores: list[float] = self._stages.score(
            asked, answers, self.generator, options, wanted, stop,
            with_bos=with_bos, exclude_bos_score=exclude_bos_score,
        ).tolist()  # fmt: skip
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
        filter: Filter | None = None,
        with_bos: bool | None = None,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
        **overrides: Unpack[GenerationOverrides],
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
        chosen, options = checked_labels(labels), self._options(options, overrides)
        asked = Asked.one(question)
        wanted = Wanted.checked(asked, options.n_docs, documents, doc_pruning, filter)
        log_probs = self._stages.score(
            asked, chosen, self.generator, options, wanted, stop, with_bos=with_bos, exclude_bos_score=None
        )
        return dict(zip(chosen, shares(log_probs), strict=True))

    @while_open
    def encode_passages(
        self,
        documents: Sequence[Document],
        *,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
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
        self._drop("_tokenizer", "_scorer", "_stages")

    def _options(self, options: GenerationOptions | None, overrides: ScoringOverrides) -> GenerationOptions:
        """The options of a call, checked before anything is computed."""
        options = checked_kind(self.default_options if options is None else options)
        if overrides:
            options = options.replace(**overrides)
        self.generator.check_options(options)
        return options
