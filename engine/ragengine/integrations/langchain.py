"""LangChain: a retriever, and a runnable that answers with its sources."""

from collections.abc import Mapping
from typing import Any

from ragengine.engine import RagEngine
from ragengine.errors import InputError
from ragengine.integrations.common import (
    ask,
    checked_engine,
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
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document as LangChainDocument
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import Runnable, RunnableConfig
except ModuleNotFoundError as reason:
    raise missing_framework("LangChain", "langchain", reason) from reason

__all__ = ["RagEngineAnswerer", "RagEngineRetriever"]


class RagEngineRetriever(BaseRetriever):
    """A LangChain retriever: from a question to its passages.

    The metadata of a document are ``title``, ``doc_score``, which is q(x)·d(z), and ``prior``.
    ``invoke(question, n_docs=...)`` finds another number of passages in one call.
    """

    engine: RagEngine
    """The engine that searches."""
    n_docs: int | None
    """How many passages to find; None: the model's default."""

    def __init__(self, engine: RagEngine, n_docs: int | None = None, **settings: Any) -> None:
        """Search with ``engine``; ``settings`` are those of every LangChain retriever, such as ``tags``."""
        super().__init__(engine=checked_engine(engine), n_docs=n_docs, **settings)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, n_docs: int | None = None
    ) -> list[LangChainDocument]:
        found = self.engine.retrieve(query, self.n_docs if n_docs is None else n_docs)
        return [_to_langchain(None, document) for document in found]


class RagEngineAnswerer(Runnable[str | dict[str, Any], dict[str, Any]]):
    """A LangChain runnable that reads question and documents together, marginalising over the documents.

    Its input is a question, whose documents the engine finds, or ``{"question": ..., "context": [...]}`` with
    documents of this module's retriever or another one.  Its output is a dict:

    question  the question
    answer    the answer's text
    context   the documents that were read, those first that the answer came from, with ``doc_score``,
              ``prior`` and ``posterior`` in their metadata
    result    the object of ``ragengine ask --json``

    Keyword arguments of ``invoke``, or of ``bind``, are added to ``generation_kwargs``.
    """

    def __init__(self, engine: RagEngine, generation_kwargs: Mapping[str, Any] | None = None) -> None:
        """Answer with ``engine``.

        Args:
            engine: the engine that answers.
            generation_kwargs: arguments of :meth:`RagEngine.generate`, such as ``num_beams`` or ``deadline``.
        """
        self.engine = checked_engine(engine)
        self.generation_kwargs = checked_settings(generation_kwargs)

    def invoke(
        self, input: str | dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Answer one question.

        Args:
            input: the question, or a dict with ``question`` and ``context``.
            config: LangChain's settings of the run, such as callbacks.
            kwargs: added to ``generation_kwargs``.

        Raises:
            RagEngineError: as :meth:`RagEngine.generate` does.
        """
        answer: dict[str, Any] = self._call_with_config(
            self._answer, input, config, run_type="chain", **kwargs
        )
        return answer

    def _answer(self, input: Any, **kwargs: Any) -> dict[str, Any]:
        question, context = _read_input(input)
        given = None if context is None else to_documents((d.id, d.page_content, d.metadata) for d in context)
        settings = {**self.generation_kwargs, **checked_settings(kwargs)}
        answer = ask(self.engine, question, given, settings)
        return {
            "question": question,
            "answer": answer.text.rstrip(),
            "context": [_to_langchain(*source) for source in sources(context, given, answer)],
            "result": answer.to_dict(),
        }


def _read_input(given: Any) -> tuple[Any, list[LangChainDocument] | None]:
    """The question and its documents, None where the engine shall find them."""
    if isinstance(given, str):
        return given, None
    if not isinstance(given, Mapping) or "question" not in given:
        raise InputError(
            f"The input is {short_repr(given)}; it must be a question, or a dict with the keys question and "
            "context."
        )
    if given.get("context") is None:
        return given["question"], None
    context = as_list(given["context"], "context", "a list of LangChain's Document")
    for place, document in enumerate(context):
        if not isinstance(document, LangChainDocument):
            raise InputError(
                f"Document {place} of context is {type(document).__name__}; it must be a LangChain Document."
            )
    return given["question"], context


def _to_langchain(original: LangChainDocument | None, document: Document) -> LangChainDocument:
    """A document of the engine as LangChain's, which keeps the metadata that it came with."""
    if original is None:
        return LangChainDocument(
            page_content=document.text, id=document.id or None, metadata=metadata_of(document)
        )
    return original.model_copy(update={"metadata": {**original.metadata, **weights_of(document)}})
