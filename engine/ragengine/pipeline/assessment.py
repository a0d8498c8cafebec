"""The last stage of an answer: flags, and the confidence by the calibration beside the index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragengine.arrays import FloatArray
from ragengine.confidence.corpus import Corpus
from ragengine.confidence.features import features
from ragengine.confidence.model import ConfidenceModel
from ragengine.errors import InputError
from ragengine.options import GenerationOptions
from ragengine.pipeline.flags import doubts
from ragengine.results import Answer

CANDIDATES = 2
"""Hypotheses that the features compare."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an answer is assessed by, beside itself.

    bundle   the bundle's fingerprint
    corpora  for each question what was searched; empty where documents were brought
    vectors  q(x), float32 [Q, E]
    """

    bundle: str
    corpora: Sequence[Corpus | None]
    vectors: FloatArray

    def search_options(self, options: GenerationOptions) -> GenerationOptions:
        """``options``, returning a second hypothesis where a calibration compares the two."""
        calibrated = any(corpus is not None and corpus.calibration is not None for corpus in self.corpora)
        return with_candidates(options) if calibrated else options

    def check_abstaining(self, options: GenerationOptions, *, others: bool) -> None:
        """Refuse before anything is generated where no answer would have a confidence to decide by.

        ``others`` is whether the answers are made in a way that is never calibrated.

        Raises:
            InputError: documents were brought, or there is no calibration for these options.
        """
        for corpus in self.corpora or [None]:
            model = None if corpus is None else corpus.calibration
            if corpus is None or model is None:
                raise InputError(
                    "abstain is True, but what is searched has no calibration; run ragengine calibrate, and "
                    "bring no documents of your own."
                )
            if flag := self._misfit(model, corpus, options, others=others):
                raise InputError(f"abstain is True, but {_REFUSED[flag]}; run ragengine calibrate again.")

    def assessed(self, answer: Answer, number: int) -> Answer:
        """The answer to question ``number`` with its flags and its confidence."""
        corpus = self.corpora[number] if self.corpora else None
        vector = self.vectors[number] if self.corpora else None
        answer = replace(answer, flags=answer.flags + doubts(answer, corpus, vector))
        if corpus is not None and corpus.calibration is not None:
            answer = self._with_confidence(answer, corpus, corpus.calibration)
        return _with_hypotheses(answer, answer.options.num_return_sequences)

    def _with_confidence(self, answer: Answer, corpus: Corpus, model: ConfidenceModel) -> Answer:
        others = answer.doc_pruning is not None or answer.adaptive_reading or answer.constrained
        if flag := self._misfit(model, corpus, answer.options, others=others):
            return replace(answer, flags=(*answer.flags, flag))
        confidence, answerability = map(float, model.probabilities(features(answer, model.rarity)))
        low = ("low_confidence",) if confidence < model.threshold else ()
        return replace(answer, confidence=confidence, answerability=answerability, flags=answer.flags + low)

    def _misfit(
        self, model: ConfidenceModel, corpus: Corpus, options: GenerationOptions, *, others: bool
    ) -> str | None:
        """The flag that says why a calibration does not apply, or None."""
        if (model.bundle, model.index) != (self.bundle, corpus.fingerprint):
            return "calibration_stale"
        if others or not model.fits(options):
            return "calibration_other_options"
        return None


_REFUSED = {
    "calibration_stale": "the index's calibration is of another state of bundle or index",
    "calibration_other_options": "the index's calibration was made with other generation options",
}


def with_candidates(options: GenerationOptions) -> GenerationOptions:
    """``options``, returning two hypotheses where the search has them: the first stays what it is."""
    if options.do_sample or options.num_beams < CANDIDATES or options.num_return_sequences >= CANDIDATES:
        return options
    return options.replace(num_return_sequences=CANDIDATES)


def _with_hypotheses(answer: Answer, count: int) -> Answer:
    """An answer with the hypotheses that were asked for, of those that were compared."""
    return replace(
        answer,
        hypotheses=answer.hypotheses[:count],
        texts=answer.texts[:count],
        raw_texts=answer.raw_texts[:count],
    )
