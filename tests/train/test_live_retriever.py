"""The live retriever gives the generator what transformers' own retriever gives it."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer, RagConfig, RagRetriever
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragengine.corpus.corpus import Corpus
from ragengine.errors import OptionsError
from ragengine_train import TrainResult
from ragengine_train.live_retriever import LiveRetriever, RagengineIndex


def test_equal_to_transformers(world: Path, unbroken: TrainResult) -> None:
    """Context ids byte for byte, document vectors and ids, with a prefix and quotes in the question."""
    run = world / "run"
    config = RagConfig.from_pretrained(run / "checkpoint")
    tokenizers = (
        AutoTokenizer.from_pretrained(run / "encoders/question_encoder"),
        AutoTokenizer.from_pretrained(run / "generator"),
    )
    stored = np.load(run / "index/vectors.npy").astype(np.float32)
    rows = [{"title": p.title, "text": p.text} for p in Corpus.open(world / "data/passages.tsv").read()]
    dataset = datasets.Dataset.from_list(
        [{**row, "embeddings": v} for row, v in zip(rows, stored, strict=True)]
    )
    dataset.add_faiss_index("embeddings", metric_type=0)  # inner product
    theirs = RagRetriever(config, *tokenizers, index=CustomHFIndex(config.retrieval_vector_size, dataset))
    index = RagengineIndex(run / "index", 5)
    ours = LiveRetriever(config, *tokenizers, index)
    ids = tokenizers[0](["Who is the mayor of 'x'?", "Which person leads the town in a river?"], padding=True)
    vectors = np.random.default_rng(3).normal(size=(2, stored.shape[1])).astype(np.float32)
    for options in ({}, {"prefix": "answer: ", "n_docs": 3}):
        expected = theirs(ids["input_ids"], vectors, return_tensors="np", **options)
        found = ours(ids["input_ids"], vectors, return_tensors="np", **options)
        width = found["context_input_ids"].shape[1]
        assert width == expected["context_attention_mask"].sum(axis=1).max()
        for name in ("context_input_ids", "context_attention_mask"):
            np.testing.assert_array_equal(found[name], expected[name][:, :width])
        np.testing.assert_array_equal(found["doc_ids"], expected["doc_ids"])
        np.testing.assert_allclose(found["retrieved_doc_embeds"], expected["retrieved_doc_embeds"])
    index.close()


def test_more_documents_than_passages(world: Path, unbroken: TrainResult) -> None:
    with pytest.raises(OptionsError, match=r"n_docs is 121, and .* has 120 passages"):
        RagengineIndex(world / "run/index", 121)
