"""One step of a search: ask the model, apply the rules."""

from ragengine.arrays import FloatArray, IntArray
from ragengine.generation.decoders.base import EncodedDocuments
from ragengine.generation.marginalization import beam_weights
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.candidates import Candidates, probe_ids, ruled
from ragengine.generation.search.rules import Rules


class SearchStep:
    """The model under a search's rules: its beams over a reading, which decode one token a step."""

    def __init__(
        self, model: GeneratorModel, reading: EncodedDocuments, log_prior: FloatArray, rules: Rules
    ) -> None:
        """``log_prior`` is log p(z | x), float32 [Q, D], of the documents that ``reading`` has read."""
        self.log_prior = log_prior
        self.rules = rules
        self.options = rules.options
        self.vocab_size = model.spec.vocab_size
        self._model = model
        self._decoding = model.start(reading, beams=self.options.paths, steps=self.options.longest - 1)

    def step(
        self,
        sequences: IntArray,
        log_probs: FloatArray,
        parents: IntArray,
        beam_scores: FloatArray,
        count: int,
    ) -> Candidates:
        """Continuations of every beam that the rules leave, the best ``count`` of a question among them.

        sequences int64 [Q, B, T] with the start token, log_probs float32 [Q, B, T - 1, D] of the tokens
        after it, parents int64 [Q, B] (the beam of the step before that each continues), beam_scores
        float32 [Q, B].
        """
        rules = self.rules.at(sequences)
        log_weights = beam_weights(self.log_prior, log_probs, self.options.marginalize)
        probes = probe_ids(rules, filler=self.options.decoder_start_token_id)
        wanted = 1 if rules.forced is not None or rules.allowed is not None else count + rules.margin
        step = self._model.step(
            self._decoding,
            sequences[:, :, -1],
            parents,
            log_weights=log_weights,
            beam_scores=beam_scores,
            num_candidates=min(wanted, sequences.shape[1] * self.vocab_size),
            probe_ids=probes,
        )
        return ruled(step, rules, probes, beam_scores, log_weights, self.options.repetition_penalty)
