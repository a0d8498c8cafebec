"""`Generator`: token ids of documents in, hypotheses or log-probabilities out."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.checks import option_errors
from ragengine.errors import InputError, OptionsError
from ragengine.generation.decoders.base import EncodedDocuments
from ragengine.generation.marginalization import (
    Marginalize,
    beam_weights,
    log_prior,
    logsumexp,
    token_log_probs,
    token_posteriors,
    token_weights,
)
from ragengine.generation.memory import check_weights_fit, questions_at_once, questions_that_fit
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.likelihood import sequence_log_likelihood, token_log_likelihood
from ragengine.generation.search.outputs import ForwardOutput, Output, StreamedToken, hypothesis, no_output
from ragengine.generation.search.prefix_trie import output_log_probs
from ragengine.generation.search.rag_sequence import fast, search_by_document, thorough
from ragengine.generation.search.rules import AllowedTokens, Rules
from ragengine.generation.search.sampling import greedy_tokens, sample
from ragengine.generation.search.step import SearchStep
from ragengine.generation.validation import (
    checked_allowed,
    checked_contexts,
    checked_labels,
    checked_marginalize,
    numbered_from,
)
from ragengine.options import GenerationOptions, checked_kind
from ragengine.results import Hypothesis
from ragengine.runtime.cancellation import Stop
from ragengine.runtime.devices import Device
from ragengine.runtime.lifecycle import Resource, awaited_at_exit, while_open
from ragengine.validation import checked_flag


class Generator(Resource):
    """The generator of a bundle, p(y | x, z), marginalised over the documents z.

    Safe to use from several threads.
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
        """Open a bundle's generator.  Raises :class:`BundleError` when the bundle is not whole.

        ``memory_limit`` is the bytes of memory the process should stay under: as many questions as fit are
        answered together, and :class:`MemoryLimitError` says what is too large.  Calls from several threads
        at once add up.  ``cuda_graphs`` lets a GPU replay decoding steps it has seen (docs/gpu.md).
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
        cancel: threading.Event | None = None,
    ) -> list[list[Hypothesis]]:
        """Search for the outputs of Q questions, best first for each.

        context_input_ids, context_attention_mask int64 [Q, D, S]; doc_scores float32 [Q, D].
        `generate` of transformers' `RagTokenForGeneration` and `RagSequenceForGeneration` is the reference.
        ``prefix_allowed_tokens_fn(question, tokens)`` restricts what may follow ``tokens``.

        ``deadline`` is in seconds from now (or a :class:`Stop` that several calls share) and ``cancel`` is
        set by another thread: between two steps they end the call with :class:`DeadlineError` or
        :class:`CancelledError`, and nothing of it is left.
        """
        stop = Stop.of(deadline, cancel)
        options, spec = self._checked_options(options), self._model.spec
        ids, mask, scores = checked_contexts(spec, context_input_ids, context_attention_mask, doc_scores)
        allowed = checked_allowed(prefix_allowed_tokens_fn, spec.vocab_size)
        hypotheses: list[list[Hypothesis]] = []
        while (done := len(hypotheses)) < len(ids):
            part = slice(done, done + self._questions_at_once(ids.shape, options))
            numbered = numbered_from(done, allowed)
            hypotheses += self._generated(ids[part], mask[part], scores[part], options, numbered, done, stop)
        return hypotheses

    def _generated(
        self,
        ids: IntArray,
        mask: IntArray,
        doc_scores: FloatArray,
        options: GenerationOptions,
        allowed_tokens: AllowedTokens | None,
        first: int,
        stop: Stop,
    ) -> list[list[Hypothesis]]:
        """:meth:`generate` for questions that are searched together; ``first`` is the number of the first."""
        reading, prior, rules = self._started(ids, mask, doc_scores, options, allowed_tokens, stop)
        if options.marginalize == "sequence" and options.search != "joint":
            outputs = self._by_document(reading, prior, rules)
        else:
            outputs = self._over_the_marginal(reading, prior, rules)
        for question, found in enumerate(outputs):
            if not found:
                raise no_output(first + question)
        hypotheses = [
            [hypothesis(output, prior[question], options.marginalize) for output in found]
            for question, found in enumerate(outputs)
        ]
        if options.marginalize == "sequence" and options.search == "joint":
            return [_joint_ranking(found, options) for found in hypotheses]
        return hypotheses

    @while_open
    def stream(
        self,
        context_input_ids: IntArray,
        context_attention_mask: IntArray,
        doc_scores: FloatArray,
        options: GenerationOptions | None = None,
        *,
        deadline: float | Stop | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[StreamedToken]:
        """The tokens of one question as they are found, for greedy RAG-Token and joint RAG-Sequence.

        ``deadline``, counted from this call, and ``cancel`` as in :meth:`generate`.
        Raises :class:`OptionsError` for a search whose first token is not known before its last.
        """
        stop = Stop.of(deadline, cancel)
        options = self._checked_options(options)
        if options.num_beams > 1 or options.do_sample:
            raise OptionsError(
                f"A search with num_beams={options.num_beams}, do_sample={options.do_sample} cannot stream: "
                "its first token may change until the last; use num_beams=1 without sampling."
            )
        if options.marginalize == "sequence" and options.search != "joint":
            raise OptionsError(
                f"RAG-Sequence with search={options.search!r} cannot stream: whole outputs are ranked at its "
                "end; use search='joint'."
            )
        ids, mask, scores = checked_contexts(
            self._model.spec, context_input_ids, context_attention_mask, doc_scores
        )
        if len(ids) != 1:
            raise InputError(f"{len(ids)} questions cannot stream together; stream one at a time.")
        self._questions_at_once(ids.shape, options)
        reading, prior, rules = self._started(ids, mask, scores, options, None, stop)
        return self._streamed(SearchStep(self._model, reading, prior, rules), prior, options)

    def _streamed(
        self, stepper: SearchStep, prior: FloatArray, options: GenerationOptions
    ) -> Iterator[StreamedToken]:
        self._check_process()
        taken = np.empty((1, 1, 0, prior.shape[1]), np.float32)
        for chosen in greedy_tokens(stepper):
            weights = beam_weights(prior, taken, options.marginalize)[0, :, 0]
            log_probs = chosen.log_probs[0, :, 0]
            taken = np.concatenate([taken, log_probs[None, None, None]], axis=2)
            yield StreamedToken(
                token_id=int(chosen.tokens[0, 0]),
                log_prob=float(token_log_probs(weights, log_probs)),
                posterior=token_posteriors(weights[None], log_probs[None])[0],
            )
            self._check_process()

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
        cancel: threading.Event | None = None,
    ) -> ForwardOutput:
        """Log-probabilities of ``labels`` int64 [Q, T + 1] under each document and under their mixture.

        The decoder starts with the first label, as in transformers' `forward(labels=...)`.  Several labels
        for one question are scored together, its documents read once: Q is then the number of labels.
        ``deadline`` and ``cancel`` as in :meth:`generate`.
        """
        stop = Stop.of(deadline, cancel)
        marginalize = checked_marginalize(marginalize, self.default_options.marginalize)
        spec = self._model.spec
        ids, mask, scores = checked_contexts(spec, context_input_ids, context_attention_mask, doc_scores)
        labels = checked_labels(spec, labels, len(ids))
        prior = log_prior(scores)
        if len(ids) == 1:
            prior = np.repeat(prior, len(labels), axis=0)
        per_document = self._under_each_document(ids, mask, labels, stop)  # [Q, T, D]
        weights = np.stack(
            [token_weights(p, given, marginalize)[:-1] for p, given in zip(prior, per_document, strict=True)]
        )
        return ForwardOutput(
            log_prior=prior,
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
        cancel: threading.Event | None = None,
    ) -> FloatArray:
        """log p(y | x) of given outputs: float32 [Q], the negative of the loss of transformers' `get_nll`.

        labels int64 [Q, T], padded with the pad token, or [N, T] for one question; the decoder starts with
        the first label, so that one is read and not scored.  ``marginalize`` and ``exclude_bos_score``
        default to the model's; ``deadline`` and ``cancel`` as in :meth:`generate`.
        """
        spec = self._model.spec
        marginalize = checked_marginalize(marginalize, self.default_options.marginalize)
        checked_flag("exclude_bos_score", exclude_bos_score)
        output = self.forward(
            context_input_ids,
            context_attention_mask,
            doc_scores,
            labels,
            marginalize=marginalize,
            deadline=Stop.of(deadline, cancel),
        )
        targets = np.asarray(labels)[:, 1:]
        skip = self.bundle.manifest.rag.exclude_bos_score if exclude_bos_score is None else exclude_bos_score
        skip = skip and targets.shape[1] > 0 and bool((targets[:, 0] == spec.bos_token_id).all())
        rows = zip(output.log_prior, output.document_log_probs.transpose(0, 2, 1), targets, strict=True)
        if marginalize == "token":
            found = [token_log_likelihood(prior, given, row, spec.pad_token_id) for prior, given, row in rows]
        else:
            found = [
                sequence_log_likelihood(prior, given, row, spec.pad_token_id, skip_first=skip)
                for prior, given, row in rows
            ]
        return np.array(found, np.float32)

    @while_open
    def check_options(self, options: GenerationOptions) -> None:
        """Refuse options that this model cannot follow; the message names every limit."""
        if faults := option_errors(checked_kind(options), self._model.spec):
            raise OptionsError(f"Generation options do not fit the model: {'; '.join(faults)}.")

    def _release(self) -> None:
        del self._model

    def _checked_options(self, options: GenerationOptions | None) -> GenerationOptions:
        options = self.default_options if options is None else options
        self.check_options(options)
        return options

    def _under_each_document(self, ids: IntArray, mask: IntArray, labels: IntArray, stop: Stop) -> FloatArray:
        """log p(y_t | x, z, y_<t) of labels [Q, T + 1]: float32 [Q, T, D], as many at once as there is memory
        for.

        Several labels of one question are one trie over one reading.
        """
        shape = len(labels), *ids.shape[1:]
        at_once = self._fitting(shape, beams=1, target=labels.shape[1])
        reading = self._model.read(ids, mask, stop) if len(ids) == 1 else None
        found: list[FloatArray] = []
        for start in range(0, len(labels), at_once):
            part = slice(start, start + at_once)
            starts, targets = labels[part, 0].tolist(), labels[part, 1:]
            if reading is not None:
                (outputs,) = output_log_probs(self._model, reading, [list(targets)], starts[:1])
                found += outputs
                continue
            own, rows = self._model.read(ids[part], mask[part], stop), [[row] for row in targets]
            found += [output for (output,) in output_log_probs(self._model, own, rows, starts)]
        return np.stack(found)

    def _by_document(self, reading: EncodedDocuments, prior: FloatArray, rules: Rules) -> list[list[Output]]:
        found = search_by_document(self._model, reading, rules, prior.shape[1])
        if rules.options.search == "fast":
            return fast(found, prior, rules.options)
        return thorough(self._model, reading, found, prior, rules.options)

    def _over_the_marginal(
        self, reading: EncodedDocuments, prior: FloatArray, rules: Rules
    ) -> list[list[Output]]:
        """One search over log Σ_z weight(z) p(y_t | x, z, y_<t): RAG-Token, and RAG-Sequence jointly."""
        options = rules.options
        if options.do_sample and options.num_beams == 1:
            return sample(SearchStep(self._model, reading, prior, rules))
        if options.marginalize == "sequence":  # the best are chosen at the end, by their likelihood
            rules = replace(rules, options=replace(options, num_return_sequences=options.num_beams))
        return beam_search(SearchStep(self._model, reading, prior, rules))

    def _started(
        self,
        ids: IntArray,
        mask: IntArray,
        doc_scores: FloatArray,
        options: GenerationOptions,
        allowed_tokens: AllowedTokens | None,
        stop: Stop,
    ) -> tuple[EncodedDocuments, FloatArray, Rules]:
        """Read the documents and set up the rules of the search."""
        prior = log_prior(doc_scores)
        # What the mask hides is no token: how far a batch is padded must not change an answer.
        visible = np.where(mask != 0, ids, -1)
        return self._model.read(ids, mask, stop), prior, Rules(options, visible, allowed_tokens)

    def _questions_at_once(self, shape: tuple[int, ...], options: GenerationOptions) -> int:
        """How many of Q questions [Q, D, S] are searched together: all, if there is memory for them."""
        beams = max(options.num_beams, options.num_return_sequences)
        return self._fitting(shape, beams, options.longest)

    def _fitting(self, shape: tuple[int, ...], beams: int, target: int) -> int:
        """How many of Q questions [Q, D, S] there is memory for, with ``beams`` of ``target`` tokens each."""
        questions, n_docs, source = shape
        if self.memory_limit is None:
            return questions_that_fit(self._model.spec, questions, n_docs, source, beams, target)
        return questions_at_once(self._model.spec, self.memory_limit, n_docs, source, beams, target)


def _joint_ranking(hypotheses: list[Hypothesis], options: GenerationOptions) -> list[Hypothesis]:
    """The joint search ranks and scores what it found by log p(y | x), as the thorough one does."""
    ranked = sorted(hypotheses, key=lambda h: -h.log_prob)[: options.num_return_sequences]
    return [replace(h, score=h.log_prob) for h in ranked]
