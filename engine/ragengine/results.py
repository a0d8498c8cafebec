"""What the engine returns: documents, hypotheses, answers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray
from ragengine.errors import InputError
from ragengine.options import GenerationOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Document:
    """A passage z, retrieved or brought by the caller.

    ``score`` is q(x)·d(z); ``prior`` is p(z | x), the softmax of the scores over the documents read;
    ``posterior`` is its share of the answer (:attr:`Answer.document_shares`).  The last two are set on
    the documents of an answer.  ``metadata`` is what else the index knows of the passage, by field name.
    """

    title: str
    text: str
    id: str = ""
    score: float | None = None
    prior: float | None = None
    posterior: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON values, in the layout of ``ragengine ask --json``."""
        return {
            "id": self.id,
            "title": self.title,
            "text": self.text,
            "doc_score": _finite(self.score),
            "prior": self.prior,
            "posterior": self.posterior,
            "metadata": dict(self.metadata),
        }


class FoundDocuments(list[Document]):
    """The documents of a question, best first.

    ``missing_shards`` names the shards of the index that did not answer, and were allowed not to.
    """

    def __init__(self, documents: Iterable[Document] = (), missing_shards: tuple[str, ...] = ()) -> None:
        super().__init__(documents)
        self.missing_shards = missing_shards


@dataclass(frozen=True)
class Citation:
    """A part of an answer, and the sentence of a passage that its words are copied from.

    document                    which of :attr:`Answer.documents`
    start, end                  the words in the passage: ``text`` is ``document.text[start:end]``
    sentence_start, sentence_end  the sentence that holds them, in the same way
    answer_start, answer_end    the part of :attr:`Answer.text`
    """

    document: int
    start: int
    end: int
    text: str
    sentence_start: int
    sentence_end: int
    sentence: str
    answer_start: int
    answer_end: int


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One output y of the search.

    token_ids         int64 [T], without the decoder's start token, with the end token if there is one
    score             as transformers' ``sequences_scores``: log-probability as the search counts it
                      (a forced token counts 0), divided by T ** length_penalty
    log_prob          log p(y | x) of these tokens under the model; with ``search="fast"`` a lower bound, the
                      share of the documents whose own search found them
    token_log_probs   float32 [T], log p(y_t | x, y_<t); they sum to ``log_prob``
    token_posteriors  float32 [T, D], p(z | x, y_<=t): which document each token came from; in RAG-Sequence,
                      which document made the output as far as this token
    """

    token_ids: NDArray[np.int64]
    score: float
    log_prob: float
    token_log_probs: FloatArray
    token_posteriors: FloatArray


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one question, with where it came from.

    documents        those that were read, in the order of the D axis of the posteriors
    hypotheses       best first, with their texts in ``texts``
    tokens           the text of each token of the best hypothesis, T of them
    flags            what a reader should know before trusting the answer:
                     ``question_truncated``, the generator did not read the whole question;
                     ``fewer_documents``, fewer than ``n_docs`` were there;
                     ``documents_pruned``, some were left out by ``doc_pruning`` or ``adaptive_reading``;
                     ``max_length_reached``, the length limit cut the answer off;
                     ``trained_for_token``, ``trained_for_sequence``, the checkpoint is of the other kind
                     of RAG model than ``options.marginalize``;
                     ``empty_answer``, it has no words;
                     ``low_probability``, p(y | x) is under one half: all others together are likelier;
                     ``not_in_documents``, a word of it is in no document that was read, nor in the question;
                     ``posterior_spread``, no document has half of the posterior;
                     ``far_from_corpus``, the question is farther from its best passage than passages are
                     from their neighbours (``ragengine.confidence.corpus``);
                     ``low_confidence``, ``confidence`` is under the threshold of the calibration;
                     ``calibration_stale``, there is a calibration, of another bundle or index;
                     ``calibration_other_options``, it was made with other generation options;
                     ``shards_missing``, parts of the index did not answer (``missing_shards``);
                     ``abstained``, the text was withheld since the confidence is low
    timings_ms       milliseconds a stage of the whole call took
    options          what it was generated with
    doc_pruning      the threshold under which documents were left out, if there was one
    pruned           the documents left out, with the prior they had
    own_documents    whether the caller brought the documents
    filter           the values that the passages had to have, by field; None where all were searched
    raw_texts        the hypotheses' texts as decoded, with the space that many tokenizers begin one with;
                     ``texts`` are without it
    citations        the sentences that the answer's words are copied from; none where no passage has them
    confidence       the probability that the answer is right, by the index's calibration; None without one
    answerability    the probability that the documents hold an answer, by the same
    missing_shards   the shards that were not searched, since they did not answer and need not
    adaptive_reading whether documents were read only while they could change a token
    constrained      whether ``prefix_allowed_tokens_fn`` chose among the tokens
    """

    question: str
    texts: tuple[str, ...]
    documents: tuple[Document, ...]
    hypotheses: tuple[Hypothesis, ...]
    tokens: tuple[str, ...]
    flags: tuple[str, ...]
    timings_ms: dict[str, float]
    options: GenerationOptions
    doc_pruning: float | None = None
    pruned: tuple[Document, ...] = ()
    own_documents: bool = False
    filter: dict[str, list[str]] | None = None
    raw_texts: tuple[str, ...] = ()
    citations: tuple[Citation, ...] = ()
    confidence: float | None = None
    answerability: float | None = None
    adaptive_reading: bool = False
    missing_shards: tuple[str, ...] = ()
    constrained: bool = False

    @property
    def text(self) -> str:
        """The best hypothesis' text, without white space before it; "" where the answer was withheld."""
        return self.texts[0]

    @property
    def raw_text(self) -> str:
        """The best hypothesis' text as decoded, as transformers' ``batch_decode`` gives it."""
        return self.raw_texts[0] if self.raw_texts else self.text

    @property
    def score(self) -> float:
        """The best hypothesis' score (`Hypothesis.score`)."""
        return self.hypotheses[0].score

    @property
    def log_prob(self) -> float:
        """The best hypothesis' log p(y | x), in nats (`Hypothesis.log_prob`)."""
        return self.hypotheses[0].log_prob

    @property
    def token_log_probs(self) -> FloatArray:
        """log p(y_t | x, y_<t) of the best hypothesis' tokens in nats, float32 [T]."""
        return self.hypotheses[0].token_log_probs

    @property
    def token_posteriors(self) -> FloatArray:
        """The best hypothesis' posteriors, float32 [T, D]; rows sum to 1."""
        return self.hypotheses[0].token_posteriors

    @property
    def posterior_entropy(self) -> FloatArray:
        """The entropy of each token's posterior over the documents, in nats: float32 [T].

        0: the token came from one document; log D: from all alike.
        """
        return posterior_entropy(self.token_posteriors)

    @property
    def document_shares(self) -> FloatArray:
        """Each document's share of the best hypothesis, float32 [D]; they sum to 1.

        RAG-Token: the mean over the tokens of p(z | x, y_t, y_<t), every token weighing the same; that is
        the expected fraction of tokens that came from the document.  RAG-Sequence: p(z | x, y), the
        posterior after the last token, since one document makes the whole answer.
        """
        return document_shares(self.token_posteriors, self.options.marginalize)

    @property
    def pruned_documents(self) -> int:
        """How many documents ``doc_pruning`` left out."""
        return len(self.pruned)

    @property
    def pruned_mass(self) -> float:
        """The prior that the documents left out had together; 0.0 where none was left out.

        It bounds what leaving them out changed: see :func:`ragengine.pipeline.documents.select_documents`.
        """
        return sum(document.prior or 0.0 for document in self.pruned)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each of :attr:`flags`."""
        return tuple(note(self, flag) for flag in self.flags)

    def without_shards(self, missing: tuple[str, ...]) -> "Answer":
        """This answer as one that was found without the shards ``missing``."""
        if not missing:
            return self
        return replace(self, missing_shards=missing, flags=(*self.flags, "shards_missing"))

    def abstain(self) -> "Answer":
        """This answer, or where its confidence is low its documents without any text.

        The hypotheses' tokens and numbers stay; ``texts``, ``raw_texts``, ``tokens`` and ``citations`` go.

        Raises:
            InputError: there is no confidence to decide by.
        """
        if self.confidence is None:
            raise InputError(
                "The answer has no confidence, so abstain cannot decide; "
                "run ragengine calibrate with these options, and bring no documents of your own."
            )
        if "low_confidence" not in self.flags or "abstained" in self.flags:
            return self
        nothing = ("",) * len(self.texts)
        return replace(
            self,
            texts=nothing,
            raw_texts=nothing,
            tokens=(),
            citations=(),
            flags=(*self.flags, "abstained"),
        )

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw Figure 2 of the paper: the answer's tokens over its documents, shaded by posterior.

        Args:
            path: where to write the figure, as PNG or SVG by its suffix; None writes nothing.

        Returns:
            The matplotlib figure.

        Raises:
            DependencyError: matplotlib is not installed.
            InputError: another suffix, a path that cannot be written, or an answer whose text was withheld.
        """
        if "abstained" in self.flags:
            raise InputError("The answer was withheld, so there are no tokens to draw; ask without abstain.")
        from ragengine.plot import PosteriorPlot, draw

        kind = "p(z | x, y≤ₜ)" if self.options.marginalize == "sequence" else "p(z | x, yₜ, y<ₜ)"
        notes = [f"posterior {kind} in %", f"log p(y|x) {self.log_prob:.2f}"]
        if self.pruned:
            notes.append(f"{self.pruned_documents} more left out, prior {self.pruned_mass:.2g}")
        plot = PosteriorPlot(
            question=self.question,
            answer=self.text,
            notes=tuple(notes),
            tokens=self.tokens,
            posteriors=self.token_posteriors,
            titles=tuple(document.title or document.id for document in self.documents),
            priors=tuple(document.prior or 0.0 for document in self.documents),
            shares=tuple(document.posterior or 0.0 for document in self.documents),
        )
        return draw(plot, path)

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON values, in the layout of ``ragengine ask --json``.

        A number that JSON cannot hold (a document score of -inf) becomes None.
        """
        best = self.hypotheses[0]
        tokens = zip(
            best.token_ids.tolist() if self.tokens else (),
            self.tokens,
            best.token_posteriors.tolist() if self.tokens else (),
            best.token_log_probs.tolist() if self.tokens else (),
            self.posterior_entropy.tolist() if self.tokens else (),
            strict=True,
        )
        return {
            "question": self.question,
            "answer": self.text,
            "score": _finite(self.score),
            "documents": [document.to_dict() for document in self.documents],
            "tokens": [
                {"id": id, "text": text, "posterior": row, "log_prob": _finite(log_prob), "entropy": entropy}
                for id, text, row, log_prob, entropy in tokens
            ],
            "flags": list(self.flags),
            "timings_ms": dict(self.timings_ms),
            "log_prob": _finite(self.log_prob),
            "pruned_documents": [document.to_dict() for document in self.pruned],
            "hypotheses": [
                {"answer": text, "score": _finite(found.score), "log_prob": _finite(found.log_prob)}
                for text, found in zip(self.texts, self.hypotheses, strict=True)
            ],
            "raw_answer": self.raw_text,
            "citations": [asdict(citation) for citation in self.citations],
            "confidence": self.confidence,
            "answerability": self.answerability,
            "notes": list(self.notes),
            "missing_shards": list(self.missing_shards),
        }


def note(answer: Answer, flag: str) -> str:
    """The sentence for one of :attr:`Answer.flags`."""
    found, asked = len(answer.documents) + answer.pruned_documents, answer.options.n_docs
    probability, confidence = math.exp(min(answer.log_prob, 0.0)), answer.confidence or 0.0
    sentences = {
        "question_truncated": "The question is longer than the generator reads and was cut.",
        "fewer_documents": f"Only {found} documents were there, fewer than n_docs, {asked}.",
        "documents_pruned": f"{answer.pruned_documents} not read, with a prior of {answer.pruned_mass:.3g}.",
        "max_length_reached": "The length limit cut the answer off; a larger max_length gives more.",
        "trained_for_token": "The model was trained for RAG-Token.",
        "trained_for_sequence": "The model was trained for RAG-Sequence.",
        "empty_answer": "The answer is empty.",
        "low_probability": f"The model gave this answer {_percent(probability)}, and the others more.",
        "not_in_documents": "No passage that was read has every word of the answer.",
        "posterior_spread": "No passage has half of the posterior: the answer rests on several.",
        "far_from_corpus": "No passage is as near to the question as passages are to their neighbours.",
        "low_confidence": f"The confidence, {_percent(confidence)}, is under the calibration's threshold.",
        "calibration_stale": "The index's calibration is of another state of bundle or index and is ignored; "
        "run ragengine calibrate again.",
        "calibration_other_options": "The index's calibration was made with other generation options and is "
        "ignored.",
        "shards_missing": "Not all passages were searched: nothing came from "
        f"{', '.join(answer.missing_shards)}.",
        "abstained": "The text was withheld, since the confidence is low.",
    }
    return sentences[flag]


def posterior_entropy(posteriors: FloatArray) -> FloatArray:
    """-Σ_z p(z) log p(z) in nats, with 0 log 0 = 0: [..., D] -> [...]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(posteriors > 0, posteriors * np.log(posteriors), np.float32(0))
    entropy: FloatArray = np.maximum(-terms.sum(axis=-1), 0).astype(np.float32)
    return entropy


def document_shares(posteriors: FloatArray, marginalize: Literal["token", "sequence"]) -> FloatArray:
    """Each document's share in an answer, as :attr:`Answer.document_shares`.

    Args:
        posteriors: p(z | x, y_<=t) of its tokens, float32 [T, D], T >= 1.
        marginalize: the mixture that they are of.

    Returns:
        float32 [D]: the last token's posterior of RAG-Sequence, the mean over the tokens of RAG-Token.
    """
    shares: FloatArray = posteriors[-1] if marginalize == "sequence" else posteriors.mean(axis=0)
    return shares


def _percent(share: float) -> str:
    """A share in words; more digits where it is near 0 or 1."""
    return f"{share:.0%}" if 0.01 <= share <= 0.99 else f"{share:.2%}"


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
