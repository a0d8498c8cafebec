"""One step of a search: ask the model, apply the rules."""

from collections.abc import Callable
from typing import TypeAlias

from ragengine.arrays import FloatArray, IntArray
from ragengine.generation.decoders.base import EncodedDocuments, StepInputs
from ragengine.generation.marginalization import beam_weights
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.candidates import Candidates, probe_ids, ruled
from ragengine.generation.search.rules import Rules, StepRules
from ragengine.runtime.cancellation import NEVER, Stop

Watch: TypeAlias = Callable[[Candidates, StepRules, FloatArray], None]
"""Sees the candidates of a step, the rules and the beams' scores [Q, B] before the search does; may raise."""


class SearchStep:
    """The model under a search's rules: beams over encoded documents, which decode one token a step."""

    def __init__(
        self,
        model: GeneratorModel,
        encoded: EncodedDocuments,
        log_prior: FloatArray,
        rules: Rules,
        stop: Stop = NEVER,
        watch: Watch | None = None,
    ) -> None:
        """``log_prior`` is log p(z | x), float32 [Q, D], of the encoded documents."""
        self.log_prior = log_prior
        self.options = rules.options
        self.vocab_size = model.spec.vocab_size
        self._rules = rules
        self._numbers: list[int] = list(range(len(log_prior)))  # of the questions that are searched still
        self._stop = stop
        self._watch = watch
        self._model = model
        self._decoding = model.start(encoded, beams=self._beams(), steps=self.options.longest - 1)

    def _beams(self) -> int:
        """How many rows a question has in a step at most."""
        return self.options.paths

    def keep(self, questions: IntArray) -> None:
        """Go on with the questions at these places alone, in that order; the others are done."""
        self.log_prior = self.log_prior[questions]
        self._numbers = [self._numbers[question] for question in questions.tolist()]
        self._decoding.keep(questions)

    def candidates(
        self,
        sequences: IntArray,
        log_probs: FloatArray,
        parents: IntArray,
        beam_scores: FloatArray,
        count: int,
    ) -> Candidates:
        """Continuations of every beam that the rules leave, the best ``count`` of a question among them.

        Args:
            sequences: int64 [Q, B, T], the beams' tokens with the start token.
            log_probs: float32 [Q, B, T - 1, D], log p(y_t | x, z, y_<t) of the tokens after the start token.
            parents: int64 [Q, B], which beam of the step before each continues.
            beam_scores: float32 [Q, B], as the search counts them.
            count: candidates wanted of each question.
        """
        rules = self._rules.at(sequences, self._numbers)
        log_weights = beam_weights(self.log_prior, log_probs, self.options.marginalize)
        probes = probe_ids(rules, filler=self.options.decoder_start_token_id)
        wanted = 1 if rules.named else count + rules.margin
        inputs = StepInputs(
            token_ids=sequences[:, :, -1],
            beam_indices=parents,
            log_weights=log_weights,
            beam_scores=beam_scores,
            num_candidates=min(wanted, sequences.shape[1] * self.vocab_size),
            probe_ids=probes,
        )
        outputs = self._model.decode_step(self._decoding, inputs, self._stop)
        found = ruled(outputs, rules, probes, beam_scores, log_weights, self.options.repetition_penalty)
        if self._watch is not None:
            self._watch(found, rules, beam_scores)
        return found
