"""From a checkpoint to a bundle: graphs, weights, tokenizers, manifest, checks."""

import dataclasses
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import transformers

from ragengine.bundle import manifest
from ragengine.bundle.checks import bundle_errors
from ragengine.bundle.signatures import Signature, generator_signatures
from ragengine.errors import ExportError
from ragengine.storage import folders
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.schema import join_errors
from ragengine.version import __version__
from ragengine_export import verification as checks
from ragengine_export.checkpoint import (
    Checkpoint,
    GeneratorCheckpoint,
    join_checkpoints,
    load_checkpoint,
)
from ragengine_export.choices import GIVEN_POOLINGS, PARTS, PRECISIONS, GivenPooling, Part, Precision
from ragengine_export.encoders import EncoderCheckpoint
from ragengine_export.generation_defaults import generation_defaults
from ragengine_export.graphs.generator import GeneratorShape
from ragengine_export.graphs.models import (
    cross_model,
    dynamic_decoder_model,
    encoder_model,
    static_decoder_model,
    text_encoder_model,
)
from ragengine_export.origin import origin_of
from ragengine_export.precision_losses import PartLoss, losses_by_part
from ragengine_export.tokenization import tokenizer_json, tokenizer_spec
from ragengine_export.weights import (
    PASSAGES_FILE,
    QUANTISED,
    WeightWriter,
    bind,
    computes_in,
)


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote: the bundle's path, a check per graph, warnings a user should read, notes on
    what it was made of, and what rounding each part costs, if questions were given."""

    path: Path
    checks: tuple[checks.GraphCheck, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    losses: tuple[PartLoss, ...] = ()


def export_checkpoint(
    source: str | Path | None,
    bundle_path: str | Path,
    precision: Precision = "fp32",
    *,
    context_encoder: str | Path | None = None,
    question_encoder: str | Path | None = None,
    generator: str | Path | None = None,
    pooling: GivenPooling | None = None,
    check: bool = True,
    force: bool = True,
    questions: str | Path | None = None,
    index: str | Path | None = None,
) -> ExportReport:
    """Export a Hugging Face RAG checkpoint to a bundle.

    ``source`` is a folder or hub id; or ``None`` with ``question_encoder`` and ``generator``, two
    checkpoints that are joined.  ``context_encoder`` adds the passage encoder, which most RAG checkpoints
    do not hold.  ``pooling`` says how a bare encoder makes a vector of a text's states.  With ``check``
    every graph is compared with torch first, and :class:`ExportError` is raised when they differ by more
    than ``check.TOLERANCE``.  The bundle appears whole or not at all, and replaces one that is there, unless
    ``force`` is False.  With ``questions``, a file as :func:`ragengine.evaluate` reads it, and the ``index``
    that answers them, the report says what rounding each part of the model costs.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision is {precision!r}; this version exports {', '.join(PRECISIONS)}.")
    if pooling is not None and pooling not in GIVEN_POOLINGS:
        raise ExportError(f"pooling is {pooling!r}; it must be one of {', '.join(GIVEN_POOLINGS)}.")
    context = None if context_encoder is None else str(context_encoder)
    if source is not None and (question_encoder is not None or generator is not None):
        raise ExportError("Give either a RAG checkpoint, or --question-encoder and --generator, not both.")
    if source is None and (question_encoder is None or generator is None):
        raise ExportError("Without a RAG checkpoint both --question-encoder and --generator are needed.")
    if (questions is None) != (index is None):
        raise ExportError("The losses of parts need both: questions with answers, and an index.")
    if questions is not None and precision not in QUANTISED:
        raise ExportError(f"{precision} rounds no part; measure the losses of {' or '.join(QUANTISED)}.")
    measured = None if questions is None or index is None else (Path(questions), Path(index))
    path = checked_path(bundle_path, ExportError)
    # The folder first: that it cannot be written is said before gigabytes are loaded.
    with folders.replaced_folder(path, manifest.FORMAT, ExportError, force=force) as staging:
        if source is not None:
            checkpoint = load_checkpoint(str(source), context, pooling)
        else:
            checkpoint = join_checkpoints(str(question_encoder), str(generator), context, pooling)
        report = _write(checkpoint, staging, precision, check)
        if measured is not None:
            losses = losses_by_part(partial(_write, checkpoint, precision=precision, check=False), *measured)
            report = dataclasses.replace(report, losses=losses)
    return dataclasses.replace(report, path=path)


def export_loaded(
    load: Callable[[], Checkpoint], bundle_path: str | Path, *, check: bool = True, force: bool = True
) -> ExportReport:
    """Export in fp32 the checkpoint that ``load`` returns, once the folder is known to be writable.

    Otherwise as :func:`export_checkpoint`.
    """
    path = checked_path(bundle_path, ExportError)
    with folders.replaced_folder(path, manifest.FORMAT, ExportError, force=force) as staging:
        report = _write(load(), staging, "fp32", check)
    return dataclasses.replace(report, path=path)


def _write(
    checkpoint: Checkpoint, folder: Path, precision: Precision, check: bool, parts: Collection[Part] = PARTS
) -> ExportReport:
    """Write a loaded checkpoint to ``folder``, which is empty; ``precision`` rounds ``parts`` alone."""
    rounded = precision if "question encoder" in parts else "fp32"
    question, passage = _write_encoders(checkpoint, folder, rounded)
    # By graph: both sides may be one.
    encoders = {(question.path, question.graph): checkpoint.question_encoder}
    if passage is not None and checkpoint.context_encoder is not None:
        encoders.setdefault((passage.path, passage.graph), checkpoint.context_encoder)
    done = [checks.check_encoder(folder.joinpath(*g), e) for g, e in encoders.items()] if check else []
    generator = _write_generator(checkpoint, folder, precision, parts)
    if check:
        done += checks.check_generator(folder, checkpoint.generator, generator)
        checks.require_within(done, precision)
    options, warnings = generation_defaults(checkpoint)
    config = checkpoint.config
    rag = manifest.RagSpec(
        architecture=checkpoint.architecture,  # type: ignore[arg-type]  # checked when it was loaded
        title_sep=config.title_sep,
        doc_sep=config.doc_sep,
        prefix=getattr(config.generator, "prefix", None) or "",
        n_docs=config.n_docs,
        max_combined_length=config.max_combined_length,
        do_deduplication=config.do_deduplication,
        exclude_bos_score=config.exclude_bos_score,
    )
    folders.write_manifest(
        folder,
        {
            "format": manifest.FORMAT,
            "format_version": manifest.FORMAT_VERSION,
            "created_by": f"ragengine {__version__}",
            "created_from": {
                "source": Path(checkpoint.source).name,
                "transformers_version": config.transformers_version or transformers.__version__,
                "checkpoint": origin_of(checkpoint),
            },
            "precision": precision,
            "rag": dataclasses.asdict(rag),
            "question_encoder": dataclasses.asdict(question),
            "passage_encoder": None if passage is None else dataclasses.asdict(passage),
            "generator": dataclasses.asdict(generator),
            "generation": options.to_dict(),
        },
    )
    _require_agreement(folder, checkpoint)
    return ExportReport(folder, tuple(done), tuple(warnings), checkpoint.notes)


def _write_encoders(
    checkpoint: Checkpoint, folder: Path, precision: Precision
) -> tuple[manifest.EncoderSpec, manifest.EncoderSpec | None]:
    """Write the question encoder and, where the checkpoint has one, the passage encoder."""
    target = folder / "question_encoder"
    target.mkdir()
    with WeightWriter(target) as weights:
        question = _write_encoder(checkpoint.question_encoder, target, weights, precision)
    if checkpoint.context_encoder is None:
        return question, None
    passage = checkpoint.context_encoder
    if passage.shape.dimension != question.dimension:
        raise ExportError(
            f"The passage encoder {Path(passage.name).name} makes vectors of {passage.shape.dimension} "
            f"numbers, the question encoder {question.name} of {question.dimension}; "
            "they do not belong together."
        )
    if _have_weights_in_common(checkpoint.question_encoder, passage):
        return question, _write_beside(passage, target, weights, precision)
    target = folder / "passage_encoder"
    target.mkdir()
    with WeightWriter(target) as weights:
        return question, _write_encoder(passage, target, weights, precision)


def _have_weights_in_common(question: EncoderCheckpoint, passage: EncoderCheckpoint) -> bool:
    """Whether a tensor of one is a tensor of the other, as joint training leaves those that it freezes.

    Never where their tokenizers differ: a folder has one.
    """
    ours, theirs = question.weights, passage.weights
    return tokenizer_json(question.tokenizer) == tokenizer_json(passage.tokenizer) and any(
        np.array_equal(ours[name], theirs[name]) for name in ours.keys() & theirs.keys()
    )


def _write_beside(
    passage: EncoderCheckpoint, target: Path, written: WeightWriter, precision: Precision
) -> manifest.EncoderSpec:
    """Write the passage encoder into the question encoder's folder: only the tensors that are not in
    ``written``, and nothing where none is."""
    with WeightWriter(target, PASSAGES_FILE, beside=written) as weights:
        spec = _write_encoder(passage, target, weights, precision, manifest.PASSAGES_GRAPH)
    own, ours, theirs = (target / name for name in (PASSAGES_FILE, spec.graph, manifest.ENCODER_GRAPH))
    if own.stat().st_size == 0:
        own.unlink()
    if ours.read_bytes() != theirs.read_bytes():
        return spec
    ours.unlink()
    return dataclasses.replace(spec, graph=manifest.ENCODER_GRAPH)


def _write_encoder(
    checkpoint: EncoderCheckpoint,
    target: Path,
    weights: WeightWriter,
    precision: Precision,
    graph: Literal["encoder.onnx", "passages.onnx"] = manifest.ENCODER_GRAPH,
) -> manifest.EncoderSpec:
    module = checkpoint.graph(dataclasses.replace(checkpoint.shape, dtype=computes_in(precision)))
    bind(module, checkpoint.state, weights, f"encoder {checkpoint.name}", precision)
    ir.save(text_encoder_model(module, checkpoint.shape.dimension), target / graph)
    _write_tokenizer(checkpoint.tokenizer, target)
    return manifest.EncoderSpec(
        path=target.name,
        name=Path(checkpoint.name).name,
        fingerprint=checkpoint.fingerprint,
        dimension=checkpoint.shape.dimension,
        tokenizer=tokenizer_spec(checkpoint.tokenizer, checkpoint.max_length),
        graph=graph,
        similarity=checkpoint.similarity,
        prompt=checkpoint.prompt,
        passages=checkpoint.passages,
        position_offset=checkpoint.shape.position_offset,
    )


def _write_generator(
    checkpoint: Checkpoint, folder: Path, precision: Precision, parts: Collection[Part]
) -> manifest.GeneratorSpec:
    generator: GeneratorCheckpoint = checkpoint.generator
    in_int8 = precision in QUANTISED and "keys and values" in parts
    memory: Literal["float", "int8"] = "int8" if in_int8 else "float"
    shape = dataclasses.replace(generator.shape, dtype=computes_in(precision), memory=memory)
    spec = _generator_spec(checkpoint, shape)
    target = folder / spec.path
    target.mkdir()
    make = generator.graphs
    joined = dataclasses.replace(shape, fused=True)  # fewer kernels for a GPU, slower ones on a CPU
    graphs: list[tuple[Any, Callable[[Any, Signature], ir.Model], str]] = [
        (make.cross(shape), cross_model, "cross.onnx"),
        (make.encoder(joined if precision == "fp16" else shape), encoder_model, "encoder.onnx"),
        (make.decoder(shape), dynamic_decoder_model, "decoder.onnx"),
    ]
    if precision in manifest.STEP_PRECISIONS:
        graphs.append((make.decoder(joined), static_decoder_model, manifest.STEP_GRAPH))
    with WeightWriter(target) as writer:
        for module, _, name in graphs:
            # The engine lets the encoder read each document by itself: one scale is then the document's own.
            by_row = name != "encoder.onnx"
            bind(module, generator.state, writer, "generator", precision, by_row=by_row, parts=parts)
    signatures = generator_signatures(spec, shape.dtype)
    for module, model, name in graphs:
        ir.save(model(module, signatures[name]), target / name)
    _write_tokenizer(generator.tokenizer, target)
    return spec


def _generator_spec(checkpoint: Checkpoint, shape: GeneratorShape) -> manifest.GeneratorSpec:
    generator, config = checkpoint.generator, checkpoint.config
    # As `RagRetriever.postprocess_docs`, whatever the tokenizer's model_max_length is.
    longest = min(config.max_combined_length, shape.max_positions or sys.maxsize)
    return manifest.GeneratorSpec(
        path="generator",
        num_decoder_layers=shape.decoder_layers,
        num_heads=shape.decoder_heads,
        head_size=shape.head_size,
        vocab_size=shape.vocab_size,
        max_positions=shape.max_positions,
        pad_token_id=config.generator.pad_token_id,
        # RagSequenceForGeneration.get_nll: config.bos_token_id or config.generator.bos_token_id
        bos_token_id=config.bos_token_id or getattr(config.generator, "bos_token_id", None),
        tokenizer=tokenizer_spec(generator.tokenizer, longest),
        d_model=shape.d_model,
        family=generator.graphs.name,
        position_offset=shape.position_offset,
        memory=shape.memory,
        activations="row",
    )


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    # Not the tokenizer's own save, which raises a bare Exception where it cannot write.
    (folder / "tokenizer.json").write_text(tokenizer_json(tokenizer), "utf-8")


def _require_agreement(folder: Path, checkpoint: Checkpoint) -> None:
    """What is exported opens: raise :class:`ExportError` where the checkpoint does not fit together."""
    written = folders.read_manifest(
        folder, manifest.BundleManifest, manifest.FORMAT, manifest.FORMAT_VERSION, ExportError
    )
    if faults := bundle_errors(folder, written):
        raise ExportError(
            f"The checkpoint {checkpoint.source} does not fit together: {join_errors(faults)}; repair "
            "it first."
        )
