"""`Retriever`: p(z | x) up to its softmax, q(x)·d(z) over all passages of an index (paper, section 2.2)."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, overload

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.errors import InputError
from ragengine.results import Document
from ragengine.retrieval.custom import AnyIndex, CustomIndex, DocumentSearcher, NoIndex, no_index
from ragengine.retrieval.encoder import EncodedQuestions, TextEncoder
from ragengine.retrieval.index_slot import IndexSlot
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.passage_filter import Filter
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.runtime.devices import Device, resolve_device
from ragengine.runtime.lifecycle import Resource, awaited_at_exit, while_open
from ragengine.runtime.stage_clock import StageClock
from ragengine.tokenization import Encoded
from ragengine.validation import checked_questions


class Retriever(Resource):
    """A bundle's question encoder over an index.  Safe to use from several threads."""

    def __init__(
        self,
        bundle: Bundle,
        index: AnyIndex,
        *,
        device: Device = "auto",
        threads: int | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        """``encoder`` encodes questions in the place of the bundle's own, which is then not loaded."""
        super().__init__()
        index.check_belongs_to(bundle)
        self._bundle = bundle
        self._slot = IndexSlot(index)
        self._swapping = threading.Lock()
        self._open: Callable[..., SearchedIndex] = open_index
        self._encoder = encoder or TextEncoder.load(
            bundle, bundle.manifest.question_encoder, device=device, threads=threads
        )

    @classmethod
    @awaited_at_exit
    def load(
        cls,
        bundle: str | Path | Bundle,
        index: str | Path | DocumentSearcher | None = None,
        device: Device = "auto",
        threads: int | None = None,
        verify: Literal["sha256", "size"] = "sha256",
        search_device: Device | None = None,
        remote: RemoteOptions | None = None,
        allow_partial: bool = False,
    ) -> "Retriever":
        """Open an index with the bundle whose encoder made it.

        Args:
            bundle: the path of a bundle, or an opened one.
            index: the path of an index folder or of a folder of shards, or a :class:`DocumentSearcher`
                of your own; None where nothing is searched.
            device: where questions are encoded: auto, cpu or cuda.
            threads: threads that the encoder may use; all cores of this process where None.
            verify: ``sha256`` checks every byte of bundle and index, ``size`` the sizes of files.
            search_device: where the index folder is searched; as ``device`` where None.
            remote: how shards on other machines are asked; None: they are not.
            allow_partial: whether questions are answered without shards that do not answer.

        Raises:
            BundleError: the bundle is not whole.
            IndexFolderError: the index is not whole or was made by another encoder.
            DeviceError: ``cuda`` is asked for and cannot be used.
            InputError: ``index`` is neither, or has a ``search_device`` that it cannot have.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, verify=verify)
        resolve_device(device)  # without CUDA for the graphs, the index need not be looked at
        opening = functools.partial(open_index, remote=remote, allow_partial=allow_partial)
        searched: AnyIndex
        if isinstance(index, str | os.PathLike):
            searched = opening(index, verify=verify, device=search_device or device)
        else:
            dimension = opened.manifest.question_encoder.dimension
            if isinstance(index, cls | SearchedIndex):  # their search is another than a DocumentSearcher's
                raise InputError(
                    f"index is a {type(index).__name__}; give the path of the index folder that it opened."
                )
            searched = NoIndex() if index is None else CustomIndex(index, dimension)
            if search_device is not None:
                where = "there is no index to search"
                if index is not None:
                    where = f"the {searched.name} decides itself where it searches"
                raise InputError(f"search_device is {search_device!r}, but {where}; leave it out.")
        try:
            retriever = cls(opened, searched, device=device, threads=threads)
        except BaseException:
            searched.close()
            raise
        retriever._open = opening
        return retriever

    @property
    def index(self) -> SearchedIndex:
        """The index that is searched now; another one after :meth:`swap_index`.

        Raises:
            InputError: a :class:`DocumentSearcher` is searched instead of an index folder, or nothing.
        """
        index = self._slot.index
        if isinstance(index, SearchedIndex):
            return index
        if isinstance(index, NoIndex):
            raise no_index()
        raise InputError(
            f"There is no index folder to look at or to swap: the {index.name} takes its place; change what "
            "that object searches."
        )

    def borrow_index(self) -> AbstractContextManager[AnyIndex]:
        """The index for one question, in a ``with`` block: it stays open there, whatever is swapped.

        Raises:
            ClosedError: the retriever was closed.
        """
        self._check_open()
        return self._slot.borrow()

    @awaited_at_exit
    def swap_index(self, path: str | Path, *, verify: Literal["sha256", "size"] = "sha256") -> None:
        """Search the index at ``path`` from now on.

        It is opened, checked to belong to the bundle and searched once while the old one goes on answering;
        then it takes its place at once.  Questions that run finish on the old index, which closes after the
        last of them.  Swaps take turns.

        Args:
            path: the new index's folder; it may be the same path, built again.
            verify: ``sha256`` checks every byte of the index, ``size`` the sizes of its files.

        Raises:
            IndexFolderError: the new index cannot be used; nothing has changed.
            InputError: a :class:`DocumentSearcher` is searched instead of an index folder.
            ClosedError: the retriever was closed.
        """
        self._check_open()
        with self._swapping:
            self._slot.check_open()
            index = self._open(path, verify=verify, device=self.index.device)
            try:
                index.check_belongs_to(self._bundle)
                index.warm_up()
                self._slot.replace(index)
            except BaseException:
                index.close()
                raise

    @while_open
    def tokenize(self, questions: Sequence[str]) -> list[Encoded]:
        """Question tokens x, ``[CLS] question [SEP]``, cut at the encoder's longest input.

        They begin with the encoder's prompt, where it has one.

        Raises:
            InputError: a question is not a text that can be read.
        """
        return self._tokenize(checked_questions(questions), NEVER)

    @while_open
    def question_text(self, tokens: Encoded) -> str:
        """The question as the generator reads it: decoded from the question encoder's own tokens.

        transformers does so (`RagRetriever.__call__`), which lower-cases it for an uncased BERT.
        """
        return self._encoder.question_text(tokens)

    @while_open
    def encode(self, tokens: Sequence[Encoded], stop: Stop = NEVER) -> FloatArray:
        """q(x), the vectors of questions.

        Args:
            tokens: Q questions, from :meth:`tokenize`.
            stop: ends the call between batches.

        Returns:
            float32 [Q, E].

        Raises:
            DeadlineError, CancelledError: ``stop`` says so.
            GraphOutputError: the encoder returned something else than finite vectors.
        """
        return self._encoder.encode_questions(tokens, stop)

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self,
        question: str,
        n_docs: int | None = None,
        *,
        filter: Filter | None = None,
        nprobe: int | None = None,
        rerank_width: int | None = None,
    ) -> list[Document]: ...
    @overload
    def search(
        self,
        question: Sequence[str],
        n_docs: int | None = None,
        *,
        filter: Filter | None = None,
        nprobe: int | None = None,
        rerank_width: int | None = None,
    ) -> list[list[Document]]: ...
    @while_open
    def search(
        self,
        question: str | Sequence[str],
        n_docs: int | None = None,
        *,
        filter: Filter | None = None,
        nprobe: int | None = None,
        rerank_width: int | None = None,
    ) -> list[Document] | list[list[Document]]:
        """The passages for a question, or for each of several, as ``ragengine index search`` finds them.

        It is :meth:`tokenize`, :meth:`encode` and :meth:`search_vectors`, which has the same settings.

        Args:
            question: the question x, or a list of them.
            n_docs: how many passages to find for each; as many as the model reads where None.
            filter: fields of the metadata and the values that a passage must have (docs/guides/searching.md).
            nprobe: inverted lists to search; as the index was tuned where None.
            rerank_width: candidates to re-rank at least; as the index was tuned where None.

        Returns:
            Documents with their scores q(x)·d(z), best first; a list for each of a list of questions.

        Raises:
            InputError: a question or a setting that cannot be used, or no passage matches the filter.
            IndexFolderError: the index turned out to be damaged.
            ClosedError: the retriever was closed.
        """
        encoded = self._encode_questions(checked_questions(question), NEVER)
        wanted = self._bundle.manifest.rag.n_docs if n_docs is None else n_docs
        found = self.search_vectors(
            encoded.vectors, wanted, nprobe=nprobe, rerank_width=rerank_width, filter=filter
        )
        return found[0] if isinstance(question, str) else found

    @while_open
    def search_vectors(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        filter: Filter | None = None,
    ) -> list[list[Document]]:
        """The passages whose vectors have the largest inner product with each of Q question vectors.

        Args:
            vectors: float32 [Q, E], from :meth:`encode`.
            n_docs: how many passages to find for each.
            nprobe: inverted lists to search; as the index was tuned where None.
            rerank_width: candidates to re-rank at least; as the index was tuned where None.
            filter: fields of the metadata and the values that a passage must have (docs/guides/searching.md).

        Returns:
            A list for each question, best first, with ``score`` = q(x)·d(z) of the stored vectors; fewer than
            ``n_docs`` where the index, or the lists that are searched, hold fewer, or fewer match ``filter``.

        Raises:
            InputError: vectors or settings that this index does not take, or no passage matches the filter.
            IndexFolderError: the index turned out to be damaged.
            ClosedError: the retriever was closed.
        """
        try:
            questions = np.asarray(vectors)
        except (ValueError, TypeError, OverflowError, RuntimeError) as reason:  # rows of different lengths
            raise InputError(f"Question vectors are not an array: {reason}.") from reason
        with self._slot.borrow() as index:
            return index.search_documents(
                questions, n_docs, nprobe=nprobe, rerank_width=rerank_width, filter=filter
            )

    def _tokenize(self, questions: Sequence[str], stop: Stop) -> list[Encoded]:
        return self._encoder.tokenize_questions(questions, stop)

    @while_open
    def _encode_questions(self, questions: list[str], stop: Stop) -> EncodedQuestions:
        """Questions, which have been checked, as the index and the generator take them."""
        clock = StageClock()
        tokens = self._tokenize(questions, stop)
        texts = [self._encoder.question_text(encoded) for encoded in tokens]
        clock.stage("tokenize_question")
        vectors = self.encode(tokens, stop)
        clock.stage("encode_question")
        return EncodedQuestions(vectors, texts, [encoded.truncated for encoded in tokens], clock.timings)

    def _release(self) -> None:
        self._slot.close()
        self._drop("_encoder")
