"""LangChain: retrieve, drop what does not mention the place, and answer from the rest.

python examples/integrations/with_langchain.py BUNDLE INDEX QUESTION
"""

import sys

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from ragengine import RagEngine
from ragengine.integrations.langchain import RagEngineAnswerer, RagEngineRetriever


def about_the_question(found: dict) -> list[Document]:
    """The passages whose title is in the question, or all of them where there is none."""
    named = [document for document in found["context"] if document.metadata["title"] in found["question"]]
    return named or found["context"]


def main(bundle: str, index: str, question: str) -> None:
    """Print the answer and its sources."""
    with RagEngine.load(bundle, index=index) as engine:
        chain = (
            {"context": RagEngineRetriever(engine), "question": RunnablePassthrough()}
            | RunnablePassthrough.assign(context=RunnableLambda(about_the_question))
            | RagEngineAnswerer(engine, {"num_beams": 4})
        )
        answered = chain.invoke(question)
    print(answered["answer"])
    for document in answered["context"]:
        print(f"{document.metadata['posterior']:.2f}  {document.metadata['title']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
