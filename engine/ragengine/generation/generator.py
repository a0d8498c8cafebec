"""`Generator`: token ids of documents in, hypotheses or log-probabilities out."""

from collections.abc import Generator as PythonGenerator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.checks import option_errors
from ragengine.errors import InputError, OptionsError
from ragengine.generation.adaptive import generate_adaptively
from ragengine.generation.contexts import Contexts
from ragengine.generation.marginalization import Marginalize, logsumexp, token_posteriors, token_weights
from ragengine.generation.memory import check_weights_fit, questions_at_once, questions_that_fit
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.greedy import greedy_tokens
from ragengine.generation.search.likelihood import log_likelihoods
from ragengine.generation.search.lookahead import search_step
from ragengine.generation.search.outputs import ForwardOutput, StreamedToken, no_output
from ragengine.generation.search.prefix_trie import output_log_probs
from ragengine.generation.search.rules import AllowedTokens, Rules
from ragengine.generation.search.search import search
from ragengine.generation.token_stream import TokenStream
from ragengine.generation.validation import (
    check_streamable,
    checked_allowed,
    checked_contexts,
    checked_labels,
    checked_marginalize,
    numbered_from,
)
from ragengine.options import GenerationOptions, checked_kind
from ragengine.results import Hypothesis
from ragengine.runtime.cancellation import CancelSignal, Stop
from ragengine.runtime.devices import Device
from ragengine.runtime.lifecycle import Resource, awaited_at_exit, while_open
from ragengine.runtime.stage_clock import StageClock
from ragengine.validation import checked_flag


@dataclass(frozen=True, eq=False)
class Generated:
    """The hypotheses of each question, best first, and the milliseconds that reading and decoding took.

    ``read`` are the places of the documents that each question's answer took; None: all.
    """

    hypotheses: list[list[Hypothesis]]
    timings_ms: dict[str, float]
    read: list[IntArray] | None = None


class Generator(Resource):
    """The generator of a bundle, p(y | x, z), marginalised over the documents z.

    Safe to use from several threads.  Public methods check their arguments and then call the private one of
    the same name, which trusts them; :class:`~ragengine.RagEngine`, which has checked its own, calls that.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        super().__init__()
        self.bundle = bundle
        self.memory_limit = memory_limit
        if memory_limit is not None:
            check_weights_fit(bundle, memory_limit)
        self.default_options = GenerationOptions.from_dict(bundle.manifest.generation)
        self._model = GeneratorModel(
            bundle,
            device=device,
            threads=threads,
            low_memory=memory_limit is not None,
            cuda_graphs=cuda_graphs,
        )
        self._device = self._model.device

    @classmethod
    @awaited_at_exit
    def load(
        cls,
        bundle: str | Path | Bundle,
        device: Device = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
        cuda_graphs: bool = True,
    ) -> "Generator":
        """Open a bundle's generator.

        Args:
            bundle: the folder, or an opened bundle.
            device: where the graphs run: auto, cpu or cuda.
            threads: threads of a graph; None takes all cores of this process.
            memory_limit: bytes of memory that the process should stay under.  As many questions as fit are
                answered together; calls from several threads at once add up.
            cuda_graphs: let a GPU replay decoding steps that it has seen (docs/guides/gpu.md).

        Raises:
            BundleError: the bundle is not whole.
            MemoryLimitError: its weights alone are over ``memory_limit``.
            DeviceError: ``device`` is cuda and cannot be used.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(opened, device=device, threads=threads, memory_limit=memory_limit, cuda_graphs=cuda_graphs)

    @property
    def device(self) -> str:
        """Where the graphs run, ``cpu`` or ``cuda``."""
        return self._device

    @while_open
    def generate(
        self,
        context_input_ids: IntArray,
        context_attention_mask: IntArray,
        doc_scores: FloatArray,
        options: GenerationOptions | None = None,
        *,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
    ) -> list[list[Hypothesis]]:
        """Search for the outputs of Q questions.

        The reference is `generate` of transformers' `RagTokenForGeneration` and `RagSequenceForGeneration`.

        Args:
            context_input_ids: int64 [Q, D, S], each question joined with each of its documents.
            context_attention_mask: int64 [Q, D, S], 0 for padding.
            doc_scores: float32 [Q, D], q(x)·d(z); -inf leaves a document out.
            options: the model's defaults where not given.
            prefix_allowed_tokens_fn: called with a question's number and its tokens so far, int64 [T] with
                the start token; returns the token ids that may follow.  Its exceptions come out unchanged.
            deadline: seconds from now, or a :class:`Stop` that several calls share.
            cancel: an event that another thread sets to end the call.

        Returns:
            The hypotheses of each question, best first.

        Raises:
            InputError: arrays that do not fit each other or the model.
            OptionsError: options that the model cannot follow, or that leave no output.
            DeadlineError, CancelledError: the call was ended between two steps; nothing of it is left.
        """
        stop = Stop.of(deadline, cancel)
        options = self._checked_options(options)
        spec = self._model.spec
        contexts = checked_contexts(spec, context_input_ids, context_attention_mask, doc_scores)
        allowed = checked_allowed(prefix_allowed_tokens_fn, spec.vocab_size)
        return self._generate(contexts, options, allowed, stop).hypotheses

    @while_open
    def stream(
        self,
        context_input_ids: IntArray,
        context_attention_mask: IntArray,
        doc_scores: FloatArray,
        options: GenerationOptions | None = None,
        *,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
    ) -> Iterator[StreamedToken]:
        """The tokens of one question as they are found, for greedy RAG-Token and joint RAG-Sequence.

        Arguments as in :meth:`generate`; ``deadline`` counts from this call.

        Raises:
            OptionsError: the search does not know its first token before its last.
            InputError: more than one question.
        """
        stop = Stop.of(deadline, cancel)
        options = self._checked_options(options)
        check_streamable(options, self.default_options)
        contexts = checked_contexts(self._model.spec, context_input_ids, context_attention_mask, doc_scores)
        if len(contexts) != 1:
            raise InputError(f"{len(contexts)} questions cannot stream together; stream one at a time.")
        return TokenStream(self._stream(contexts, options, stop))

    @while_open
    def forward(
        self,
        context_input_ids: IntArray,
        context_attention_mask: IntArray,
        doc_scores: FloatArray,
        labels: IntArray,
        *,
        marginalize: Marginalize | None = None,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
    ) -> ForwardOutput:
        """Log-probabilities of ``labels`` under each document and under their mixture.

        Arguments that are not named here are those of :meth:`generate`.

        Args:
            labels: int64 [Q, T + 1]; the decoder starts with the first, as in transformers'
                `forward(labels=...)`.  Several labels of one question, [N, T + 1], are scored together and
                its documents read once; Q is then N in what is returned.
            marginalize: "token" or "sequence"; the model's default where not given.
        """
        stop = Stop.of(deadline, cancel)
        marginalize = checked_marginalize(marginalize, self.default_options.marginalize)
        spec = self._model.spec
        contexts = checked_contexts(spec, context_input_ids, context_attention_mask, doc_scores)
        labels = checked_labels(spec, labels, len(contexts))
        log_prior = _prior_of_each(labels, contexts)
        per_document = self._label_log_probs(contexts, labels, stop)  # [Q, T, D]
        weights = np.stack(
            [
                token_weights(prior, given, marginalize)[:-1]
                for prior, given in zip(log_prior, per_document, strict=True)
            ]
        )
        return ForwardOutput(
            log_prior=log_prior,
            document_log_probs=per_document.transpose(0, 2, 1),
            log_probs=logsumexp(weights + per_document, axis=2),
            posteriors=np.stack([token_posteriors(w, g) for w, g in zip(weights, per_document, strict=True)]),
        )

    @while_open
    def score(
        self,
        context_input_ids: IntArray,
        context_attention_mask: IntArray,
        doc_scores: FloatArray,
        labels: IntArray,
        *,
        marginalize: Marginalize | None = None,
        exclude_bos_score: bool | None = None,
        deadline: float | Stop | None = None,
        cancel: CancelSignal | None = None,
    ) -> FloatArray:
        """log p(y | x) of given outputs, the negative of the loss of transformers' `get_nll`.

        Arguments that are not named here are those of :meth:`generate`.

        Args:
            labels: int64 [Q, T], padded with the pad token, or [N, T] for one question; the decoder starts
                with the first label, so that one is read and not scored.
            marginalize: "token" or "sequence"; the model's default where not given.
            exclude_bos_score: leave a first BOS out of RAG-Sequence's score; the checkpoint's setting where
                not given.

        Returns:
            float32 [Q] (or [N]), in nats.
        """
        stop = Stop.of(deadline, cancel)
        marginalize = checked_marginalize(marginalize, self.default_options.marginalize)
        checked_flag("exclude_bos_score", exclude_bos_score)
        spec = self._model.spec
        contexts = checked_contexts(spec, context_input_ids, context_attention_mask, doc_scores)
        labels = checked_labels(spec, labels, len(contexts))
        return self._score(contexts, labels, marginalize, exclude_bos_score, stop)

    @while_open
    def check_options(self, options: GenerationOptions) -> None:
        """Refuse options that this model cannot follow; the message names every limit."""
        if faults := option_errors(checked_kind(options), self._model.spec):
            raise OptionsError(f"Generation options do not fit the model: {'; '.join(faults)}.")

    @while_open
    def _generate(
        self, contexts: Contexts, options: GenerationOptions, allowed: AllowedTokens | None, stop: Stop
    ) -> Generated:
        """:meth:`generate`, as many questions at once as there is memory for."""
        clock = StageClock()
        hypotheses: list[list[Hypothesis]] = []
        while (done := len(hypotheses)) < len(contexts):
            at_once = self._questions_at_once(contexts, options)
            part, numbered = contexts[done : done + at_once], numbered_from(done, allowed)
            rules = Rules(options, part.visible_ids, numbered)
            encoded = self._model.encode_documents(part.input_ids, part.attention_mask, stop)
            clock.stage("read_documents")
            hypotheses += search(self._model, encoded, part.log_prior, rules, stop)
            clock.stage("decode")
            for question, found in enumerate(hypotheses[done:], done):
                if not found:
                    raise no_output(question)
        return Generated(hypotheses, clock.timings)

    @while_open
    def _generate_adaptively(
        self, contexts: Contexts, options: GenerationOptions, allowed: AllowedTokens | None, stop: Stop
    ) -> Generated:
        """:meth:`_generate` question by question, with no more documents than their tokens need."""
        clock, hypotheses, read = StageClock(), [], []
        for question in range(len(contexts)):
            part = contexts[question : question + 1]
            self._questions_at_once(part, options)
            rules = Rules(options, part.visible_ids, numbered_from(question, allowed))
            found = generate_adaptively(self._model, part, rules, stop)
            if not found.hypotheses:
                raise no_output(question)
            hypotheses.append(found.hypotheses)
            read.append(found.documents)
        clock.stage("decode")
        return Generated(hypotheses, clock.timings, read)

    @while_open
    def _stream(
        self, contexts: Contexts, options: GenerationOptions, stop: Stop
    ) -> PythonGenerator[StreamedToken, None, None]:
        """:meth:`stream`; the documents are read before it returns."""
        self._questions_at_once(contexts, options)
        encoded = self._model.encode_documents(contexts.input_ids, contexts.attention_mask, stop)
        rules = Rules(options, contexts.visible_ids)
        return greedy_tokens(search_step(self._model, encoded, contexts.log_prior, rules, stop))

    @while_open
    def _score(
        self,
        contexts: Contexts,
        labels: IntArray,
        marginalize: Marginalize,
        exclude_bos_score: bool | None,
        stop: Stop,
    ) -> FloatArray:
        """:meth:`score`."""
        if exclude_bos_score is None:
            exclude_bos_score = self.bundle.manifest.rag.exclude_bos_score
        return log_likelihoods(
            _prior_of_each(labels, contexts),
            self._label_log_probs(contexts, labels, stop),
            labels[:, 1:],
            self._model.spec,
            marginalize=marginalize,
            exclude_bos_score=exclude_bos_score,
        )

    def _release(self) -> None:
        self._drop("_model")

    def _checked_options(self, options: GenerationOptions | None) -> GenerationOptions:
        options = self.default_options if options is None else options
        self.check_options(options)
        return options

    def _label_log_probs(self, contexts: Contexts, labels: IntArray, stop: Stop) -> FloatArray:
        """log p(y_t | x, z, y_<t) of labels [Q, T + 1]: float32 [Q, T, D].

        As many at once as there is memory for.  Several labels of one question are one trie over its
        documents, which are read once.
        """
        encode = self._model.encode_documents
        shared = len(contexts) == 1
        encoded = encode(contexts.input_ids, contexts.attention_mask, stop) if shared else None
        shape = len(labels), *contexts.input_ids.shape[1:]
        at_once = self._fitting(shape, beams=1, target=labels.shape[1])
        found: list[FloatArray] = []
        for start in range(0, len(labels), at_once):
            part = slice(start, start + at_once)
            starts, targets = labels[part, 0].tolist(), labels[part, 1:]
            if encoded is not None:
                (outputs,) = output_log_probs(self._model, encoded, [list(targets)], starts[:1], stop)
                found += outputs
                continue
            own = encode(contexts.input_ids[part], contexts.attention_mask[part], stop)
            rows = [[row] for row in targets]
            found += [output for (output,) in output_log_probs(self._model, own, rows, starts, stop)]
        return np.stack(found)

    def _questions_at_once(self, contexts: Contexts, options: GenerationOptions) -> int:
        """How many of the questions are searched together: all, if there is memory for them."""
        ahead = min(options.prompt_lookup_num_tokens or 0, options.longest)
        beams = max(options.num_beams, options.num_return_sequences, 1 + ahead)
        return self._fitting(contexts.input_ids.shape, beams, options.longest)

    def _fitting(self, shape: tuple[int, ...], beams: int, target: int) -> int:
        """How many of Q questions [Q, D, S] there is memory for, with ``beams`` of ``target`` tokens each.

        Raises :class:`MemoryLimitError` where there is none for one.
        """
        questions, n_docs, source = shape
        if self.memory_limit is None:
            return questions_that_fit(self._model.spec, questions, n_docs, source, beams, target)
        return questions_at_once(self._model.spec, self.memory_limit, n_docs, source, beams, target)


def _prior_of_each(labels: IntArray, contexts: Contexts) -> FloatArray:
    """log p(z | x) for each of the labels, [Q, D]; several labels of one question share it."""
    if len(contexts) == 1:
        return np.repeat(contexts.log_prior, len(labels), axis=0)
    return contexts.log_prior
