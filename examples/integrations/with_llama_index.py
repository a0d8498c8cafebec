"""LlamaIndex: a query engine with a postprocessor between search and answer.

python examples/integrations/with_llama_index.py BUNDLE INDEX QUESTION
"""

import sys

from llama_index.core.postprocessor import SimilarityPostprocessor

from ragengine import RagEngine
from ragengine.integrations.llama_index import RagEngineQueryEngine


def main(bundle: str, index: str, question: str) -> None:
    """Print the answer and its sources."""
    with RagEngine.load(bundle, index=index) as engine:
        query_engine = RagEngineQueryEngine(
            engine,
            node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=60.0)],  # of inner products
            generation_kwargs={"num_beams": 4},
        )
        response = query_engine.query(question)
    print(response)
    for source in response.source_nodes:
        print(f"{source.metadata['posterior']:.2f}  {source.metadata['title']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
