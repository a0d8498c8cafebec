"""Haystack: a pipeline that is saved as YAML, loaded again and run.

python examples/integrations/with_haystack.py BUNDLE INDEX QUESTION
"""

import sys

from haystack import Pipeline

from ragengine.integrations.haystack import RagEngineAnswerer, RagEngineRetriever


def build(bundle: str, index: str) -> Pipeline:
    """From a query to passages to an answer; both components share one engine."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", RagEngineRetriever(bundle, index))
    pipeline.add_component("answerer", RagEngineAnswerer(bundle, index, {"num_beams": 4}))
    pipeline.connect("retriever.documents", "answerer.documents")
    return pipeline


def main(bundle: str, index: str, question: str) -> None:
    """Print the answer and its sources."""
    saved = build(bundle, index).dumps()
    # Haystack imports classes from modules that it is told to trust.
    pipeline = Pipeline.loads(saved, allowed_modules=["ragengine.integrations.haystack"])
    outputs = pipeline.run({"retriever": {"query": question}, "answerer": {"query": question}})
    (answer,) = outputs["answerer"]["answers"]
    print(answer.data)
    for document in answer.documents:
        print(f"{document.meta['posterior']:.2f}  {document.meta['title']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
