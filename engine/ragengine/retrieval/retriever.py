"""`Retriever`: p(z | x) up to its softmax, q(x)·d(z) over all passages of an index (paper, section 2.2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle import Bundle
from ragengine.errors import InputError
from ragengine.results import Document
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.sessions import Device
from ragengine.text import Encoded

FloatArray: TypeAlias = NDArray[np.float32]


class Retriever:
    """A bundle's question encoder over an index.  Safe to use from several threads."""

    def __init__(
        self, bundle: Bundle, index: PassageIndex, *, device: Device = "auto", threads: int | None = None
    ) -> None:
        index.check_belongs_to(bundle)
        self.index = index
        self._encoder = TextEncoder.load(
            bundle, bundle.manifest.question_encoder, device=device, threads=threads
        )

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle,
        index: str | Path,
        device: Device = "auto",
        threads: int | None = None,
    ) -> "Retriever":
        """Open an index with the bundle whose encoder made it.

        Raises :class:`BundleError` or :class:`IndexFolderError` when one is not whole or they do not
        belong together.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(opened, PassageIndex.open(index), device=device, threads=threads)

    def tokenize(self, questions: Sequence[str]) -> list[Encoded]:
        """Question tokens x, ``[CLS] question [SEP]``, cut at the encoder's longest input."""
        return self._encoder.tokenizer.encode(questions)

    def question_text(self, tokens: Encoded) -> str:
        """The question as the generator reads it: decoded from the question encoder's own tokens.

        transformers does so (`RagRetriever.__call__`), which lower-cases it for an uncased BERT.
        """
        return self._encoder.tokenizer.decode(tokens.ids)

    def encode(self, tokens: Sequence[Encoded]) -> FloatArray:
        """q(x): float32 [Q, E]."""
        return self._encoder.encode_tokens(tokens)

    def search_vectors(self, vectors: FloatArray, n_docs: int) -> list[list[Document]]:
        """The ``n_docs`` passages with the largest inner product for each of Q vectors, float32 [Q, E].

        Best first, with ``score`` = q(x)·d(z) of the stored vectors; fewer where the index holds fewer.
        """
        if type(n_docs) is not int or n_docs < 1:
            raise InputError(f"n_docs is {n_docs!r}; it must be a whole number of at least 1.")
        found = self.index.search(np.asarray(vectors), n_docs)
        documents = []
        for rows, scores in zip(found.rows, found.scores, strict=True):
            rows = rows[rows >= 0]
            pairs = zip(self.index.passages(rows), scores.tolist(), strict=False)
            documents.append([Document(title=p.title, text=p.text, id=p.id, score=s) for p, s in pairs])
        return documents

    def close(self) -> None:
        """Close the index's files."""
        self.index.close()
