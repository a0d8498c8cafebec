"""Whether the parts of a bundle fit together: manifest, graphs, tokenizers and generation options.

All of it is read from the files themselves, without an onnxruntime session.  So a bundle that was joined from
two others, or made to do harm, is refused with every error named before any library computes with it.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from ragengine.bundle.manifest import BundleManifest, EncoderSpec, GeneratorSpec
from ragengine.bundle.onnx_reader import (
    FLOAT,
    FLOAT16,
    TYPE_NAMES,
    Graph,
    Value,
    external_data_errors,
    read_graph,
)
from ragengine.bundle.signatures import Signature, generator_signatures, text_encoder_signature
from ragengine.errors import OptionsError
from ragengine.options import GenerationOptions
from ragengine.storage.foreign_files import read_plain

MAX_TOKENIZER_BYTES: Final = 256 << 20

Graphs: TypeAlias = Mapping[str, Graph]
"""Readable graphs of a bundle by their names in it."""


def bundle_errors(folder: Path, manifest: BundleManifest) -> list[str]:
    """Every way in which the files of a bundle differ from its manifest or from each other.

    The listed files exist: :func:`ragengine.storage.folders.check_files` comes first.
    """
    faults: list[str] = []
    graphs = _read_graphs(folder, manifest, faults)
    encoders = {"question_encoder": manifest.question_encoder, "passage_encoder": manifest.passage_encoder}
    for field, encoder in encoders.items():
        if encoder is not None:
            faults += _encoder_errors(folder, field, encoder, graphs)
    question, passage = manifest.question_encoder, manifest.passage_encoder
    if passage is not None and passage.similarity != question.similarity:
        faults.append(
            f"passage_encoder.similarity is {passage.similarity}, question_encoder.similarity "
            f"{question.similarity}"
        )
    faults += _generator_errors(folder, manifest.generator, graphs)
    faults += _default_option_errors(manifest)
    return list(dict.fromkeys(faults))  # two encoders may share files, and their errors


def option_errors(options: GenerationOptions, spec: GeneratorSpec) -> list[str]:
    """The options, valid by themselves, that this generator cannot follow; each with its limit."""
    faults = []
    if options.longest > spec.longest:
        name = "max_length" if options.max_new_tokens is None else "1 + max_new_tokens"
        faults.append(f"{name} is {options.longest}, the model has {spec.longest} positions")
    for name, tokens in options.token_ids().items():
        wrong = [token for token in tokens if token >= spec.vocab_size]
        if wrong:
            faults.append(f"{name} is {wrong[0]}, the vocabulary has {spec.vocab_size} tokens")
    return faults


def _read_graphs(folder: Path, manifest: BundleManifest, faults: list[str]) -> dict[str, Graph]:
    """Every listed graph that can be read, whether it will be used or not."""
    graphs = {}
    sizes: defaultdict[str, dict[str, int]] = defaultdict(dict)  # of the files of each folder
    for path, entry in manifest.files.items():
        parent, _, file = path.rpartition("/")
        sizes[parent][file] = entry.size
    for name in manifest.files:
        if not name.endswith(".onnx"):
            continue
        parsed = read_graph(folder / name)
        errors = [*parsed.errors]
        if parsed.value is not None:
            errors += external_data_errors(parsed.value, sizes[name.rpartition("/")[0]])
            graphs[name] = parsed.value
        faults += [f"{name}: {error}" for error in errors]
    return graphs


def _encoder_errors(folder: Path, field: str, spec: EncoderSpec, graphs: Graphs) -> Iterator[str]:
    name = f"{spec.path}/{spec.graph}"
    graph = graphs.get(name)
    if graph is None:
        return  # `_read_graphs` has said why
    yield from _signature_errors(name, graph, text_encoder_signature(spec.dimension))
    tables = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position")]
    words, positions = (_table(graph, table) for table in tables)
    offset = spec.position_offset
    if words is None or (positions is None and offset is not None):
        yield f"{name}: it lacks the table {tables[0] if words is None else tables[1]}"
        return
    longest, pad = spec.tokenizer.max_length, spec.tokenizer.pad_token_id
    if positions is not None and longest > positions[0] - (offset or 0):
        there = f"{positions[0]} positions" + (f", of which {offset} are not used" if offset else "")
        yield f"{field}.tokenizer.max_length is {longest}, {name} has {there}"
    yield from _token_errors(words[0], {f"{field}.tokenizer.pad_token_id": pad})
    yield from _tokenizer_errors(folder, spec.path, words[0])


def _generator_errors(folder: Path, spec: GeneratorSpec, graphs: Graphs) -> Iterator[str]:
    encoder = graphs.get(f"{spec.path}/encoder.onnx")
    states = encoder.outputs.get("states") if encoder is not None else None
    data_type = FLOAT16 if states is not None and states.data_type == FLOAT16 else FLOAT
    for file, signature in generator_signatures(spec, data_type).items():
        name = f"{spec.path}/{file}"
        if name in graphs:
            yield from _signature_errors(name, graphs[name], signature)
            yield from _generator_table_errors(name, graphs[name], spec)
    longest = spec.tokenizer.max_length
    if longest > spec.longest:
        yield f"generator.tokenizer.max_length is {longest}, generator.max_positions {spec.longest}"
    special = {
        "generator.pad_token_id": spec.pad_token_id,
        "generator.bos_token_id": spec.bos_token_id,
        "generator.tokenizer.pad_token_id": spec.tokenizer.pad_token_id,
    }
    yield from _token_errors(spec.vocab_size, special)
    yield from _tokenizer_errors(folder, spec.path, spec.vocab_size)


def _signature_errors(name: str, graph: Graph, expected: Signature) -> Iterator[str]:
    """Inputs and outputs that are missing, unknown, or of another type or shape."""
    for kind, found, wanted, older in (
        ("input", graph.inputs, expected.inputs, expected.older),
        ("output", graph.outputs, expected.outputs, {}),
    ):
        for value in sorted(wanted.keys() - found.keys() - expected.optional):
            yield f"{name}: it has no {kind} {value}"
        for value in sorted(found.keys() - wanted.keys()):
            yield f"{name}: it has the unknown {kind} {value!a:.80}"
        for value in sorted(found.keys() & wanted.keys()):
            kinds = (wanted[value], older.get(value, wanted[value]))
            if not any(_fits(found[value], one) for one in kinds):
                yield (
                    f"{name}: its {kind} {value} is {_described(found[value])}, "
                    f"{_described(wanted[value])} was expected"
                )


def _fits(found: Value, wanted: Value) -> bool:
    if found.data_type != wanted.data_type or found.axes is None or len(found.axes) != len(wanted.axes or ()):
        return False
    pairs = zip(found.axes, wanted.axes or (), strict=True)
    return all(have == want or (isinstance(have, str) and isinstance(want, str)) for have, want in pairs)


def _described(value: Value) -> str:
    axes = "of any shape" if value.axes is None else f"[{', '.join(map(str, value.axes))}]"
    return f"{TYPE_NAMES.get(value.data_type, f'type {value.data_type}')} {axes:.120}"


def _generator_table_errors(name: str, graph: Graph, spec: GeneratorSpec) -> Iterator[str]:
    """Embedding tables whose rows are not the manifest's vocabulary or positions.

    A quantised table has the same name and shape.
    """
    part, _, _ = name.rpartition("/")[2].partition(".")
    if part == "cross":
        return
    side = "encoder" if part == "encoder" else "decoder"
    stack = side if spec.family == "t5" else f"model.{side}"
    wanted = {f"{stack}.embed_tokens.weight": spec.vocab_size}
    if spec.family != "t5":  # whose positions are relative
        wanted[f"{stack}.embed_positions.weight"] = (spec.max_positions or 0) + spec.position_offset
    if side == "decoder":
        wanted["lm_head.weight"] = spec.vocab_size
    for table, rows in wanted.items():
        found = _table(graph, table)
        if found != (rows, spec.width):
            shape = "missing" if found is None else list(found)
            yield f"{name}: its table {table} is {shape}, by the manifest [{rows}, {spec.width}]"


def _table(graph: Graph, name: str) -> tuple[int, int] | None:
    dims = graph.initializers.get(name, ())
    return (dims[0], dims[1]) if len(dims) == 2 else None


def _token_errors(vocab_size: int, tokens: Mapping[str, int | None]) -> Iterator[str]:
    for field, token in tokens.items():
        if token is not None and token >= vocab_size:
            yield f"{field} is {token}, the model has {vocab_size} tokens"


def _tokenizer_errors(folder: Path, path: str, vocab_size: int) -> Iterator[str]:
    """A tokenizer that cannot be read, or that has token ids outside the model's vocabulary."""
    name = f"{path}/tokenizer.json"
    try:
        largest = _largest_token(json.loads(read_plain(folder / name, MAX_TOKENIZER_BYTES)))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OSError) as reason:
        yield f"{name}: it is not a tokenizer: {reason!s:.120}"
        return
    if largest >= vocab_size:
        yield f"{name}: it has the token {largest}, the model has {vocab_size} tokens"


def _largest_token(content: Any) -> int:
    """The largest token id of a parsed `tokenizer.json`.  Raises ValueError where it has none."""
    vocabulary = content["model"]["vocab"]
    # Unigram models have a list of pairs instead, by id
    tokens = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
    added = (token["id"] for token in content.get("added_tokens") or ())
    found: list[int] = [*tokens, *added, *_template_tokens(content.get("post_processor"))]
    if not found or any(type(token) is not int or token < 0 for token in found):
        raise ValueError("its tokens are not numbers of at least 0")
    return max(found)


def _template_tokens(processor: Any) -> Iterator[int]:
    """The token ids that a post-processor puts around texts, which it names itself."""
    if processor is None:
        return
    for special in processor.get("special_tokens", {}).values():  # TemplateProcessing
        yield from special["ids"]
    yield from (processor[name][1] for name in ("cls", "sep") if name in processor)  # Bert, Roberta
    for inner in processor.get("processors", ()):  # Sequence
        yield from _template_tokens(inner)


def _default_option_errors(manifest: BundleManifest) -> Iterator[str]:
    try:
        options = GenerationOptions.from_dict(manifest.generation)
    except OptionsError as reason:
        yield f"generation: {str(reason).rstrip('.')}"
        return
    yield from (f"generation.{fault}" for fault in option_errors(options, manifest.generator))
