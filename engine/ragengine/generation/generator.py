"""`Generator`: token ids of documents in, hypotheses or log-probabilities out."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle import Bundle
from ragengine.errors import InputError, OptionsError
from ragengine.generation.beam_search import beam_search
from ragengine.generation.mixture import log_prior, token_log_probs
from ragengine.generation.model import GeneratorModel
from ragengine.options import GenerationOptions
from ragengine.results import Hypothesis
from ragengine.sessions import Device

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]


class Generator:
    """The generator of a bundle, p(y | x, z), marginalised over the documents z.

    Safe to use from several threads.
    """

    def __init__(self, bundle: Bundle, *, device: Device = "auto", threads: int | None = None) -> None:
        self.bundle = bundle
        self.default_options = GenerationOptions.from_dict(bundle.manifest.generation)
        self._model = GeneratorModel(bundle, device=device, threads=threads)

    @classmethod
    def load(
        cls, bundle: str | Path | Bundle, device: Device = "auto", threads: int | None = None
    ) -> "Generator":
        """Open a bundle's generator.  Raises :class:`BundleError` when the bundle is not whole."""
        return cls(
            bundle if isinstance(bundle, Bundle) else Bundle.open(bundle), device=device, threads=threads
        )

    @property
    def device(self) -> str:
        """Where the graphs run, ``cpu`` or ``cuda``."""
        return self._model.device

    def generate(
        self,
        context_input_ids: IntArray,
        context_attention_mask: IntArray,
        doc_scores: FloatArray,
        options: GenerationOptions | None = None,
    ) -> list[list[Hypothesis]]:
        """Search for the outputs of Q questions, best first for each.

        context_input_ids, context_attention_mask int64 [Q, D, S]; doc_scores float32 [Q, D].
        transformers' `RagTokenForGeneration.generate` is the reference.
        """
        options = options or self.default_options
        self.check_options(options)
        ids, mask, scores = self._checked(context_input_ids, context_attention_mask, doc_scores)
        if options.marginalize != "token":
            raise OptionsError(
                "marginalize is 'sequence', which this version cannot decode; use marginalize='token'."
            )
        return beam_search(self._model, self._model.read(ids, mask), log_prior(scores), options)

    def score(
        self,
        context_input_ids: IntArray,
        context_attention_mask: IntArray,
        doc_scores: FloatArray,
        labels: IntArray,
    ) -> FloatArray:
        """log p(y | x) of given outputs under RAG-Token: float32 [Q].

        labels int64 [Q, T], padded with the pad token.  The negative of the loss of transformers'
        `RagTokenForGeneration.get_nll`, which shifts the labels: the decoder starts with the first
        label, so that one is read and not scored.
        """
        ids, mask, scores = self._checked(context_input_ids, context_attention_mask, doc_scores)
        labels = np.asarray(labels)
        if (
            labels.ndim != 2
            or len(labels) != len(ids)
            or labels.dtype.kind not in "iu"
            or not labels.shape[1]
        ):
            raise _unfit("labels", labels, "int64 [Q, T], T >= 1,")
        self._check_tokens("labels", labels)
        prior = log_prior(scores)
        reading = self._model.read(ids, mask)
        total = np.zeros(len(labels), np.float32)
        beam = np.zeros((len(labels), 1), np.int64)
        for position in range(labels.shape[1] - 1):
            target = labels[:, position + 1]
            step, reading = self._model.step(
                reading,
                labels[:, position, None].astype(np.int64),
                beam,
                log_weights=prior[:, :, None],
                beam_scores=np.zeros(beam.shape, np.float32),
                num_candidates=1,
                probe_ids=target[:, None, None].astype(np.int64),
            )
            log_prob = token_log_probs(prior, step.probe_log_probs[:, :, 0, 0])
            total += np.where(target == self._model.spec.tokenizer.pad_token_id, np.float32(0), log_prob)
        return total

    def check_options(self, options: GenerationOptions) -> None:
        """Refuse options that this model cannot follow; the message names every limit."""
        spec = self._model.spec
        faults = []
        if options.max_length > spec.max_positions:
            faults.append(f"max_length is {options.max_length}, the model has {spec.max_positions} positions")
        tokens = {
            "forced_bos_token_id": options.forced_bos_token_id,
            "forced_eos_token_id": options.forced_eos_token_id,
            "decoder_start_token_id": options.decoder_start_token_id,
            "eos_token_id": max(options.eos_token_ids, default=None),
        }
        for name, token in tokens.items():
            if token is not None and token >= spec.vocab_size:
                faults.append(f"{name} is {token}, the vocabulary has {spec.vocab_size} tokens")
        if faults:
            raise OptionsError(f"Generation options do not fit the model: {'; '.join(faults)}.")

    def _checked(
        self, ids: IntArray, mask: IntArray, doc_scores: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        ids, mask, doc_scores = np.asarray(ids), np.asarray(mask), np.asarray(doc_scores)
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

    def _check_tokens(self, name: str, ids: IntArray) -> None:
        if ids.min() < 0 or ids.max() >= self._model.spec.vocab_size:
            raise InputError(
                f"{name} hold token {ids.min() if ids.min() < 0 else ids.max()}; "
                f"the vocabulary has tokens 0 to {self._model.spec.vocab_size - 1}."
            )


def _unfit(name: str, array: NDArray[Any], expected: str) -> InputError:
    return InputError(f"{name} is {array.dtype} {list(array.shape)}; {expected} is expected.")
