"""Greedy search that reads several tokens in one step (speculative decoding, Leviathan et al. 2023).

The documents suggest how an output may go on (:mod:`.prompt_lookup`).  One step reads the last token and the
suggested ones as a chain of the token tree, and gives the next token's candidates after each of them.  The
search asks for candidates as ever, one token after the other: those after a suggested token that it has
chosen are there already, and no step is made.  So every token and score is that of the search without.

A step ranks the candidates of all its rows together.  Those of one row are among them in their order, so its
best candidate is known as soon as one is there that the rules leave; otherwise the row is read again.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.generation.decoders.base import EncodedDocuments, StepInputs, StepOutputs
from ragengine.generation.marginalization import beam_weights
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.candidates import DEAD, Candidates, probe_ids, ruled
from ragengine.generation.search.prompt_lookup import PromptLookup
from ragengine.generation.search.rules import Rules, StepRules
from ragengine.generation.search.step import SearchStep, Watch
from ragengine.options import GenerationOptions
from ragengine.runtime.cancellation import NEVER, Stop

_CANDIDATES: Final = 64
"""Candidates asked for each row: a row whose best token has a probability of 1/64 has it among them."""


def search_step(
    model: GeneratorModel,
    encoded: EncodedDocuments,
    log_prior: FloatArray,
    rules: Rules,
    stop: Stop = NEVER,
    watch: Watch | None = None,
) -> SearchStep:
    """The step of a search: with suggestions where the options ask for them and they can change nothing.

    A callback of the caller's is not asked about tokens that no output has; ``watch`` sees every candidate.
    """
    possible = (
        _wants_suggestions(rules.options)
        and len(log_prior) == 1
        and rules.allowed_tokens is None
        and rules.context_input_ids is not None
        and model.reads_chains
        and watch is None
    )
    if possible:
        return LookaheadStep(model, encoded, log_prior, rules, stop)
    return SearchStep(model, encoded, log_prior, rules, stop, watch)


def _wants_suggestions(options: GenerationOptions) -> bool:
    """Whether one beam follows tokens whose mixture is known before they are."""
    greedy = options.num_beams == 1 and not options.do_sample and options.marginalize == "token"
    return greedy and options.prompt_lookup_num_tokens is not None


@dataclass(frozen=True)
class _Row:
    """What a step returned for one of its rows, and the rules there."""

    outputs: StepOutputs
    rules: StepRules
    probes: IntArray

    @property
    def is_known(self) -> bool:
        """Whether the best continuation is among the outputs."""
        if self.rules.forced is not None:
            return True
        gone = self.rules.banned[0][0] | self.rules.penalised[0][0]
        ranked = zip(self.outputs.tokens[0].tolist(), self.outputs.scores[0].tolist(), strict=True)
        return any(token not in gone and score > DEAD for token, score in ranked)


class LookaheadStep(SearchStep):
    """The step of one question's greedy RAG-Token search, which reads ahead what the documents suggest."""

    def __init__(
        self,
        model: GeneratorModel,
        encoded: EncodedDocuments,
        log_prior: FloatArray,
        rules: Rules,
        stop: Stop = NEVER,
    ) -> None:
        options = rules.options
        assert rules.context_input_ids is not None
        assert options.prompt_lookup_num_tokens is not None
        self._most = min(options.prompt_lookup_num_tokens, options.longest)
        super().__init__(model, encoded, log_prior, rules, stop)
        self._encoded = encoded
        best_first = rules.context_input_ids[0][np.argsort(-log_prior[0], kind="stable")]
        self._lookup = PromptLookup(best_first, options.max_matching_ngram_size, options.eos_token_ids)
        self._chain: list[int] = []  # all tokens read, the last of them by the rows of the last step
        self._rows: list[_Row] = []

    def candidates(
        self,
        sequences: IntArray,
        log_probs: FloatArray,
        parents: IntArray,
        beam_scores: FloatArray,
        count: int,
    ) -> Candidates:
        """Continuations of the beam, the best among them; arguments as in :meth:`SearchStep.candidates`."""
        tokens: list[int] = sequences[0, 0].tolist()
        row = self._row_after(tokens)
        if row is None:
            self._read(tokens)
            row = self._row_after(tokens)
        if row is None:  # the candidates of suggested tokens left no place for those of this one
            self._read_anew(tokens, count)
            row = self._rows[-1]
        weights = beam_weights(self.log_prior, log_probs, "token")
        ranked = row.outputs
        scored = StepOutputs(
            ranked.scores + beam_scores, ranked.beams, ranked.tokens, ranked.log_probs, ranked.probe_log_probs
        )
        penalty = self.options.repetition_penalty
        return ruled(scored, row.rules, row.probes, beam_scores, weights, penalty)

    def _beams(self) -> int:
        return 1 + self._most

    def _row_after(self, tokens: list[int]) -> _Row | None:
        """The row that has read ``tokens``, if it knows what follows."""
        place = len(tokens) - 1 - (len(self._chain) - len(self._rows))
        if not 0 <= place < len(self._rows) or self._chain[: len(tokens)] != tokens:
            return None
        row = self._rows[place]
        return row if row.is_known else None

    def _read(self, tokens: list[int]) -> None:
        """Read the last of ``tokens``, and after it the suggested tokens that the rules let follow."""
        parent = max(0, len(tokens) - 2 - (len(self._chain) - len(self._rows)))
        chain, rules = list(tokens), [self._rules_after(tokens)]
        for token in self._suggested(tokens, rules[0].forced):
            if token in rules[-1].banned[0][0] or rules[-1].forced not in (None, token):
                break
            chain.append(token)
            rules.append(self._rules_after(chain))
        competing = [each.forced is None for each in rules]
        count = sum(_CANDIDATES + each.margin for each in rules)
        self._step(chain, rules, parent, np.where(competing, np.float32(0), DEAD), count)

    def _suggested(self, tokens: list[int], forced: int | None) -> list[int]:
        """What may follow ``tokens``: ``forced`` where that is certain, then what the documents suggest."""
        count = min(self._most, self.options.longest - 1 - len(tokens))
        certain = [] if forced is None or forced in self.options.eos_token_ids else [forced]
        return (certain + self._lookup.suggested([*tokens[1:], *certain], self._most))[: max(0, count)]

    def _read_anew(self, tokens: list[int], count: int) -> None:
        """Read all of ``tokens`` again, with candidates of the last one alone."""
        steps = self.options.longest - 1
        rows = max(len(tokens), self._beams())
        self._decoding = self._model.start(self._encoded, beams=rows, steps=steps)
        rules = [self._rules_after(tokens[: end + 1]) for end in range(len(tokens))]
        scores = np.full(len(tokens), DEAD, np.float32)
        scores[-1] = 0
        self._step(tokens, rules, 0, scores, count + rules[-1].margin)

    def _step(
        self, chain: list[int], rules: list[StepRules], parent: int, beam_scores: FloatArray, count: int
    ) -> None:
        """Read the end of ``chain``, a row for each of ``rules``, the first after row ``parent``."""
        width = len(rules)
        self._chain = chain
        probed = [probe_ids(each, filler=self.options.decoder_start_token_id) for each in rules]
        probes = np.full((1, width, max(each.shape[2] for each in probed)), probed[0][0, 0, 0])
        for place, each in enumerate(probed):
            probes[0, place, : each.shape[2]] = each[0, 0]
        inputs = StepInputs(
            token_ids=np.array([chain[-width:]]),
            beam_indices=np.full((1, width), parent),
            log_weights=np.repeat(self.log_prior[:, :, None], width, axis=2),
            beam_scores=beam_scores[None],
            num_candidates=min(count, width * self.vocab_size),
            probe_ids=probes,
            chained=width > 1,
        )
        outputs = self._model.decode_step(self._decoding, inputs, self._stop)
        self._rows = [
            _Row(_of_row(outputs, place), each, probes[:, place : place + 1])
            for place, each in enumerate(rules)
        ]

    def _rules_after(self, tokens: list[int]) -> StepRules:
        return self._rules.at(np.array([[tokens]]))


def _of_row(outputs: StepOutputs, place: int) -> StepOutputs:
    """What a step returned for one row of its only question, as a step of this row alone."""
    own = outputs.beams[0] == place
    return StepOutputs(
        scores=outputs.scores[:, own],
        beams=np.zeros((1, int(own.sum())), np.int64),
        tokens=outputs.tokens[:, own],
        log_probs=outputs.log_probs[:, :, own],
        probe_log_probs=outputs.probe_log_probs[:, :, place : place + 1],
    )
