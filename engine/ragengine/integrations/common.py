"""What the adapters share: documents with metadata, settings, and the sources of an answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ragengine.corpus.metadata import metadata_text
from ragengine.engine import RagEngine
from ragengine.errors import DependencyError, InputError
from ragengine.installation import missing_package
from ragengine.messages import short_repr
from ragengine.results import Answer, Document
from ragengine.validation import checked_question

Original = TypeVar("Original")

TITLE, SCORE = "title", "doc_score"
"""Metadata of a document: its title, and q(x)·d(z), which the prior p(z | x) is made of."""

WEIGHTS = (SCORE, "prior", "posterior")
"""Metadata that are numbers about a document, not a part of what it says."""

_OWN = ("id", TITLE, *WEIGHTS)
_NAMED_BY_THE_CALL = ("question", "documents", "options")


def missing_framework(framework: str, extra: str, reason: ModuleNotFoundError) -> DependencyError:
    """The error for a framework that cannot be imported; ``extra`` installs it."""
    return missing_package(f"The adapters for {framework} need", reason, extra)


def checked_engine(engine: Any) -> RagEngine:
    """``engine``, which answers.  Raises :class:`InputError` where it is something else."""
    if not isinstance(engine, RagEngine):
        raise InputError(
            f"engine is {type(engine).__name__}; it must be a RagEngine, as RagEngine.load returns it."
        )
    return engine


def checked_settings(settings: Any) -> dict[str, Any]:
    """Keyword arguments of :meth:`RagEngine.generate`, which checks their values itself."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
        raise InputError(
            f"generation_kwargs is {short_repr(settings)}; it must be a dict of arguments of "
            "RagEngine.generate, by name."
        )
    taken = [name for name in _NAMED_BY_THE_CALL if name in settings]
    if taken:
        raise InputError(
            f"generation_kwargs sets {' and '.join(taken)}; give question and documents to the call, and "
            "options one by one, such as num_beams."
        )
    return dict(settings)


def to_documents(given: Iterable[tuple[str | None, str, Mapping[str, Any]]]) -> list[Document]:
    """A framework's documents, as (id, text, metadata), in the engine's form.

    Only ``doc_score`` in the metadata counts as q(x)·d(z): a framework's own score may be BM25's, a cosine or
    a re-ranker's.  Where a document has none, as after a hybrid search, the engine's passage encoder scores
    all of them: what it computes is the same product.  The other entries are the document's own metadata: a
    value that is no text as JSON writes it; one that JSON cannot write stays with the framework's document.
    """
    documents = [
        Document(
            title=metadata.get(TITLE) or "",
            text=text,
            id=id or "",
            score=metadata.get(SCORE),
            metadata=_own_metadata(metadata),
        )
        for id, text, metadata in given
    ]
    if any(document.score is None for document in documents):
        return [replace(document, score=None) for document in documents]
    return documents


def weights_of(document: Document) -> dict[str, float]:
    """What is known of doc_score, prior and posterior."""
    fields = document.to_dict()
    return {name: fields[name] for name in WEIGHTS if fields[name] is not None}


def metadata_of(document: Document) -> dict[str, Any]:
    """The metadata of a framework's document: the passage's own, its title and its weights.

    A field of the passage that has the name of one of these is left out, and so is ``id``, which a framework
    may keep there.
    """
    own = {name: value for name, value in document.metadata.items() if name not in _OWN}
    return {**own, **({TITLE: document.title} if document.title else {}), **weights_of(document)}


def _own_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    given = {name: value for name, value in metadata.items() if isinstance(name, str) and value is not None}
    texts = {name: metadata_text(value) for name, value in given.items() if name not in _OWN}
    return {name: text for name, text in texts.items() if text is not None}


def ask(
    engine: RagEngine, question: Any, documents: list[Document] | None, settings: dict[str, Any]
) -> Answer:
    """Answer one question from ``documents``, or from those that the engine finds where None are given."""
    return engine.generate(checked_question(question), documents=documents, **settings)


def sources(
    originals: Sequence[Original] | None, given: list[Document] | None, answer: Answer
) -> list[tuple[Original | None, Document]]:
    """The documents that were read, those first that the answer came from.

    Args:
        originals: the framework's documents; None where the engine searched itself.
        given: the same documents in the engine's form.
        answer: what was made of them.

    Returns:
        Each document with its posterior, beside the framework's own.
    """
    found: list[tuple[Original | None, Document]]
    if originals is None or given is None:
        found = [(None, document) for document in answer.documents]
    else:
        rest = zip(originals, given, strict=True)  # pruning leaves some out and keeps the order
        found = [
            (next(original for original, own in rest if _same(own, read)), read) for read in answer.documents
        ]
    return sorted(found, key=lambda source: -(source[1].posterior or 0.0))


def _same(given: Document, read: Document) -> bool:
    return (given.id, given.title, given.text) == (read.id, read.title, read.text) and (
        given.score is None or float(given.score) == read.score
    )
