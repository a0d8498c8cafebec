"""The adapters for LangChain, with LangChain itself."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="LangChain is not installed here; see make test-integrations")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.runnables.utils import ConfigurableField

from ragengine import Document, RagEngine
from ragengine.errors import InputError, OptionsError
from ragengine.integrations.langchain import RagEngineAnswerer, RagEngineRetriever
from tests.integrations.comparison import check_same_answer, check_sources
from tests.integrations.conftest import FACTS, QUESTION, TEXT


@pytest.fixture(scope="module")
def answerer(engine: RagEngine) -> RagEngineAnswerer:
    return RagEngineAnswerer(engine)


def test_retriever_finds_what_the_engine_finds(engine: RagEngine) -> None:
    retriever = RagEngineRetriever(engine, n_docs=3, tags=["ours"])
    assert isinstance(retriever, BaseRetriever)
    found = retriever.invoke(QUESTION)
    expected = engine.retrieve(QUESTION, 3)
    assert [document.id for document in found] == [document.id for document in expected]
    assert [document.page_content for document in found] == [document.text for document in expected]
    assert [document.metadata["doc_score"] for document in found] == [one.score for one in expected]
    assert [document.metadata["prior"] for document in found] == [one.prior for one in expected]
    assert len(retriever.invoke(QUESTION, n_docs=2)) == 2
    assert len(RagEngineRetriever(engine).invoke(QUESTION)) == engine.default_options.n_docs


def test_metadata_of_passages_goes_along(owned: RagEngine) -> None:
    (found,) = RagEngineRetriever(owned).invoke(QUESTION)
    assert found.metadata.items() >= FACTS.items()
    assert found.metadata["doc_score"] == owned.retrieve(QUESTION)[0].score
    for given in (QUESTION, {"question": QUESTION, "context": [found]}):
        answered = RagEngineAnswerer(owned).invoke(given)
        assert answered["context"][0].metadata.items() >= {**FACTS, "posterior": 1.0}.items()
        assert answered["result"]["documents"][0]["metadata"].items() >= FACTS.items()


def test_a_question_alone_is_answered_as_by_the_engine(engine: RagEngine, answerer: Runnable) -> None:
    expected = engine.generate(QUESTION)
    answered = answerer.invoke(QUESTION)
    assert answered["question"] == QUESTION
    assert answered["answer"] == TEXT
    check_same_answer(answered["result"], expected)
    check_sources([document.metadata for document in answered["context"]], expected)


def test_chain_of_retriever_and_answerer_keeps_the_mixture(engine: RagEngine, answerer: Runnable) -> None:
    chain = {"context": RagEngineRetriever(engine), "question": RunnablePassthrough()} | answerer
    check_same_answer(chain.invoke(QUESTION)["result"], engine.generate(QUESTION, documents=own(engine)))
    assert (chain | RunnableLambda(lambda answered: answered["answer"])).invoke(QUESTION) == TEXT
    assert chain.pick("answer").invoke(QUESTION) == TEXT


def own(engine: RagEngine, *places: int) -> list[Document]:
    """Documents found, given back to the engine; all of them, or those at ``places``."""
    found = engine.retrieve(QUESTION)
    return [found[place] for place in places] if places else found


def test_documents_between_search_and_answer_may_be_chosen(engine: RagEngine, answerer: Runnable) -> None:
    """The priors are those of the documents that stay."""
    context = RagEngineRetriever(engine).invoke(QUESTION)
    answered = answerer.invoke({"question": QUESTION, "context": [context[2], context[1]]})
    expected = engine.generate(QUESTION, documents=own(engine, 2, 1))
    check_same_answer(answered["result"], expected)
    check_sources([document.metadata for document in answered["context"]], expected)
    assert answered["context"][0].id == context[1].id
    assert "posterior" not in context[1].metadata, "the caller's documents are left alone"


def test_documents_of_another_retriever_are_scored_and_keep_their_metadata(
    engine: RagEngine, answerer: Runnable
) -> None:
    class Keywords(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[LangChainDocument]:
            return [
                LangChainDocument(d.text, metadata={"title": d.title, "page": n, "score": 100.0 - n})
                for n, d in enumerate(own(engine, 3, 0))
            ]

    answered = ({"context": Keywords(), "question": RunnablePassthrough()} | answerer).invoke(QUESTION)
    foreign = [
        Document(d.title, d.text, metadata={"page": str(n), "score": str(100.0 - n)})
        for n, d in enumerate(own(engine, 3, 0))
    ]
    check_same_answer(answered["result"], engine.generate(QUESTION, documents=foreign))
    assert [document.metadata["page"] for document in answered["context"]] == [1, 0]
    assert answered["context"][0].metadata["score"] == 99.0


def test_settings_of_runnable_and_call(engine: RagEngine) -> None:
    answerer = RagEngineAnswerer(engine, {"num_beams": 2, "n_docs": 2})
    expected = engine.generate(QUESTION, num_beams=4, n_docs=2)
    check_same_answer(answerer.invoke(QUESTION, num_beams=4)["result"], expected)
    check_same_answer(answerer.bind(num_beams=4).invoke(QUESTION)["result"], expected)


def test_batches_and_awaited_calls_give_the_same(engine: RagEngine, answerer: Runnable) -> None:
    chain = {"context": RagEngineRetriever(engine), "question": RunnablePassthrough()} | answerer
    questions = [QUESTION, "What is the capital of Iceland?"]
    expected = [engine.generate(question, documents=engine.retrieve(question)) for question in questions]

    async def ask() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(chain.ainvoke(question) for question in questions)))

    for answers in (chain.batch(questions), asyncio.run(ask()), [*map(answerer.invoke, questions)]):
        for answered, one in zip(answers, expected, strict=True):
            assert answered["answer"] == one.text.strip()
            assert answered["result"]["log_prob"] == one.log_prob
    assert [chunk["answer"] for chunk in chain.stream(QUESTION)] == [TEXT]


def test_callbacks_see_search_and_answer(engine: RagEngine, answerer: Runnable) -> None:
    class Seen(BaseCallbackHandler):
        def __init__(self) -> None:
            self.events: list[tuple[str, Any]] = []

        def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
            self.events.append(("documents", len(documents)))

        def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
            if isinstance(outputs, dict) and "answer" in outputs:
                self.events.append(("answer", outputs["answer"]))

    seen = Seen()
    chain = {"context": RagEngineRetriever(engine), "question": RunnablePassthrough()} | answerer
    chain.invoke(QUESTION, {"callbacks": [seen]})
    assert seen.events == [
        ("documents", 5),
        ("answer", TEXT),
        ("answer", TEXT),
    ]  # the runnable's, the chain's


def test_retriever_is_configurable(engine: RagEngine) -> None:
    retriever = RagEngineRetriever(engine).configurable_fields(n_docs=ConfigurableField("n_docs"))
    assert len(retriever.invoke(QUESTION, {"configurable": {"n_docs": 2}})) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "The input is 7; it must be a question, or a dict"),
        ({"context": []}, "it must be a question, or a dict with the keys question and context"),
        ({"question": ["x"]}, "The question is list"),
        ({"question": "x", "context": "text"}, "context is str; it must be a list"),
        (
            {"question": "x", "context": ["text"]},
            "Document 0 of context is str; it must be a LangChain Document",
        ),
        ({"question": "x", "context": []}, "documents of question 0 is empty"),
        (
            {"question": "x", "context": [LangChainDocument("y", metadata={"doc_score": "high"})]},
            "Document 0 of question 0 has the score 'high'",
        ),
        (
            {"question": "x", "context": [LangChainDocument("y", metadata={"title": 3})]},
            "The title of document 0",
        ),
    ],
)
def test_wrong_input_is_told(answerer: Runnable, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        answerer.invoke(given)


def test_wrong_settings_are_told(engine: RagEngine, answerer: Runnable) -> None:
    with pytest.raises(InputError, match="engine is NoneType"):
        RagEngineRetriever(None)
    with pytest.raises(InputError, match="sets documents"):
        RagEngineAnswerer(engine, {"documents": []})
    with pytest.raises(OptionsError, match="num_beams"):
        answerer.invoke(QUESTION, num_beams=0)
    with pytest.raises(InputError, match="n_docs"):
        RagEngineRetriever(engine, n_docs=0).invoke(QUESTION)
