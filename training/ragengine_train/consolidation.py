"""One RAG checkpoint from a question encoder and a generator of any supported family."""

from pathlib import Path
from typing import Any, Literal

from ragengine.errors import OptionsError
from ragengine.storage.schema import join_errors
from ragengine_train.checkpoint import (
    Parts,
    load_encoder_tokenizer,
    longest_text,
    write_checkpoint,
)
from ragengine_train.config import ModelConfig
from ragengine_train.config_file import generation_errors
from ragengine_train.preflight import model_errors


def consolidate(
    question_encoder: str | Path,
    generator: str | Path,
    target: str | Path,
    *,
    context_encoder: str | Path | None = None,
    kind: Literal["token", "sequence"] = "token",
    pooling: Any = None,
    n_docs: int = 5,
    max_combined_length: int = 300,
    title_sep: str = " / ",
    doc_sep: str = " // ",
    prefix: str | None = None,
    generation: dict[str, Any] | None = None,
) -> Path:
    """Write a RAG checkpoint of separate networks, which is what `ragengine consolidate` does.

    Args:
        question_encoder: the folder or hub name of a network with its tokenizer.
        generator: the same of a sequence-to-sequence model.
        target: the folder to write; what is there is replaced.
        context_encoder: a passage encoder, which is written to `context_encoder` in the folder.
        kind: ``token`` or ``sequence``, how the model marginalises over documents.
        pooling: how a bare encoder makes a vector of a text, as ``model.pooling`` of a training.
        n_docs, max_combined_length, title_sep, doc_sep: as in ``RagConfig``.
        prefix: what prompts begin with; by default that of the generator's config.
        generation: fields of `generation_config.json`.

    Returns:
        The folder.

    Raises:
        OptionsError: a setting is wrong, or the networks do not fit together.
        ExportError: a network or tokenizer cannot be loaded or is of another architecture.
        InputError: the folder cannot be written.
    """
    known = str(question_encoder if context_encoder is None else context_encoder)
    parts = Parts(str(question_encoder), known, str(generator))
    model = ModelConfig(
        question_encoder=parts.question_encoder,
        context_encoder=known,
        generator=parts.generator,
        type=kind,
        pooling=pooling,
        n_docs=n_docs,
        max_combined_length=max_combined_length,
        title_sep=title_sep,
        doc_sep=doc_sep,
        prefix=prefix,
        max_question_length=_longest(parts.question_encoder),
        max_passage_length=_longest(known),
        generation=generation or {},
    )
    if errors := [*generation_errors(model.generation), *model_errors(model, parts)]:
        raise OptionsError(f"{question_encoder} and {generator} make no RAG model: {join_errors(errors)}.")
    write_checkpoint(parts, model, Path(target), context_encoder=context_encoder is not None)
    return Path(target)


def _longest(source: str) -> int:
    """The tokens that an encoder reads of a text."""
    return min(longest_text(source), int(load_encoder_tokenizer(source).model_max_length))
