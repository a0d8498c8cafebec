"""LlamaIndex: a retriever, and a query engine that answers with its sources."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ragengine.engine import RagEngine
from ragengine.errors import InputError
from ragengine.integrations.common import (
    WEIGHTS,
    ask,
    checked_engine,
    checked_settings,
    metadata_of,
    missing_framework,
    sources,
    to_documents,
    weights_of,
)
from ragengine.results import Document
from ragengine.validation import as_list

try:
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.response.schema import Response
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
except ModuleNotFoundError as reason:
    raise missing_framework("LlamaIndex", "llama-index", reason) from reason

__all__ = ["RagEngineQueryEngine", "RagEngineRetriever"]


class RagEngineRetriever(BaseRetriever):
    """A LlamaIndex retriever: from a question to its passages.

    The score of a node is q(x)·d(z); its metadata hold the same as ``doc_score``, and title and prior.
    """

    def __init__(
        self, engine: RagEngine, n_docs: int | None = None, callback_manager: CallbackManager | None = None
    ) -> None:
        """Search with ``engine`` for ``n_docs`` passages; None: the model's default."""
        super().__init__(callback_manager=callback_manager)
        self._engine = checked_engine(engine)
        self._n_docs = n_docs

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._engine.retrieve(query_bundle.query_str, self._n_docs)
        return [_to_node(None, document) for document in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class RagEngineQueryEngine(BaseQueryEngine):
    """A LlamaIndex query engine that reads question and nodes together, marginalising over the nodes.

    The response's text is the answer.  Its ``source_nodes`` are the nodes that were read, those first that
    the answer came from, with ``doc_score``, ``prior`` and ``posterior`` in their metadata.  Its ``metadata``
    are the object of ``ragengine ask --json``.
    """

    def __init__(
        self,
        engine: RagEngine,
        retriever: BaseRetriever | None = None,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        generation_kwargs: Mapping[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """Answer with ``engine``.

        Args:
            engine: the engine that answers.
            retriever: finds the nodes; None: a :class:`RagEngineRetriever` of the same engine, which finds as
                many as ``n_docs`` in ``generation_kwargs`` says.
            node_postprocessors: filters and re-rankers between the two, in this order.
            generation_kwargs: arguments of :meth:`RagEngine.generate`, such as ``num_beams`` or ``deadline``.
            callback_manager: LlamaIndex's receiver of events.
        """
        super().__init__(callback_manager=callback_manager)
        self._engine = checked_engine(engine)
        self._settings = checked_settings(generation_kwargs)
        self._retriever = retriever or RagEngineRetriever(
            engine, self._settings.get("n_docs"), callback_manager
        )
        self._postprocessors = list(node_postprocessors)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The nodes that :meth:`synthesize` would read, after the postprocessors."""
        return self._postprocessed(self._retriever.retrieve(query_bundle), query_bundle)

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """:meth:`retrieve`, awaited."""
        return self._postprocessed(await self._retriever.aretrieve(query_bundle), query_bundle)

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Response:
        """Answer from ``nodes``.

        Args:
            query_bundle: the question.
            nodes: what is read; scored by their ``doc_score``, or by the passage encoder where one has none.
            additional_source_nodes: listed after the sources and not read.

        Raises:
            RagEngineError: as :meth:`RagEngine.generate` does.
        """
        nodes = _checked_nodes(nodes)
        given = to_documents(
            (one.node.node_id, one.node.get_content(metadata_mode=MetadataMode.NONE), one.node.metadata)
            for one in nodes
        )
        answer = ask(self._engine, query_bundle.query_str, given, self._settings)
        read = [_to_node(*source) for source in sources(nodes, given, answer)]
        return Response(
            response=answer.text.rstrip(),
            source_nodes=[*read, *(additional_source_nodes or ())],
            metadata=answer.to_dict(),
        )

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Response:
        """:meth:`synthesize`, in a thread."""
        return await asyncio.to_thread(self.synthesize, query_bundle, nodes, additional_source_nodes)

    def _query(self, query_bundle: QueryBundle) -> Response:
        with self._query_event(query_bundle) as event:
            response = self.synthesize(query_bundle, self.retrieve(query_bundle))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        with self._query_event(query_bundle) as event:
            response = await self.asynthesize(query_bundle, await self.aretrieve(query_bundle))
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query_event(self, query_bundle: QueryBundle) -> Any:
        payload = {EventPayload.QUERY_STR: query_bundle.query_str}
        return self.callback_manager.event(CBEventType.QUERY, payload=payload)

    def _postprocessed(self, nodes: list[NodeWithScore], query_bundle: QueryBundle) -> list[NodeWithScore]:
        for postprocessor in self._postprocessors:
            nodes = postprocessor.postprocess_nodes(nodes, query_bundle=query_bundle)
        return nodes


def _checked_nodes(given: Any) -> list[NodeWithScore]:
    nodes = as_list(given, "nodes", "a list of LlamaIndex's NodeWithScore")
    for place, node in enumerate(nodes):
        if not isinstance(node, NodeWithScore):
            raise InputError(f"Node {place} is {type(node).__name__}; it must be a NodeWithScore.")
    return nodes


def _to_node(original: NodeWithScore | None, document: Document) -> NodeWithScore:
    """A document of the engine as LlamaIndex's node, which keeps the score and metadata that it came with."""
    if original is None:
        # LlamaIndex drops a node whose text and metadata another has; passages that say the same both count
        node = TextNode(text=document.text, metadata={"id": document.id, **metadata_of(document)})
        if document.id:
            node.id_ = document.id
        score = document.score
    else:
        node = original.node.model_copy(
            update={"metadata": {**original.node.metadata, **weights_of(document)}}
        )
        score = original.score
    # numbers about a passage are not part of what another model reads of it
    node.excluded_llm_metadata_keys = sorted({*node.excluded_llm_metadata_keys, "id", *WEIGHTS})
    node.excluded_embed_metadata_keys = sorted({*node.excluded_embed_metadata_keys, "id", *WEIGHTS})
    return NodeWithScore(node=node, score=score)
