"""The adapters for Haystack, with Haystack itself."""

import asyncio
import gc
import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("haystack", reason="Haystack is not installed here; see make test-integrations")

from haystack import Document as HaystackDocument
from haystack import Pipeline, component
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.core.errors import DeserializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore

from ragengine import Document, RagEngine
from ragengine.errors import BundleError, InputError, OptionsError
from ragengine.integrations import haystack
from ragengine.integrations.haystack import RagEngineAnswerer, RagEngineRetriever
from tests.integrations.comparison import check_same_answer, check_sources
from tests.integrations.conftest import BUNDLE, FACTS, INDEX, QUESTION, TEXT

LOAD = {"device": "cpu", "threads": 1, "verify": "size"}
MODULE = "ragengine.integrations.haystack"


def own(engine: RagEngine, *places: int) -> list[Document]:
    """Documents found, given back to the engine; all of them, or those at ``places``."""
    found = engine.retrieve(QUESTION)
    return [found[place] for place in places] if places else found


def pipeline_of(**settings: Any) -> Pipeline:
    """Retriever and answerer, connected."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", RagEngineRetriever(BUNDLE, INDEX, load_kwargs=LOAD))
    pipeline.add_component("answerer", RagEngineAnswerer(BUNDLE, INDEX, settings, LOAD))
    pipeline.connect("retriever.documents", "answerer.documents")
    return pipeline


def asked(question: str = QUESTION) -> dict[str, Any]:
    """The inputs of such a pipeline."""
    return {"retriever": {"query": question}, "answerer": {"query": question}}


@pytest.fixture(scope="module")
def answerer() -> RagEngineAnswerer:
    return RagEngineAnswerer(BUNDLE, INDEX, load_kwargs=LOAD)


def test_retriever_finds_what_the_engine_finds(engine: RagEngine) -> None:
    retriever = RagEngineRetriever(BUNDLE, INDEX, n_docs=3, load_kwargs=LOAD)
    found, expected = retriever.run(QUESTION)["documents"], engine.retrieve(QUESTION, 3)
    assert [document.id for document in found] == [document.id for document in expected]
    assert [document.content for document in found] == [document.text for document in expected]
    assert [document.score for document in found] == [document.score for document in expected]
    assert [document.meta["prior"] for document in found] == [document.prior for document in expected]
    assert len(retriever.run(QUESTION, n_docs=2)["documents"]) == 2


def test_metadata_of_passages_goes_along(owned_index: str, owned: RagEngine) -> None:
    (found,) = RagEngineRetriever(BUNDLE, owned_index, load_kwargs=LOAD).run(QUESTION)["documents"]
    assert found.meta.items() >= FACTS.items()
    assert found.meta["doc_score"] == owned.retrieve(QUESTION)[0].score
    answerer = RagEngineAnswerer(BUNDLE, owned_index, load_kwargs=LOAD)
    for documents in (None, [found]):
        (answer,) = answerer.run(QUESTION, documents)["answers"]
        assert answer.documents[0].meta.items() >= {**FACTS, "posterior": 1.0}.items()
        assert answer.meta["documents"][0]["metadata"].items() >= FACTS.items()


def test_pipeline_answers_as_the_engine(engine: RagEngine) -> None:
    (answer,) = pipeline_of(num_beams=4).run(asked())["answerer"]["answers"]
    expected = engine.generate(QUESTION, documents=own(engine), num_beams=4)
    assert (answer.data, answer.query) == (TEXT, QUESTION)
    check_same_answer(answer.meta, expected)
    check_sources([document.meta for document in answer.documents], expected)
    assert json.loads(json.dumps(answer.to_dict()))["data"] == TEXT


def test_a_query_alone_is_answered(engine: RagEngine, answerer: RagEngineAnswerer) -> None:
    (answer,) = answerer.run(QUESTION, generation_kwargs={"n_docs": 2})["answers"]
    check_same_answer(answer.meta, engine.generate(QUESTION, n_docs=2))
    assert [document.score for document in answer.documents] == [one.score for one in own(engine, 0, 1)]


def test_documents_between_search_and_answer_may_be_chosen(
    engine: RagEngine, answerer: RagEngineAnswerer
) -> None:
    """A ranker's scores order documents; the priors are those of the documents that stay."""
    found = RagEngineRetriever(BUNDLE, INDEX, load_kwargs=LOAD).run(QUESTION)["documents"]
    ranked = [
        HaystackDocument(one.id, one.content, meta=one.meta, score=n) for n, one in enumerate(found[:3])
    ]
    (answer,) = answerer.run(QUESTION, ranked[::-1])["answers"]
    expected = engine.generate(QUESTION, documents=own(engine, 2, 1, 0))
    check_same_answer(answer.meta, expected)
    check_sources([document.meta for document in answer.documents], expected)
    assert [document.score for document in answer.documents] == [0, 1, 2]
    assert "posterior" not in ranked[0].meta, "the caller's documents are left alone"


def test_hybrid_search_is_weighed_by_the_encoder(engine: RagEngine) -> None:
    """BM25's documents have other scores: the mixture is that of the passage encoder for all."""
    store = InMemoryDocumentStore()
    store.write_documents(
        [HaystackDocument(content=d.text, meta={"title": d.title, "page": 7}) for d in own(engine, 3)]
    )
    pipeline = pipeline_of()
    pipeline.remove_component("answerer")
    pipeline.add_component("keywords", InMemoryBM25Retriever(store))
    pipeline.add_component("joiner", DocumentJoiner(sort_by_score=False))
    pipeline.add_component("answerer", RagEngineAnswerer(BUNDLE, INDEX, load_kwargs=LOAD))
    pipeline.connect("retriever", "joiner.documents")
    pipeline.connect("keywords", "joiner.documents")
    pipeline.connect("joiner", "answerer.documents")
    (answer,) = pipeline.run({**asked(), "keywords": {"query": QUESTION}})["answerer"]["answers"]
    read = [
        Document(one["title"], one["text"], one["id"], metadata=one["metadata"])
        for one in answer.meta["documents"]
    ]
    assert len(read) == 6
    check_same_answer(answer.meta, engine.generate(QUESTION, documents=read))
    assert [document.meta.get("page") for document in answer.documents].count(7) == 1


def test_components_describe_themselves() -> None:
    retriever = RagEngineRetriever(BUNDLE, INDEX, 3, LOAD)
    assert retriever.to_dict() == {
        "type": f"{MODULE}.RagEngineRetriever",
        "init_parameters": {"bundle": BUNDLE, "index": INDEX, "n_docs": 3, "load_kwargs": LOAD},
    }
    assert RagEngineRetriever.from_dict(retriever.to_dict()).to_dict() == retriever.to_dict()
    answerer = RagEngineAnswerer(BUNDLE, INDEX, {"num_beams": 2}, LOAD)
    assert answerer.to_dict() == {
        "type": f"{MODULE}.RagEngineAnswerer",
        "init_parameters": {
            "bundle": BUNDLE,
            "index": INDEX,
            "generation_kwargs": {"num_beams": 2},
            "load_kwargs": LOAD,
        },
    }
    assert RagEngineAnswerer.from_dict(answerer.to_dict()).to_dict() == answerer.to_dict()


LOADED = f"""
import json, sys
from haystack import Pipeline
pipeline = Pipeline.loads(sys.stdin.read(), allowed_modules=[{MODULE!r}])
(answer,) = pipeline.run({asked()!r})["answerer"]["answers"]
print(json.dumps([answer.to_dict(), pipeline.dumps()]))
"""


def test_a_saved_pipeline_answers_the_same_in_a_new_process(engine: RagEngine) -> None:
    saved = pipeline_of(num_beams=4).dumps()
    done = subprocess.run(
        [sys.executable, "-c", LOADED], input=saved, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer, again = json.loads(done.stdout)
    assert again == saved
    check_same_answer(answer["meta"], engine.generate(QUESTION, documents=own(engine), num_beams=4))


def test_a_saved_pipeline_is_loaded_by_who_trusts_the_module() -> None:
    with pytest.raises(DeserializationError, match=MODULE):
        Pipeline.loads(pipeline_of().dumps())


def test_components_share_an_engine_for_as_long_as_one_holds_it() -> None:
    loaded = haystack._EngineComponent._loaded
    settings = {**LOAD, "threads": 2}  # of no other test
    gc.collect()
    before = len(loaded)
    retriever = RagEngineRetriever(BUNDLE, INDEX, load_kwargs=settings)
    answerer = RagEngineAnswerer(BUNDLE, INDEX, load_kwargs=settings)
    assert len(loaded) == before, "nothing is loaded before the pipeline warms up"
    retriever.warm_up()
    answerer.warm_up()
    assert len(loaded) == before + 1
    retriever.close()
    gc.collect()
    assert len(loaded) == before + 1
    assert answerer.run(QUESTION)["answers"][0].data == TEXT
    answerer.close()
    gc.collect()
    assert len(loaded) == before
    assert len(retriever.run(QUESTION)["documents"]) == 5, "a closed component loads again"


def test_awaited_pipeline_gives_the_same(engine: RagEngine) -> None:
    async def ask() -> Any:
        return await pipeline_of().run_async(asked())

    (answer,) = asyncio.run(ask())["answerer"]["answers"]
    check_same_answer(answer.meta, engine.generate(QUESTION, documents=own(engine)))


def test_sockets_connect_by_type() -> None:
    @component
    class Texts:
        @component.output_types(texts=list[str])
        def run(self, query: str) -> dict[str, list[str]]:
            return {"texts": [query]}

    pipeline = pipeline_of()
    pipeline.add_component("texts", Texts())
    with pytest.raises(Exception, match="documents"):
        pipeline.connect("texts.texts", "answerer.documents")


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("text", "documents is str; it must be a list"),
        (["text"], "Document 0 is str; it must be a Haystack Document"),
        ([HaystackDocument(id="1")], "Document 0 has no content"),
        ([], "documents of question 0 is empty"),
        ([HaystackDocument(content="x", meta={"doc_score": "high"})], "has the score 'high'"),
    ],
)
def test_wrong_documents_are_told(answerer: RagEngineAnswerer, documents: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        answerer.run(QUESTION, documents)


def test_wrong_settings_are_told(answerer: RagEngineAnswerer) -> None:
    with pytest.raises(InputError, match="sets documents"):
        RagEngineAnswerer(BUNDLE, INDEX, {"documents": []})
    with pytest.raises(OptionsError, match="num_beams"):
        answerer.run(QUESTION, generation_kwargs={"num_beams": 0})
    with pytest.raises(InputError, match="load_kwargs cannot be saved as JSON"):
        RagEngineRetriever(BUNDLE, INDEX, load_kwargs={"device": object()})
    for wrong in ({"index": INDEX}, {"thread": 1}, [("threads", 1)]):
        with pytest.raises(InputError, match=r"arguments of RagEngine\.load: device, .*, threads, verify"):
            RagEngineRetriever(BUNDLE, INDEX, load_kwargs=wrong)
    with pytest.raises(BundleError):
        RagEngineRetriever("nowhere", INDEX).warm_up()
