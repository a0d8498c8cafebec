"""Questions with their documents, as the generator reads them."""

from dataclasses import dataclass

from ragengine.bundle.manifest import RagSpec
from ragengine.generation.contexts import Contexts
from ragengine.pipeline.documents import SelectedDocuments
from ragengine.retrieval.encoder import EncodedQuestions
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.tokenization import Encoded, Tokenizer


@dataclass(frozen=True, eq=False)
class Prompts:
    """Q questions, each joined with its documents.

    selected   the documents
    truncated  for each question, whether something of it was cut off
    contexts   the tokens that the generator reads, padded to the longest prompt and the most documents
    """

    selected: SelectedDocuments
    truncated: list[bool]
    contexts: Contexts


def build_prompts(
    rag: RagSpec,
    tokenizer: Tokenizer,
    questions: EncodedQuestions,
    selected: SelectedDocuments,
    stop: Stop = NEVER,
) -> Prompts:
    """Join questions with their documents, as `RagRetriever.postprocess_docs` of transformers does.

    Padding goes to the longest prompt, where transformers pads to ``max_combined_length``: the numbers
    are the same.  A question with fewer documents gets empty ones, of prior 0.  The question is at the
    end: where the tokenizer cuts on the right, as most do, whatever is cut off is cut off the question.
    ``stop`` is asked before each question and between pieces of long documents.
    """
    width = selected.log_prior.shape[1]
    prompts = []
    for number, (found, question) in enumerate(zip(selected.documents, questions.texts, strict=True)):
        stop.check(f"after the documents of {number} of {len(questions.texts)} questions were tokenized")
        texts = [format_prompt(rag, d.title, d.text, question) for d in found]
        prompts.append(tokenizer.encode(texts, stop))
    empty = [Encoded([tokenizer.spec.pad_token_id], False)]
    sequences = [prompt.ids for row in prompts for prompt in row + empty * (width - len(row))]
    ids, mask = tokenizer.pad(sequences)
    shape = (len(prompts), width, ids.shape[1])
    truncated = [
        cut or any(prompt.truncated for prompt in row)
        for cut, row in zip(questions.truncated, prompts, strict=True)
    ]
    contexts = Contexts(ids.reshape(shape), mask.reshape(shape), selected.log_prior)
    return Prompts(selected, truncated, contexts)


def format_prompt(rag: RagSpec, title: str, text: str, question: str) -> str:
    """The generator's input for one document, x and z joined.

    `cat_input_and_doc` in transformers' `RagRetriever.postprocess_docs`: one pair of double quotes is
    stripped off the title, and double spaces are collapsed once, in the whole prompt.
    """
    title = title.removeprefix('"').removesuffix('"')
    return (rag.prefix + title + rag.title_sep + text + rag.doc_sep + question).replace("  ", " ")
