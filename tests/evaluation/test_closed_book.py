"""The closed-book baseline is transformers' generator on the question alone."""

import numpy as np
import pytest
import torch

from ragengine.errors import InputError
from ragengine.evaluation import Question, evaluate
from ragengine_bench.parity.pairs import Pair


def test_the_generator_answers_alone(pair: Pair) -> None:
    """log p(y | x) of each answer, by transformers' generator on prefix and question."""
    asked = [Question(text, ("x",), titles=("T",)) for text in pair.questions(3, 4)]
    found = evaluate(pair.engine, asked, resamples=0, closed_book=True, batch_size=3, n_docs=3)
    assert found.source is not None
    assert found.source.closed_book
    assert found.figures["recall@5"] is None
    assert not any(name.startswith(("passage", "title", "precision")) for name in found.figures)
    generator = pair.reference.model.generator
    tokenizer = pair.engine._tokenizer
    for one in found.measured:
        assert one.prediction.documents == ()
        (encoded,) = tokenizer.encode([pair.engine.bundle.manifest.rag.prefix + one.question.question])
        ids = torch.tensor([list(encoded.ids)])
        options = pair.engine.default_options.replace(n_docs=1)
        hypothesis = pair.engine.generator.generate(
            ids.numpy()[:, None],
            np.ones((1, 1, ids.shape[1]), np.int64),
            np.zeros((1, 1), np.float32),
            options,
        )[0][0]
        start = torch.tensor([[generator.config.decoder_start_token_id, *hypothesis.token_ids.tolist()]])
        with torch.no_grad():
            logits = generator(input_ids=ids, decoder_input_ids=start[:, :-1]).logits
        log_probs = torch.log_softmax(logits.double(), -1)[0].gather(1, start[0, 1:, None]).sum()
        assert np.log(one.prediction.probability) == pytest.approx(float(log_probs), abs=1e-3)
        assert one.prediction.raw_text == tokenizer.decode(hypothesis.token_ids.tolist())


def test_what_needs_documents_is_refused(pair: Pair) -> None:
    asked = [Question("q", ("x",))]
    for wrong in ({"likelihood": True}, {"abstain": True}, {"task": "classification"}):
        with pytest.raises(InputError, match="closed_book is True"):
            evaluate(pair.engine, asked, closed_book=True, **wrong)
