"""How close each decision of Hugging Face's search was: only its own ties excuse a difference."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import BartForConditionalGeneration, RagTokenForGeneration
from transformers.generation import GenerationMixin

TIE = 1e-5
# HF fills what it never found with log-probabilities of about -1e9, then divides by length**length_penalty.
# Such "hypotheses" are no answers: duplicates of a running beam, or rows of padding.
NEVER_FOUND = -1e5


class Margins:
    """The smallest difference between what a search took and what it left, for each question [Q].

    Only decisions count: which candidates go on, which are finished, in which order the results come, and
    whether to stop. Two candidates that are equal and both go on make no difference.
    """

    def __init__(self, n_questions: int) -> None:
        self.smallest = [math.inf] * n_questions

    def note(self, question: int, difference: float) -> None:
        if math.isfinite(difference):
            self.smallest[question] = min(self.smallest[question], abs(difference))

    def note_cut(self, scores: torch.Tensor, kept: int) -> None:
        """Scores [Q, N] of which the best `kept` are taken."""
        if scores.shape[1] <= kept:
            return
        best = torch.topk(scores, kept + 1)[0]
        for question, (last_in, first_out) in enumerate(best[:, kept - 1 :].tolist()):
            if last_in > NEVER_FOUND:
                self.note(question, last_in - first_out)


class RecordsMargins(GenerationMixin):
    """Notes the margins of a beam search; the search itself is untouched."""

    margins: Margins | None = None

    def _get_top_k_continuations(self, accumulated_log_probs: torch.Tensor, **kwargs: Any) -> Any:
        if self.margins is not None:
            # The first num_beams of the candidates may finish; all 2 * num_beams may go on.
            self.margins.note_cut(accumulated_log_probs, kwargs["num_beams"])
            self.margins.note_cut(accumulated_log_probs, kwargs["beams_to_keep"])
        drawn = super()._get_top_k_continuations(accumulated_log_probs=accumulated_log_probs, **kwargs)
        if not kwargs["do_sample"]:
            return drawn
        # Best first, as until 4.49 and since 5.24: in between whatever was drawn first could finish.
        order = drawn[0].argsort(dim=-1, descending=True, stable=True)
        return tuple(self._gather_beams(each, order) for each in drawn)

    def _get_running_beams_for_next_iteration(self, topk_log_probs: torch.Tensor, **kwargs: Any) -> Any:
        if self.margins is not None:
            hits = kwargs["next_token_hits_stopping_criteria"]
            self.margins.note_cut(topk_log_probs.masked_fill(hits, -math.inf), kwargs["num_beams"])
        return super()._get_running_beams_for_next_iteration(topk_log_probs=topk_log_probs, **kwargs)

    def _update_finished_beams(self, **kwargs: Any) -> Any:
        if self.margins is not None:
            length = kwargs["cur_len"] + 1 - kwargs["decoder_prompt_len"]
            mask = kwargs["next_token_hits_stopping_criteria"] & kwargs["top_num_beam_mask"][None, :]
            new = (kwargs["topk_log_probs"] / length ** kwargs["length_penalty"]).masked_fill(
                ~mask, -math.inf
            )
            self.margins.note_cut(torch.cat((kwargs["beam_scores"], new), dim=1), kwargs["num_beams"])
        return super()._update_finished_beams(**kwargs)

    def _check_early_stop_heuristic(self, **kwargs: Any) -> Any:
        if self.margins is not None:
            long = kwargs["early_stopping"] == "never" and kwargs["length_penalty"] > 0.0
            length = kwargs["max_length" if long else "cur_len"] - kwargs["decoder_prompt_len"]
            possible = kwargs["running_beam_scores"][:, 0] / length ** kwargs["length_penalty"]
            worst = kwargs["beam_scores"].min(dim=1)[0]
            for question, difference in enumerate((possible - worst).tolist()):
                if bool(kwargs["is_sent_finished"][question].all()):
                    self.margins.note(question, difference)
        return super()._check_early_stop_heuristic(**kwargs)


class RecordingRagToken(RecordsMargins, RagTokenForGeneration):
    """RagTokenForGeneration that notes its margins."""


class DocumentSearch:
    """One question's searches by document: sequences [D * B, T], which of them are real, the margin."""

    def __init__(self, sequences: torch.Tensor, found: torch.Tensor, margin: float) -> None:
        self.sequences, self.found, self.margin = sequences, found, margin


class RecordsSearches(RecordsMargins):
    """A generator by itself, as RAG-Sequence searches with it, document by document.

    Each call of `generate` is one question, its rows are documents; `calls` keeps what came of it.
    """

    calls: list[DocumentSearch]
    config: Any

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> torch.Tensor:
        """The sequences alone, as `RagSequenceForGeneration` wants them.

        It passes no mask. transformers 4 then inferred it from the pads; transformers 5 lets an
        encoder-decoder attend to the padding, so that the answer depends on how far it is padded.

        Where the pad's number is 0 (T5, Pegasus) transformers takes it for none and fills short sequences
        with end tokens, which the ranking would count as tokens of the answer: they become pads.
        """
        if attention_mask is None:
            attention_mask = inputs.ne(self.config.pad_token_id).long()
        self.margins = Margins(len(inputs))
        try:
            output = super().generate(
                inputs,
                attention_mask=attention_mask,
                return_dict_in_generate=True,
                output_scores=True,
                **kwargs,
            )
        finally:
            margins, self.margins = self.margins, None
        scores = getattr(output, "sequences_scores", None)
        if scores is None:  # greedy
            scores = torch.zeros(len(inputs))
            for step, logits in enumerate(output.scores):
                best = torch.topk(logits, 2)[0]
                for row in range(len(inputs)):
                    if output.sequences[row, step + 1] != self.config.pad_token_id:
                        margins.note(row, float(best[row, 0] - best[row, 1]))
        eos = kwargs.get("eos_token_id", self.generation_config.eos_token_id)
        if eos is not None:
            ends = torch.isin(output.sequences[:, 1:], torch.tensor(eos)).long()
            filler = ends.cumsum(dim=1) > ends
            output.sequences[:, 1:].masked_fill_(filler, self.config.pad_token_id)
        self.calls.append(DocumentSearch(output.sequences, scores > NEVER_FOUND, min(margins.smallest)))
        return output.sequences


class RecordingBart(RecordsSearches, BartForConditionalGeneration):
    """BART, whose searches are kept."""


def record_searches(generator: Any) -> None:
    """Let a generator of any class keep its searches."""
    kind = type(generator)
    if not issubclass(kind, RecordsSearches):
        generator.__class__ = type(f"Recording{kind.__name__}", (RecordsSearches, kind), {})
    generator.calls = []
