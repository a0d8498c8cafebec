"""Haystack: a retriever and an answerer, components that a saved pipeline can hold."""

import dataclasses
import inspect
import json
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ragengine.engine import RagEngine
from ragengine.errors import InputError
from ragengine.integrations.common import (
    ask,
    checked_settings,
    metadata_of,
    missing_framework,
    sources,
    to_documents,
    weights_of,
)
from ragengine.messages import short_repr
from ragengine.results import Document
from ragengine.validation import as_list

try:
    from haystack import Document as HaystackDocument
    from haystack import component, default_from_dict, default_to_dict
    from haystack.dataclasses import GeneratedAnswer
except ModuleNotFoundError as reason:
    raise missing_framework("Haystack", "haystack", reason) from reason

__all__ = ["RagEngineAnswerer", "RagEngineRetriever"]


class _EngineComponent:
    """The part that both components have: two folders, and the engine once it is loaded.

    Components of the same folders and settings share one engine, for as long as one of them holds it.
    Its ``__init__`` is called by name: Haystack's decorator makes a new class, which ``super`` does not know.
    """

    _loaded: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], RagEngine]] = weakref.WeakValueDictionary()
    _loading: ClassVar = threading.Lock()

    def __init__(self, bundle: str | Path, index: str | Path, load_kwargs: Mapping[str, Any] | None) -> None:
        self.bundle, self.index = str(bundle), str(index)
        self.load_kwargs = _checked_load_kwargs(load_kwargs)
        self._engine: RagEngine | None = None

    def warm_up(self) -> None:
        """Load bundle and index, if that has not been done."""
        self._loaded_engine()

    def close(self) -> None:
        """Let go of bundle and index, which the next run loads again."""
        self._engine = None

    def _loaded_engine(self) -> RagEngine:
        engine = self._engine
        if engine is None:
            folders = Path(self.bundle).resolve(), Path(self.index).resolve()
            key = (os.getpid(), *folders, json.dumps(self.load_kwargs, sort_keys=True))
            with self._loading:
                engine = self._loaded.get(key)
                if engine is None:
                    engine = RagEngine.load(self.bundle, index=self.index, **self.load_kwargs)
                    self._loaded[key] = engine
            self._engine = engine
        return engine


@component
class RagEngineRetriever(_EngineComponent):
    """A Haystack component: from a query to its passages.

    The score of a document is q(x)·d(z); its meta hold the same as ``doc_score``, and title and prior.
    """

    def __init__(
        self,
        bundle: str | Path,
        index: str | Path,
        n_docs: int | None = None,
        load_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Search with a bundle and an index, which are loaded when the pipeline warms up.

        Args:
            bundle: the bundle's folder.
            index: the index's folder.
            n_docs: how many passages to find; None: the model's default.
            load_kwargs: arguments of :meth:`RagEngine.load`, such as ``threads``, as JSON values.
        """
        _EngineComponent.__init__(self, bundle, index, load_kwargs)
        self.n_docs = n_docs

    @component.output_types(documents=list[HaystackDocument])
    def run(self, query: str, n_docs: int | None = None) -> dict[str, Any]:
        """Find passages for ``query``, ``n_docs`` of them in this run.

        Returns:
            ``documents``, best first.
        """
        found = self._loaded_engine().retrieve(query, self.n_docs if n_docs is None else n_docs)
        return {"documents": [_to_haystack(None, document) for document in found]}

    def to_dict(self) -> dict[str, Any]:
        """The component as a saved pipeline holds it: folders and settings, no model."""
        return default_to_dict(
            self,
            bundle=self.bundle,
            index=self.index,
            n_docs=self.n_docs,
            load_kwargs=self.load_kwargs,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RagEngineRetriever":
        """The component that :meth:`to_dict` described."""
        return default_from_dict(cls, data)


@component
class RagEngineAnswerer(_EngineComponent):
    """A Haystack component that answers from query and documents together, marginalising over the documents.

    Documents come from this module's retriever or another one; without any, the engine finds them itself.
    They are scored by ``doc_score`` in their meta, or by the passage encoder where one has none.
    """

    def __init__(
        self,
        bundle: str | Path,
        index: str | Path,
        generation_kwargs: Mapping[str, Any] | None = None,
        load_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Answer with a bundle and an index, which are loaded when the pipeline warms up.

        Args:
            bundle: the bundle's folder.
            index: the index's folder.
            generation_kwargs: arguments of :meth:`RagEngine.generate`, such as ``num_beams``; as JSON values
                where the pipeline is to be saved.
            load_kwargs: arguments of :meth:`RagEngine.load`, such as ``threads``, as JSON values.
        """
        _EngineComponent.__init__(self, bundle, index, load_kwargs)
        self.generation_kwargs = checked_settings(generation_kwargs)

    @component.output_types(answers=list[GeneratedAnswer])
    def run(
        self,
        query: str,
        documents: list[HaystackDocument] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Answer ``query``.

        Args:
            query: the question.
            documents: what is read; None: the engine finds them.
            generation_kwargs: added to those of the component in this run.

        Returns:
            ``answers``, one: its ``documents`` are those that were read, those first that the answer came
            from, with ``doc_score``, ``prior`` and ``posterior`` in their meta; its ``meta`` are the object
            of ``ragengine ask --json``.

        Raises:
            RagEngineError: as :meth:`RagEngine.generate` does.
        """
        settings = {**self.generation_kwargs, **checked_settings(generation_kwargs)}
        originals = None if documents is None else _checked_documents(documents)
        given = None
        if originals is not None:
            given = to_documents((one.id, one.content, one.meta) for one in originals)
        answer = ask(self._loaded_engine(), query, given, settings)
        read = [_to_haystack(*source) for source in sources(originals, given, answer)]
        meta = answer.to_dict()
        return {
            "answers": [GeneratedAnswer(data=answer.text.rstrip(), query=query, documents=read, meta=meta)]
        }

    def to_dict(self) -> dict[str, Any]:
        """The component as a saved pipeline holds it: folders and settings, no model."""
        return default_to_dict(
            self,
            bundle=self.bundle,
            index=self.index,
            generation_kwargs=self.generation_kwargs,
            load_kwargs=self.load_kwargs,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RagEngineAnswerer":
        """The component that :meth:`to_dict` described."""
        return default_from_dict(cls, data)


def _checked_load_kwargs(given: Any) -> dict[str, Any]:
    """Arguments of :meth:`RagEngine.load` beside the two folders, as JSON values."""
    settings = {} if given is None else given
    known = inspect.signature(RagEngine.load).parameters.keys() - {"bundle", "index"}
    if not isinstance(settings, Mapping) or settings.keys() - known:
        raise InputError(
            f"load_kwargs is {short_repr(given)}; it must be a dict of arguments of RagEngine.load: "
            f"{', '.join(sorted(known))}."
        )
    try:
        json.dumps(dict(settings))
    except (TypeError, ValueError) as reason:
        raise InputError(f"load_kwargs cannot be saved as JSON: {reason}; give plain values.") from reason
    return dict(settings)


def _checked_documents(given: Any) -> list[HaystackDocument]:
    documents = as_list(given, "documents", "a list of Haystack's Document")
    for place, document in enumerate(documents):
        if not isinstance(document, HaystackDocument):
            raise InputError(
                f"Document {place} is {type(document).__name__}; it must be a Haystack Document."
            )
        if document.content is None:
            raise InputError(f"Document {place} has no content; give documents with a text.")
    return documents


def _to_haystack(original: HaystackDocument | None, document: Document) -> HaystackDocument:
    """A document of the engine as Haystack's, which keeps the score and meta that it came with."""
    if original is None:
        meta = metadata_of(document)
        return HaystackDocument(id=document.id, content=document.text, meta=meta, score=document.score)
    return dataclasses.replace(original, meta={**original.meta, **weights_of(document)})
