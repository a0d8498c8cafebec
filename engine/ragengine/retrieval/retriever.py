"""`Retriever`: p(z | x) up to its softmax, q(x)·d(z) over all passages of an index (paper, section 2.2)."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle import Bundle
from ragengine.results import Document
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.lease import IndexSlot
from ragengine.sessions import Device
from ragengine.text import Encoded

FloatArray: TypeAlias = NDArray[np.float32]


class Retriever:
    """A bundle's question encoder over an index.  Safe to use from several threads."""

    def __init__(
        self, bundle: Bundle, index: PassageIndex, *, device: Device = "auto", threads: int | None = None
    ) -> None:
        index.check_belongs_to(bundle)
        self._bundle = bundle
        self._slot = IndexSlot(index)
        self._swapping = threading.Lock()
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
        verify: Literal["sha256", "size"] = "sha256",
    ) -> "Retriever":
        """Open an index with the bundle whose encoder made it.

        ``verify`` is how files are checked, as in :meth:`PassageIndex.open`.  Raises :class:`BundleError`
        or :class:`IndexFolderError` when one is not whole or they do not belong together.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, verify=verify)
        passages = PassageIndex.open(index, verify=verify)
        try:
            return cls(opened, passages, device=device, threads=threads)
        except BaseException:
            passages.close()
            raise

    @property
    def index(self) -> PassageIndex:
        """The index that is searched now; another one after :meth:`swap_index`."""
        return self._slot.index

    def borrow_index(self) -> AbstractContextManager[PassageIndex]:
        """The index for one question, in a ``with`` block: it stays open there, whatever is swapped."""
        return self._slot.borrow()

    def swap_index(self, path: str | Path, *, verify: Literal["sha256", "size"] = "sha256") -> None:
        """Search the index at ``path`` from now on.

        It is opened, checked to belong to the bundle, and searched once, while the old one goes on
        answering; then it takes its place at once.  Questions that run finish on the old index, which closes
        after the last of them.  Swaps take turns.  Raises :class:`IndexFolderError` where the new index
        cannot be used, or after :meth:`close`; then nothing has changed.
        """
        with self._swapping:
            self._slot.check_open()
            index = PassageIndex.open(path, verify=verify)
            try:
                index.check_belongs_to(self._bundle)
                index.warm_up()
                self._slot.replace(index)
            except BaseException:
                index.close()
                raise

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

    def search_vectors(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
    ) -> list[list[Document]]:
        """The ``n_docs`` passages with the largest inner product for each of Q vectors, float32 [Q, E].

        Best first, with ``score`` = q(x)·d(z) of the stored vectors; fewer where the index holds fewer, or
        the lists that are searched do.  ``nprobe`` lists are searched and at least ``rerank_width``
        candidates re-ranked; where not given, as the index was tuned.  Raises :class:`InputError` for
        vectors or settings that this index does not take.
        """
        with self.borrow_index() as index:
            return index.search_documents(
                np.asarray(vectors), n_docs, nprobe=nprobe, rerank_width=rerank_width
            )

    def close(self) -> None:
        """Close the index's files once running questions are done; may be called again."""
        self._slot.close()
