"""A ragengine index as transformers' RAG models search one: live, p(z | x) of the paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, RagConfig, RagRetriever
from transformers.models.rag.retrieval_rag import Index

from ragengine.errors import IndexFolderError, OptionsError
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import VECTORS_FILE
from ragengine.storage.npy import open_vectors


class RagengineIndex(Index):  # type: ignore[misc]  # transformers is untyped
    """An index folder behind the interface that ``RagRetriever`` searches."""

    def __init__(self, path: str | Path, n_docs: int) -> None:
        """Raises :class:`IndexFolderError`, and :class:`OptionsError` for fewer than ``n_docs`` passages."""
        self._index = PassageIndex.open(path, verify="size")
        self._vectors = open_vectors(Path(path) / VECTORS_FILE, np.float16, IndexFolderError)
        if self._index.count < n_docs:
            raise OptionsError(
                f"model.n_docs is {n_docs}, and {path} has {self._index.count} passages; ask for no more."
            )

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows [Q, D] and stored vectors [Q, D, E] of the best passages for question vectors [Q, E].

        Where an approximate index finds fewer, the best one stands in their place: the prior is then right
        up to its weight, where transformers gives a passage that was not found the score 0.
        """
        vectors = np.ascontiguousarray(question_hidden_states, np.float32)
        rows = self._index.search(vectors, n_docs).rows
        rows = np.where(rows < 0, rows[:, :1], rows)
        return rows, self.vectors(rows)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored vectors [..., E] of rows [...]."""
        return np.asarray(self._vectors[rows], np.float32)

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Ids, titles and texts of rows [Q, D]: a dictionary of lists a question."""
        passages = iter(self._index.passages(doc_ids.reshape(-1).tolist()))  # at once: they may be far away
        found = [[next(passages) for _ in rows] for rows in doc_ids]
        return [
            {"id": [p.id for p in row], "title": [p.title for p in row], "text": [p.text for p in row]}
            for row in found
        ]

    def is_initialized(self) -> bool:
        """An index is open from the start."""
        return True

    def init_index(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Let go of the files."""
        self._index.close()


OpenIndex: TypeAlias = Callable[[Path, int], Any]
"""Opens an index folder for so many documents a question: something with the methods of RagengineIndex."""


class LiveRetriever(RagRetriever):  # type: ignore[misc]  # transformers is untyped
    """``RagRetriever`` over a ragengine index; prompts are padded to the longest, not to the limit.

    Everything else is transformers' own code: which tokens the generator reads is what it would read.
    """

    index: Any

    def __init__(
        self,
        config: RagConfig,
        question_encoder_tokenizer: PreTrainedTokenizerBase,
        generator_tokenizer: PreTrainedTokenizerBase,
        index: Any,
    ) -> None:
        super().__init__(config, question_encoder_tokenizer, generator_tokenizer, index=index)

    def swap(self, index: Any) -> None:
        """Search ``index`` from now on, and close the one that was searched."""
        before, self.index = self.index, index
        before.close()

    def postprocess_docs(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Token ids and mask, [Q*D, S], without the columns that are padding in every row."""
        ids, mask = super().postprocess_docs(*args, **kwargs)
        width = int(np.asarray(mask).sum(axis=1).max())
        return ids[:, :width], mask[:, :width]
