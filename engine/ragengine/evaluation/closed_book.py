"""The closed-book baseline: the generator answers from the question alone (paper, section 4.1)."""

from collections.abc import Iterator, Sequence

import numpy as np

from ragengine.engine import RagEngine
from ragengine.evaluation.measured import Prediction, probability
from ragengine.evaluation.questions import Question
from ragengine.options import GenerationOptions
from ragengine.tokenization import Tokenizer


def closed_book(
    engine: RagEngine, questions: Sequence[Question], batch_size: int, options: GenerationOptions
) -> Iterator[Prediction]:
    """Answers without documents: p(y | x) of the generator, whose prompt is its prefix and the question."""
    spec, alone = engine.bundle.manifest.generator, options.replace(n_docs=1)
    tokenizer = Tokenizer(engine.bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)
    for start in range(0, len(questions), batch_size):
        texts = [
            engine.bundle.manifest.rag.prefix + one.question for one in questions[start : start + batch_size]
        ]
        ids, mask = tokenizer.pad([encoded.ids for encoded in tokenizer.encode(texts)])
        prior = np.zeros((len(texts), 1), np.float32)  # one context, of probability 1
        for found in engine.generator.generate(ids[:, None], mask[:, None], prior, alone):
            text = tokenizer.decode(found[0].token_ids.tolist())
            yield Prediction(text.lstrip(), probability(found[0].log_prob), (), text)
