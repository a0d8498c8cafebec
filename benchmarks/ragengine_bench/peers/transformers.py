"""transformers on the same model and the same inputs."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import RagRetriever, RagSequenceForGeneration, RagTokenForGeneration, RagTokenizer
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import VECTORS_FILE
from ragengine_export.loading import load_model
from ragengine_export.tokenization import load_tokenizer

_CLASSES = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}


class TransformersGenerator:
    """`generate` of RAG-Token or RAG-Sequence from documents that are tokens already."""

    def __init__(
        self, checkpoint: str, threads: int, dtype: str, marginalize: str, device: str = "cpu"
    ) -> None:
        """``dtype`` is fp32, fp16, bf16 autocast, torch.compile (which computes in fp32), or
        torch.compile fp16.
        """
        torch.set_num_threads(threads)
        self._dtype, self._device = dtype, device
        weights = torch.float16 if dtype.endswith("fp16") else torch.float32
        model = _CLASSES[marginalize].from_pretrained(checkpoint, dtype=weights)
        self._model = model.eval().to(device)
        if dtype.startswith("torch.compile"):
            generator = self._model.rag.generator
            # the past grows with every step: with fixed shapes each would be compiled anew
            for part in (generator.get_encoder(), generator.get_decoder()):
                part.forward = torch.compile(part.forward, dynamic=True)

    def prepare(self, arrays: str, options: dict[str, Any], pad_to: int) -> None:
        """Take ids [Q, D, S], mask and scores from a file, padded to ``pad_to`` tokens (0: not further)."""
        with np.load(arrays, allow_pickle=False) as given:
            ids, mask, scores = given["ids"], given["mask"], given["scores"]
        q, d, s = ids.shape
        self._model.config.n_docs = d  # RAG-Sequence's rescoring does not look at the argument
        self._inputs = {
            "context_input_ids": _padded(ids.reshape(q * d, s), pad_to, fill=1).to(self._device),
            "context_attention_mask": _padded(mask.reshape(q * d, s), pad_to, fill=0).to(self._device),
            "doc_scores": torch.tensor(scores).to(self._device),
            "n_docs": d,
            **_without_marginalize(options),
        }

    @torch.no_grad()
    def generate(self) -> dict[str, Any]:
        """Search for all questions in one batch."""
        with _precision(self._dtype):
            output = self._model.generate(**self._inputs)
        return {"outputs": output[:, 1:].tolist()}  # without the start token


class TransformersRag:
    """`RagTokenForGeneration` with a `RagRetriever` over the passages and vectors of a ragengine index."""

    def __init__(self, checkpoint: str, index: str, threads: int, dtype: str) -> None:
        torch.set_num_threads(threads)
        self._dtype = dtype
        self._model = load_model(RagTokenForGeneration, checkpoint)
        self._tokenizer = RagTokenizer(
            load_tokenizer(checkpoint, "question_encoder_tokenizer"),
            load_tokenizer(checkpoint, "generator_tokenizer"),
        )
        from datasets import Dataset  # the generator alone does without

        with PassageIndex.open(index) as opened:
            passages = opened.passages(range(opened.count))
        vectors = np.load(f"{index}/{VECTORS_FILE}", allow_pickle=False).astype(np.float32)
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
    def ask(self, questions: list[str], options: dict[str, Any]) -> dict[str, Any]:
        """The answers' texts, from the questions'."""
        inputs = self._tokenizer(questions, return_tensors="pt", padding=True)
        with _precision(self._dtype):
            output = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                **_without_marginalize(options),
            )
        texts = self._tokenizer.batch_decode(output, skip_special_tokens=True)
        pad = self._model.config.generator.pad_token_id
        return {"outputs": texts, "tokens": int((output[:, 1:] != pad).sum())}


def _without_marginalize(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "marginalize"}


def _padded(array: NDArray[Any], pad_to: int, fill: int) -> torch.Tensor:
    wide = np.full((len(array), max(array.shape[1], pad_to)), fill, np.int64)
    wide[:, : array.shape[1]] = array
    return torch.tensor(wide)


def _precision(dtype: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if dtype == "bf16 autocast" else nullcontext()
