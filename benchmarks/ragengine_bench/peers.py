"""transformers on the same model and the same inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import RagRetriever, RagTokenForGeneration, RagTokenizer
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragengine.retrieval.index import PassageIndex


class TransformersGenerator:
    """`RagTokenForGeneration.generate` from documents that are tokens already."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = RagTokenForGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()

    @torch.no_grad()
    def generate(self, ids: NDArray[Any], scores: NDArray[Any], pad_to: int, **options: Any) -> NDArray[Any]:
        """Token ids [Q, T] for document tokens [Q, D, S], padded to ``pad_to`` first."""
        q, d, s = ids.shape
        padded = np.full((q * d, max(s, pad_to)), 1, np.int64)
        padded[:, :s] = ids.reshape(q * d, s)
        mask = (np.arange(padded.shape[1]) < s).astype(np.int64)[None].repeat(q * d, axis=0)
        output: NDArray[Any] = self._model.generate(
            context_input_ids=torch.tensor(padded),
            context_attention_mask=torch.tensor(mask),
            doc_scores=torch.tensor(scores),
            n_docs=d,
            **options,
        ).numpy()
        return output


class TransformersRag:
    """`RagTokenForGeneration` with a `RagRetriever` over the passages and vectors of a ragengine index."""

    def __init__(self, checkpoint: Path, index: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = RagTokenForGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._tokenizer = RagTokenizer.from_pretrained(checkpoint)
        with PassageIndex.open(index) as opened:
            passages = opened.passages(range(opened.count))
        vectors = np.load(index / "vectors.npy").astype(np.float32)
        columns = {
            "title": [p.title for p in passages],
            "text": [p.text for p in passages],
            "embeddings": vectors,
        }
        dataset = Dataset.from_dict(columns)
        dataset.add_faiss_index("embeddings", metric_type=0)  # 0: inner product
        retriever = RagRetriever(
            self._model.config,
            question_encoder_tokenizer=self._tokenizer.question_encoder,
            generator_tokenizer=self._tokenizer.generator,
            index=CustomHFIndex(vectors.shape[1], dataset),
        )
        self._model.set_retriever(retriever)

    @torch.no_grad()
    def ask(self, question: str, **options: Any) -> str:
        """The answer's text, from the question's."""
        inputs = self._tokenizer(question, return_tensors="pt")
        output = self._model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **options
        )
        return str(self._tokenizer.batch_decode(output, skip_special_tokens=True)[0])
