"""The adapters for LlamaIndex, with LlamaIndex itself."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="LlamaIndex is not installed here; see make test-integrations")

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool

from ragengine import Document, RagEngine
from ragengine.errors import InputError, OptionsError
from ragengine.integrations.llama_index import RagEngineQueryEngine, RagEngineRetriever
from tests.integrations.comparison import check_same_answer, check_sources
from tests.integrations.conftest import FACTS, QUESTION, TEXT


def own(engine: RagEngine, *places: int) -> list[Document]:
    """Documents found, given back to the engine; all of them, or those at ``places``."""
    found = engine.retrieve(QUESTION)
    return [found[place] for place in places] if places else found


class Given(BaseRetriever):
    """Finds what it was given."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        super().__init__()
        self.nodes = nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


def test_retriever_finds_what_the_engine_finds(engine: RagEngine) -> None:
    found = RagEngineRetriever(engine, n_docs=3).retrieve(QUESTION)
    expected = engine.retrieve(QUESTION, 3)
    assert [node.node_id for node in found] == [document.id for document in expected]
    assert [node.get_content() for node in found] == [document.text for document in expected]
    assert [node.score for node in found] == [document.score for document in expected]
    assert [node.metadata["prior"] for node in found] == [document.prior for document in expected]
    assert len(RagEngineRetriever(engine).retrieve(QUESTION)) == engine.default_options.n_docs
    assert asyncio.run(RagEngineRetriever(engine, 3).aretrieve(QUESTION)) == found


def test_metadata_of_passages_goes_along(owned: RagEngine) -> None:
    (found,) = RagEngineRetriever(owned).retrieve(QUESTION)
    assert found.metadata.items() >= {**FACTS, "id": "a"}.items()
    assert found.metadata["doc_score"] == owned.retrieve(QUESTION)[0].score
    assert "owner: data" in found.get_content(metadata_mode=MetadataMode.LLM)
    response = RagEngineQueryEngine(owned).query(QUESTION)
    assert response.source_nodes[0].metadata.items() >= {**FACTS, "posterior": 1.0}.items()
    assert response.metadata["documents"][0]["metadata"] == FACTS


def test_another_model_reads_the_title_but_no_numbers(engine: RagEngine) -> None:
    (node,) = RagEngineRetriever(engine, n_docs=1).retrieve(QUESTION)
    title, text = engine.retrieve(QUESTION, 1)[0].title, node.get_content()
    assert node.get_content(metadata_mode=MetadataMode.LLM) == f"title: {title}\n\n{text}"
    assert node.get_content(metadata_mode=MetadataMode.EMBED) == f"title: {title}\n\n{text}"


def test_passages_that_say_the_same_both_count(engine: RagEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex drops nodes that equal another; their priors would go with them."""
    first = engine.retrieve(QUESTION, 1)[0]
    twice = [Document(first.title, first.text, id, first.score, 0.5) for id in ("1", "2")]
    monkeypatch.setattr(engine, "retrieve", lambda *_: twice)
    assert [node.node_id for node in RagEngineRetriever(engine).retrieve(QUESTION)] == ["1", "2"]


def test_query_engine_answers_as_the_engine(engine: RagEngine) -> None:
    expected = engine.generate(QUESTION, documents=own(engine))
    response = RagEngineQueryEngine(engine).query(QUESTION)
    assert str(response) == TEXT
    check_same_answer(response.metadata, expected)
    check_sources([node.metadata for node in response.source_nodes], expected)
    assert expected.log_prob == pytest.approx(engine.generate(QUESTION).log_prob, abs=1e-6)


def test_settings(engine: RagEngine) -> None:
    response = RagEngineQueryEngine(engine, generation_kwargs={"num_beams": 4, "n_docs": 2}).query(QUESTION)
    expected = engine.generate(QUESTION, documents=own(engine, 0, 1), num_beams=4, n_docs=2)
    check_same_answer(response.metadata, expected)


def test_postprocessors_choose_what_is_read(engine: RagEngine) -> None:
    """The priors are those of the nodes that stay."""
    scores = [document.score or 0.0 for document in own(engine)]
    cutoff = SimilarityPostprocessor(similarity_cutoff=(scores[1] + scores[2]) / 2)
    response = RagEngineQueryEngine(engine, node_postprocessors=[cutoff]).query(QUESTION)
    expected = engine.generate(QUESTION, documents=own(engine, 0, 1))
    check_same_answer(response.metadata, expected)
    check_sources([node.metadata for node in response.source_nodes], expected)


def test_a_rerankers_score_orders_but_does_not_weigh(engine: RagEngine) -> None:
    nodes = RagEngineRetriever(engine).retrieve(QUESTION)
    reranked = [NodeWithScore(node=node.node, score=float(n)) for n, node in enumerate(nodes[:3])]
    response = RagEngineQueryEngine(engine, Given(reranked[::-1])).query(QUESTION)
    check_same_answer(response.metadata, engine.generate(QUESTION, documents=own(engine, 2, 1, 0)))
    assert [node.score for node in response.source_nodes] == [0.0, 1.0, 2.0]
    assert "posterior" not in nodes[0].metadata, "the caller's nodes are left alone"


def test_nodes_of_another_retriever_are_scored_and_keep_their_metadata(engine: RagEngine) -> None:
    nodes = [
        NodeWithScore(
            node=TextNode(id_=str(n), text=d.text, metadata={"title": d.title, "page": n}), score=9.0 - n
        )
        for n, d in enumerate(own(engine, 3, 0))
    ]
    response = RagEngineQueryEngine(engine, Given(nodes)).query(QUESTION)
    foreign = [
        Document(d.title, d.text, str(n), metadata={"page": str(n)}) for n, d in enumerate(own(engine, 3, 0))
    ]
    check_same_answer(response.metadata, engine.generate(QUESTION, documents=foreign))
    assert [node.metadata["page"] for node in response.source_nodes] == [1, 0]


def test_awaited_query_gives_the_same(engine: RagEngine) -> None:
    query_engine = RagEngineQueryEngine(engine)

    async def ask() -> Any:
        return await query_engine.aquery(QUESTION)

    response = asyncio.run(ask())
    assert str(response) == TEXT
    check_same_answer(response.metadata, engine.generate(QUESTION, documents=own(engine)))


def test_synthesize_lists_additional_sources_that_it_does_not_read(engine: RagEngine) -> None:
    query_engine, query = RagEngineQueryEngine(engine), QueryBundle(QUESTION)
    nodes = query_engine.retrieve(query)
    response = query_engine.synthesize(query, nodes[:2], additional_source_nodes=nodes[4:])
    assert len(response.metadata["documents"]) == 2
    assert [node.node_id for node in response.source_nodes] == [nodes[n].node_id for n in (0, 1, 4)]


def test_an_agents_tool_can_be_made_of_it(engine: RagEngine) -> None:
    tool = QueryEngineTool.from_defaults(RagEngineQueryEngine(engine), name="facts", description="Facts.")
    assert tool.call(QUESTION).content == TEXT


def test_events_are_told(engine: RagEngine) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    RagEngineQueryEngine(engine, callback_manager=CallbackManager([handler])).query(QUESTION)
    assert len(handler.get_event_pairs(CBEventType.QUERY)) == 1
    assert len(handler.get_event_pairs(CBEventType.RETRIEVE)) == 1


def test_there_are_no_prompts(engine: RagEngine) -> None:
    assert RagEngineQueryEngine(engine).get_prompts() == {}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("text", "nodes is str; it must be a list"),
        (["text"], "Node 0 is str; it must be a NodeWithScore"),
        ([], "documents of question 0 is empty"),
        ([NodeWithScore(node=TextNode(text="x", metadata={"doc_score": "high"}))], "has the score 'high'"),
    ],
)
def test_wrong_nodes_are_told(engine: RagEngine, nodes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RagEngineQueryEngine(engine).synthesize(QueryBundle(QUESTION), nodes)


def test_wrong_settings_are_told(engine: RagEngine) -> None:
    for adapter in (RagEngineRetriever, RagEngineQueryEngine):
        with pytest.raises(InputError, match="engine is NoneType"):
            adapter(None)
    with pytest.raises(InputError, match="sets documents"):
        RagEngineQueryEngine(engine, generation_kwargs={"documents": []})
    with pytest.raises(OptionsError, match="num_beams"):
        RagEngineQueryEngine(engine, generation_kwargs={"num_beams": 0}).query(QUESTION)
