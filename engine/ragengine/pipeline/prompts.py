"""Questions with their documents, as the generator reads them."""

from dataclasses import dataclass

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.manifest import RagSpec
from ragengine.pipeline.documents import Documents, doc_scores
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.tokenization import Encoded, Tokenizer


@dataclass(frozen=True, eq=False)
class Prompts:
    """Q questions, each joined with its documents.

    documents       those to read, with score and prior, a list a question
    pruned          those left out by ``doc_pruning``, with the prior they had
    truncated       for each question, whether something of it was cut off
    ids, mask       int64 [Q, D, S], padded to the longest prompt and the most documents
    scores          float32 [Q, D], -inf where a question has fewer documents
    """

    documents: Documents
    pruned: Documents
    truncated: list[bool]
    ids: IntArray
    mask: IntArray
    scores: FloatArray

    @property
    def arrays(self) -> tuple[IntArray, IntArray, FloatArray]:
        """What every call of :class:`Generator` starts with."""
        return self.ids, self.mask, self.scores


def build_prompts(
    rag: RagSpec,
    tokenizer: Tokenizer,
    documents: Documents,
    pruned: Documents,
    questions: list[str],
    questions_truncated: list[bool],
    stop: Stop = NEVER,
) -> Prompts:
    """Join questions, as the generator is to read them, with the documents.

    Padding goes to the longest prompt, where transformers pads to ``max_combined_length``: the numbers
    are the same.  A question with fewer documents gets empty ones, of prior 0.  Truncation is on the
    right, where the question is, so whatever is cut off is cut off the question.  ``stop`` is asked before
    each question.
    """
    width = max(map(len, documents))
    prompts = []
    for number, (found, question) in enumerate(zip(documents, questions, strict=True)):
        stop.check(f"after the documents of {number} of {len(questions)} questions were tokenized")
        prompts.append(tokenizer.encode([format_prompt(rag, d.title, d.text, question) for d in found]))
    empty = [Encoded([tokenizer.spec.pad_token_id], False)]
    sequences = [prompt.ids for row in prompts for prompt in row + empty * (width - len(row))]
    ids, mask = tokenizer.pad(sequences)
    shape = (len(documents), width, ids.shape[1])
    truncated = [
        cut or any(prompt.truncated for prompt in row)
        for cut, row in zip(questions_truncated, prompts, strict=True)
    ]
    return Prompts(
        documents, pruned, truncated, ids.reshape(shape), mask.reshape(shape), doc_scores(documents)
    )


def format_prompt(rag: RagSpec, title: str, text: str, question: str) -> str:
    """The generator's input for one document, x and z joined.

    `cat_input_and_doc` in transformers' `RagRetriever.postprocess_docs`: one pair of double quotes is
    stripped off the title, and double spaces are collapsed once, in the whole prompt.
    """
    title = title.removeprefix('"').removesuffix('"')
    return (rag.prefix + title + rag.title_sep + text + rag.doc_sep + question).replace("  ", " ")
