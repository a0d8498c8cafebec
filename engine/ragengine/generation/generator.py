"""`Generator`: token ids of documents in, hypotheses or log-probabilities out."""

import operator
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.agreement import option_faults
from ragengine.bundle import Bundle
from ragengine.cancellation import Stop
from ragengine.ending import awaited_at_exit
from ragengine.errors import InputError, OptionsError
from ragengine.generation.beam_search import beam_search
from ragengine.generation.decoding import Reading
from ragengine.generation.likelihood import sequence_log_likelihood, token_log_likelihood
from ragengine.generation.mixture import (
    Marginalize,
    beam_weights,
    log_prior,
    logsumexp,
    token_log_probs,
    token_posteriors,
    token_weights,
)
from ragengine.generation.model import GeneratorModel
from ragengine.generation.outputs import Output, hypothesis
from ragengine.generation.rules import AllowedTokens, Rules
from ragengine.generation.sample import greedy_tokens, sample
from ragengine.generation.sequence import fast, search_by_document, thorough
from ragengine.generation.stepper import Stepper
from ragengine.generation.trie import output_log_probs
from ragengine.lifetime import Resource, while_open
from ragengine.memory import check_weights_fit, questions_at_once, questions_that_fit
from ragengine.options import GenerationOptions, checked_kind
from ragengine.results import Hypothesis
from ragengine.sessions import Device

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ForwardOutput:
    """Log-probabilities of given labels, what `RetrievAugLMMarginOutput` gives a researcher.

    log_prior           float32 [Q, D]     log p(z | x)
    document_log_probs  float32 [Q, D, T]  log p(y_t | x, z, y_<t)
    log_probs           float32 [Q, T]     log p(y_t | x, y_<t) of the model that was asked for
    posteriors          float32 [Q, T, D]

    T counts the labels without the first, which the decoder only reads.
    """

    log_prior: FloatArray
    document_log_probs: FloatArray
    log_probs: FloatArray
    posteriors: FloatArray


@dataclass(frozen=True, eq=False)
class StreamedToken:
    """One token of a running search: its id, log p(y_t | x, y_<t), and its posterior, float32 [D]."""

    token_id: int
    log_prob: float
    posterior: FloatArray


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
        options = options or self.default_options
        self.check_options(options)
        ids, mask, scores = self._checked(context_input_ids, context_attention_mask, doc_scores)
        allowed = prefix_allowed_tokens_fn and _checked_allowed(
            prefix_allowed_tokens_fn, self._model.spec.vocab_size
        )
        hypotheses: list[list[Hypothesis]] = []
        while (done := len(hypotheses)) < len(ids):
            part = slice(done, done + self._questions_at_once(ids.shape, options))
            numbered = None if allowed is None else _numbered_from(done, allowed)
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
                raise OptionsError(
                    f"The options leave no output for question {first + question}: at some step every token "
                    "was banned; loosen suppress_tokens, bad_words_ids, the n-gram rules or allowed tokens."
                )
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
        options = options or self.default_options
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
        self.check_options(options)
        ids, mask, scores = self._checked(context_input_ids, context_attention_mask, doc_scores)
        if len(ids) != 1:
            raise InputError(f"{len(ids)} questions cannot stream together; stream one at a time.")
        self._questions_at_once(ids.shape, options)
        reading, prior, rules = self._started(ids, mask, scores, options, None, stop)
        return self._streamed(Stepper(self._model, reading, prior, rules), prior, options)

    def _streamed(
        self, stepper: Stepper, prior: FloatArray, options: GenerationOptions
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
        marginalize = marginalize or self.default_options.marginalize
        ids, mask, scores = self._checked(context_input_ids, context_attention_mask, doc_scores)
        labels = self._checked_labels(labels, len(ids))
        prior, starts = log_prior(scores), labels[:, 0].tolist()
        if len(ids) == 1 and len(labels) > 1:
            targets, starts = [list(labels[:, 1:])], starts[:1]
            prior = np.repeat(prior, len(labels), axis=0)
        else:
            targets = [[row] for row in labels[:, 1:]]
        found = output_log_probs(self._model, self._model.read(ids, mask, stop), targets, starts)
        per_document = np.stack([output for outputs in found for output in outputs])  # [Q, T, D]
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
        options, spec = self.default_options, self._model.spec
        marginalize = marginalize or options.marginalize
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
        if faults := option_faults(checked_kind(options), self._model.spec):
            raise OptionsError(f"Generation options do not fit the model: {'; '.join(faults)}.")

    def _release(self) -> None:
        del self._model

    def _by_document(self, reading: Reading, prior: FloatArray, rules: Rules) -> list[list[Output]]:
        found = search_by_document(self._model, reading, rules, prior.shape[1])
        if rules.options.search == "fast":
            return fast(found, prior, rules.options)
        return thorough(self._model, reading, found, prior, rules.options)

    def _over_the_marginal(self, reading: Reading, prior: FloatArray, rules: Rules) -> list[list[Output]]:
        """One search over log Σ_z weight(z) p(y_t | x, z, y_<t): RAG-Token, and RAG-Sequence jointly."""
        options = rules.options
        if options.do_sample and options.num_beams == 1:
            return sample(Stepper(self._model, reading, prior, rules))
        if options.marginalize == "sequence":  # the best are chosen at the end, by their likelihood
            rules = replace(rules, options=replace(options, num_return_sequences=options.num_beams))
        return beam_search(Stepper(self._model, reading, prior, rules))

    def _started(
        self,
        ids: IntArray,
        mask: IntArray,
        doc_scores: FloatArray,
        options: GenerationOptions,
        allowed_tokens: AllowedTokens | None,
        stop: Stop,
    ) -> tuple[Reading, FloatArray, Rules]:
        """Read the documents and set up the rules of the search."""
        prior = log_prior(doc_scores)
        # What the mask hides is no token: how far a batch is padded must not change an answer.
        visible = np.where(mask != 0, ids, -1)
        return self._model.read(ids, mask, stop), prior, Rules(options, visible, allowed_tokens)

    def _questions_at_once(self, shape: tuple[int, ...], options: GenerationOptions) -> int:
        """How many of Q questions [Q, D, S] are searched together: all, if there is memory for them."""
        questions, n_docs, source = shape
        sizes = n_docs, source, max(options.num_beams, options.num_return_sequences), options.longest
        if self.memory_limit is None:
            return questions_that_fit(self._model.spec, questions, *sizes)
        return questions_at_once(self._model.spec, self.memory_limit, *sizes)

    def _checked(
        self, ids: IntArray, mask: IntArray, doc_scores: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        ids, mask = _array("context_input_ids", ids), _array("context_attention_mask", mask)
        doc_scores = _array("doc_scores", doc_scores)
        if ids.ndim != 3 or 0 in ids.shape or ids.dtype.kind not in "iu":
            raise _unfit("context_input_ids", ids, "int64 [Q, D, S]")
        if mask.shape != ids.shape or mask.dtype.kind not in "iub":
            raise _unfit("context_attention_mask", mask, f"int64 {list(ids.shape)}")
        if doc_scores.shape != ids.shape[:2] or doc_scores.dtype.kind != "f":
            raise _unfit("doc_scores", doc_scores, f"float32 {list(ids.shape[:2])}")
        if ids.shape[2] > self._model.spec.max_positions:
            longest = self._model.spec.max_positions
            raise InputError(f"Documents have {ids.shape[2]} tokens; the generator reads at most {longest}.")
        if not (mask != 0).any(axis=2).all():
            raise InputError(
                "A document is masked whole; give it at least one token, or a doc_score of -inf."
            )
        self._check_tokens("context_input_ids", ids)
        return ids.astype(np.int64), (mask != 0).astype(np.int64), doc_scores.astype(np.float32)

    def _checked_labels(self, labels: IntArray, questions: int) -> IntArray:
        labels = _array("labels", labels)
        fitting = labels.ndim == 2 and (len(labels) == questions or questions == 1)
        if not fitting or labels.dtype.kind not in "iu" or not labels.size:
            raise _unfit("labels", labels, f"int64 [{questions}, T], T >= 1,")
        if questions == 1 and (labels[:, 0] != labels[0, 0]).any():
            raise InputError("Several labels of one question start with different tokens; score them apart.")
        if labels.shape[1] > self._model.spec.max_positions:
            longest = self._model.spec.max_positions
            raise InputError(f"labels have {labels.shape[1]} tokens; the generator writes at most {longest}.")
        self._check_tokens("labels", labels)
        return labels.astype(np.int64)

    def _check_tokens(self, name: str, ids: IntArray) -> None:
        if ids.min() < 0 or ids.max() >= self._model.spec.vocab_size:
            raise InputError(
                f"{name} hold token {ids.min() if ids.min() < 0 else ids.max()}; "
                f"the vocabulary has tokens 0 to {self._model.spec.vocab_size - 1}."
            )


def _joint_ranking(hypotheses: list[Hypothesis], options: GenerationOptions) -> list[Hypothesis]:
    """The joint search ranks and scores what it found by log p(y | x), as the thorough one does."""
    ranked = sorted(hypotheses, key=lambda h: -h.log_prob)[: options.num_return_sequences]
    return [replace(h, score=h.log_prob) for h in ranked]


def _checked_allowed(allowed_tokens: AllowedTokens, vocab_size: int) -> AllowedTokens:
    """``allowed_tokens`` with what it returns checked; its own exceptions come out as they are."""
    if not callable(allowed_tokens):
        raise InputError(
            f"prefix_allowed_tokens_fn is {type(allowed_tokens).__name__}; it must be a function."
        )

    def allowed(question: int, tokens: list[int]) -> list[int]:
        found = allowed_tokens(question, tokens)
        try:
            ids = [operator.index(token) for token in found]
        except TypeError as reason:
            raise InputError(
                f"prefix_allowed_tokens_fn returned {found!r:.80} for question {question}; it must return "
                "token ids."
            ) from reason
        outside = [token for token in ids if not 0 <= token < vocab_size]
        if outside:
            raise InputError(
                f"prefix_allowed_tokens_fn returned token {outside[0]} for question {question}; the "
                f"vocabulary has tokens 0 to {vocab_size - 1}."
            )
        return ids

    return allowed


def _array(name: str, given: Any) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, OverflowError) as reason:  # rows of different lengths
        raise InputError(f"{name} is not an array: {reason}.") from reason


def _numbered_from(first: int, allowed_tokens: AllowedTokens) -> AllowedTokens:
    """``allowed_tokens`` for questions that are counted from ``first``."""
    return lambda question, tokens: allowed_tokens(first + question, tokens)


def _unfit(name: str, array: NDArray[Any], expected: str) -> InputError:
    return InputError(f"{name} is {array.dtype} {list(array.shape)}; {expected} is expected.")
