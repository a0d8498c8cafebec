"""A checkpoint in fp32 and another precision: whether both follow the options, and how far apart they score.

Answers of another precision may differ, so they cannot be compared token by token.  Instead both score fp32's
own answers, by searches that may go nowhere else, and transformers' logits processors judge whether the other
precision's own answers keep to the options.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from ragengine import Answer, RagEngine
from ragengine_bench.parity.pairs import Pair
from ragengine_bench.parity.requests import any_request, with_special_tokens
from ragengine_export import export_checkpoint
from ragengine_export.weights import Precision

# Options of GenerationConfig that a search reads and that are none of the logits processors'.
_NOT_PROCESSED = {"n_docs", "do_deduplication", "num_return_sequences", "early_stopping", "length_penalty"}


@dataclass(frozen=True)
class Trial:
    """One question under one combination of options.

    same         the best answers have the same tokens
    differences  of each of fp32's answers: |log-probability - fp32's| per token, under the same options
    faults       where the other precision's own answers break an option
    """

    options: dict[str, Any]
    same: bool
    differences: list[float]
    faults: list[str]


class Precisions:
    """One checkpoint in fp32 and in ``precision``, on the same index.

    ``stated`` is the largest difference of a log-probability from torch's that the export reports.
    """

    def __init__(self, pair: Pair, precision: Precision, folder: Path) -> None:
        report = export_checkpoint(pair.checkpoint.source, folder, precision=precision)
        (decoder,) = (check for check in report.checks if check.graph == "generator/decoder.onnx")
        self.stated = decoder.max_abs_difference
        self.pair, self.fp32 = pair, pair.engine
        index = pair.engine.retriever.index.path
        self.other = RagEngine.load(folder, index=index, device="cpu", threads=1)

    def trial(self, kind: str, number: int) -> Trial:
        """The ``number``-th question and combination of options; ``kind``: "token" or "sequence"."""
        (question,) = self.pair.questions(number + 1000, 1)
        request = any_request(kind, self.pair.spec.seed, number + 1000, self.pair.seen)
        request = with_special_tokens(request, self.pair.reference.model.config.generator)
        options = {"marginalize": kind, **request.options}
        expected = self.fp32.generate(question, **options)
        found = self.other.generate(question, **options)
        differences = []
        for hypothesis in expected.hypotheses:
            tokens = hypothesis.token_ids.tolist()
            ours, theirs = (
                _score(engine, question, expected, tokens, options) for engine in (self.other, self.fp32)
            )
            differences.append(abs(ours - theirs) / len(tokens))
        return Trial(
            options=options,
            same=_tokens(found)[:1] == _tokens(expected)[:1],
            differences=differences,
            faults=self.faults(found, options),
        )

    def faults(self, answer: Answer, options: dict[str, Any]) -> list[str]:
        """What transformers' processors say of the answers, and how many there are and how long."""
        defaults, generator = self.other.default_options, self.pair.reference.model.rag.generator
        config = GenerationConfig(
            **{
                "eos_token_id": defaults.eos_token_ids,
                "forced_bos_token_id": defaults.forced_bos_token_id,
                "forced_eos_token_id": defaults.forced_eos_token_id,
                "decoder_start_token_id": defaults.decoder_start_token_id,
                "pad_token_id": generator.config.pad_token_id,
            }
            | {name: value for name, value in options.items() if name not in {*_NOT_PROCESSED, "marginalize"}}
        )
        chosen = defaults.replace(**options)
        config.max_length, config.min_length = chosen.longest, chosen.shortest
        config.max_new_tokens = config.min_new_tokens = config.encoder_no_repeat_ngram_size = None
        generator._prepare_special_tokens(config, True)
        processors = generator._get_logits_processor(
            config, input_ids_seq_length=1, encoder_input_ids=torch.ones(1, 1).long(), device="cpu"
        )
        faults = []
        if not 1 <= len(answer.hypotheses) <= chosen.num_return_sequences:
            faults.append(f"{len(answer.hypotheses)} answers")
        if "n_docs" in options and len(answer.documents) != options["n_docs"]:
            faults.append(f"{len(answer.documents)} documents")
        for tokens in _tokens(answer):
            sequence = [chosen.decoder_start_token_id, *tokens]
            for place in range(1, len(sequence)):
                scores = torch.full((1, generator.config.vocab_size), -1.0)
                left = processors(torch.tensor([sequence[:place]]), scores)
                if not torch.isfinite(left[0, sequence[place]]):
                    faults.append(f"{sequence[place]} after {sequence[:place]}")
            ends = [token in chosen.eos_token_ids for token in tokens]
            if any(ends[:-1]) or (not ends[-1] and len(sequence) < chosen.longest):
                faults.append(f"{tokens} ends where it must not")
            if len(sequence) > chosen.longest:
                faults.append(f"{tokens} is too long")
        return faults


def _score(
    engine: RagEngine, question: str, reading: Answer, tokens: list[int], options: dict[str, Any]
) -> float:
    """The log-probability that a search gives ``tokens``, which alone it may follow, over given documents."""

    def allowed(_: int, sent: np.ndarray) -> list[int]:
        place = len(sent) - 1
        follows = place < len(tokens) and sent[1:].tolist() == tokens[:place]
        return [tokens[place] if follows else tokens[-1]]

    options = {name: value for name, value in options.items() if name != "n_docs"}
    documents = reading.documents
    answer = engine.generate(question, documents=documents, prefix_allowed_tokens_fn=allowed, **options)
    assert _tokens(answer)[0] == tokens
    penalty = options.get("length_penalty", 1.0) if options["marginalize"] == "token" else 0.0
    return float(answer.hypotheses[0].score) * len(tokens) ** penalty


def _tokens(answer: Answer) -> list[list[int]]:
    return [hypothesis.token_ids.tolist() for hypothesis in answer.hypotheses]
