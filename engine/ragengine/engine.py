"""`RagEngine`: Figure 1 of the paper.  Encode the question, search, read the documents, generate."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle import Bundle
from ragengine.errors import InputError
from ragengine.generation.generator import Generator
from ragengine.generation.mixture import log_prior
from ragengine.options import GenerationOptions
from ragengine.results import Answer, Document, Hypothesis
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.retriever import Retriever
from ragengine.sessions import Device
from ragengine.text import Encoded, Tokenizer, format_prompt

FloatArray: TypeAlias = NDArray[np.float32]
Documents: TypeAlias = list[list[Document]]


class RagEngine:
    """A RAG model and an index, ready to answer.  Safe to use from several threads."""

    def __init__(self, bundle: Bundle, retriever: Retriever, generator: Generator) -> None:
        self.bundle = bundle
        self.retriever = retriever
        self.generator = generator
        spec = bundle.manifest.generator
        self._tokenizer = Tokenizer(bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)

    @classmethod
    def load(
        cls, bundle: str | Path, index: str | Path, device: Device = "auto", threads: int | None = None
    ) -> "RagEngine":
        """Open a bundle and an index.

        ``device`` is auto, cpu or cuda; ``threads`` the threads a graph may use (default: all cores of
        this process).  Raises :class:`BundleError` or :class:`IndexFolderError` when a folder is not
        whole or the two do not belong together.
        """
        opened = Bundle.open(bundle)
        retriever = Retriever(opened, PassageIndex.open(index), device=device, threads=threads)
        return cls(opened, retriever, Generator(opened, device=device, threads=threads))

    @property
    def default_options(self) -> GenerationOptions:
        """The options of this model where a call does not say otherwise."""
        return self.generator.default_options

    def retrieve(self, question: str, n_docs: int | None = None) -> list[Document]:
        """The documents for one question, best first, with their scores and priors p(z | x)."""
        tokens = self._tokenize([question])
        found = self.retriever.search_vectors(
            self.retriever.encode(tokens), n_docs or self.default_options.n_docs
        )
        return _with_prior(found[0], _priors(found)[0])

    @overload
    def generate(self, question: str, **settings: Any) -> Answer: ...
    @overload
    def generate(self, question: Sequence[str], **settings: Any) -> list[Answer]: ...
    def generate(
        self,
        question: str | Sequence[str],
        *,
        options: GenerationOptions | None = None,
        documents: Sequence[Document] | Sequence[Sequence[Document]] | None = None,
        **overrides: Any,
    ) -> Answer | list[Answer]:
        """Answer a question, or several in one batch (the answers are those of one at a time).

        ``options`` are this model's defaults where not given; ``overrides`` change single ones by name
        (``num_beams=4``).  ``documents`` are read instead of searching: a list for one question, a list
        of lists for several.  They keep their scores, or are scored by the bundle's passage encoder.
        """
        questions = [question] if isinstance(question, str) else list(question)
        if not questions:
            return []
        options = (options or self.default_options).replace(**overrides)
        self.generator.check_options(options)
        clock = _Clock()
        tokens = self._tokenize(questions)
        vectors = self.retriever.encode(tokens)
        clock.stage("encode_question")
        if documents is None:
            read = self.retriever.search_vectors(vectors, options.n_docs)
        else:
            given = [documents] if isinstance(question, str) else documents
            read = self._own_documents(given, vectors)
        clock.stage("search")
        texts = [self.retriever.question_text(encoded) for encoded in tokens]
        prompts, ids, mask = self._prompts(read, texts)
        clock.stage("tokenize_documents")
        hypotheses = self.generator.generate(ids, mask, _scores(read), options)
        clock.stage("generate")
        answers = [
            self._answer(questions[q], read[q], hypotheses[q], options, tokens[q], prompts[q], clock.timings)
            for q in range(len(questions))
        ]
        return answers[0] if isinstance(question, str) else answers

    def close(self) -> None:
        """Close the index's files; the engine cannot search afterwards."""
        self.retriever.close()

    def __enter__(self) -> "RagEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tokenize(self, questions: Sequence[str]) -> list[Encoded]:
        for question in questions:
            if not isinstance(question, str):
                raise InputError(f"A question is {type(question).__name__}; it must be a str.")
        return self.retriever.tokenize(questions)

    def _own_documents(self, documents: Sequence[Any], vectors: FloatArray) -> Documents:
        """Documents the caller brings, with scores: theirs, or q(x)·d(z) by the passage encoder."""
        if len(documents) != len(vectors):
            raise InputError(
                f"documents has {len(documents)} lists for {len(vectors)} questions; give one each."
            )
        read = []
        for given, vector in zip(documents, vectors, strict=True):
            if isinstance(given, Document) or not given or not all(isinstance(d, Document) for d in given):
                raise InputError("documents must be a non-empty list of Document for each question.")
            scores = [document.score for document in given]
            if None in scores:
                if any(score is not None for score in scores):
                    raise InputError("Some documents have a score and some have none; give all or none.")
                passages = self._passage_encoder().encode_passages([(d.title, d.text) for d in given])
                scores = (passages @ vector).tolist()
            read.append(
                [replace(document, score=score) for document, score in zip(given, scores, strict=True)]
            )
        return read

    def _passage_encoder(self) -> TextEncoder:
        spec = self.bundle.manifest.passage_encoder
        if spec is None:
            raise InputError(
                "Documents have no scores and this bundle has no passage encoder; "
                "give each a score, or export with --context-encoder."
            )
        if not hasattr(self, "_passages"):
            self._passages = TextEncoder.load(self.bundle, spec, device="cpu")
        return self._passages

    def _prompts(
        self, read: Documents, questions: list[str]
    ) -> tuple[list[list[Encoded]], NDArray[np.int64], NDArray[np.int64]]:
        """The generator's inputs: tokens by question and document, and padded ids and mask [Q, D, S].

        Padding goes to the longest prompt, where transformers pads to ``max_combined_length``: the
        numbers are the same.  A question with fewer documents gets empty ones, of prior 0.
        """
        rag, width = self.bundle.manifest.rag, max(map(len, read))
        prompts = [
            self._tokenizer.encode([format_prompt(rag, d.title, d.text, question) for d in documents])
            for documents, question in zip(read, questions, strict=True)
        ]
        empty = [self._tokenizer.spec.pad_token_id]
        sequences = [p.ids for row in prompts for p in row + [Encoded(empty, False)] * (width - len(row))]
        ids, mask = self._tokenizer.pad(sequences)
        shape = (len(read), width, ids.shape[1])
        return prompts, ids.reshape(shape), mask.reshape(shape)

    def _answer(
        self,
        question: str,
        documents: list[Document],
        hypotheses: list[Hypothesis],
        options: GenerationOptions,
        tokens: Encoded,
        prompts: list[Encoded],
        timings: dict[str, float],
    ) -> Answer:
        count = len(documents)
        found = tuple(replace(h, token_posteriors=h.token_posteriors[:, :count]) for h in hypotheses)
        best = found[0]
        flags = {
            "question_truncated": tokens.truncated or any(prompt.truncated for prompt in prompts),
            "fewer_documents": count < options.n_docs,
            "max_length_reached": len(best.token_ids) == options.max_length - 1
            and best.token_ids[-1] not in options.eos_token_ids,
        }
        read = _with_prior(documents, _priors([documents])[0])
        posterior = best.token_posteriors.mean(axis=0).tolist()
        return Answer(
            question=question,
            texts=tuple(self._tokenizer.decode(h.token_ids.tolist()) for h in found),
            documents=tuple(replace(d, posterior=p) for d, p in zip(read, posterior, strict=True)),
            hypotheses=found,
            tokens=tuple(self._tokenizer.token_text(token) for token in best.token_ids.tolist()),
            flags=tuple(flag for flag, raised in flags.items() if raised),
            timings_ms=dict(timings),
        )


class _Clock:
    """Milliseconds since the last stage ended, by stage."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.timings[name] = (now - self._last) * 1000
        self._last = now


def _scores(read: Documents) -> FloatArray:
    """Document scores float32 [Q, D], -inf where a question has fewer documents."""
    scores = np.full((len(read), max(map(len, read))), -np.inf, np.float32)
    for row, documents in enumerate(read):
        scores[row, : len(documents)] = [document.score for document in documents]
    return scores


def _priors(read: Documents) -> FloatArray:
    return np.exp(log_prior(_scores(read)))


def _with_prior(documents: list[Document], prior: FloatArray) -> list[Document]:
    return [replace(document, prior=float(p)) for document, p in zip(documents, prior, strict=False)]
