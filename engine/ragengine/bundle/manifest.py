"""The manifest of a bundle, and the names of its files."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from ragengine.storage import folders
from ragengine.storage.schema import FileName, Hash, Line, Range, Size, TokenId

FORMAT = "ragengine-bundle"


FORMAT_VERSION = 4  # 3 has step.onnx, which CUDA needs; 4 has EncoderSpec.graph


ENCODER_GRAPH: Final = "encoder.onnx"


PASSAGES_GRAPH: Final = "passages.onnx"


GENERATOR_GRAPHS = ("encoder.onnx", "cross.onnx", "decoder.onnx")


STEP_GRAPH = "step.onnx"


STEP_PRECISIONS = ("fp32", "fp16")  # whose operators CUDA has; the others are for the CPU


OLDEST_VERSION = 2  # 1 had no cross.onnx, and a decoder that reordered its cache


@dataclass(frozen=True)
class TokenizerSpec:
    """What `tokenizer.json` does not say about a Hugging Face tokenizer.

    ``max_length`` is the longest input in tokens, special tokens included;
    ``clean_up_tokenization_spaces`` is whether ``decode`` pulls punctuation to the word before it.
    """

    pad_token_id: TokenId
    max_length: Size
    clean_up_tokenization_spaces: bool


@dataclass(frozen=True)
class EncoderSpec:
    """A BERT encoder of questions or passages.

    ``path`` is its folder in the bundle, ``graph`` the file in it.  Both sides share the graph where all
    their weights are the same, and the folder where some are: ``passages.onnx`` then reads those from the
    question encoder's weights.
    ``fingerprint`` identifies the weights, whatever the precision they are stored in: an index
    remembers the one that encoded its passages.
    """

    path: FileName
    name: Line
    fingerprint: Hash
    dimension: Size
    tokenizer: TokenizerSpec
    graph: Literal["encoder.onnx", "passages.onnx"] = ENCODER_GRAPH


@dataclass(frozen=True)
class GeneratorSpec:
    """Sizes and special tokens of the BART generator.

    ``pad_token_id`` and ``bos_token_id`` are the model's, which decide what is scored; the tokenizer's may
    differ.
    """

    path: FileName
    num_decoder_layers: Annotated[int, Range(1, 1024)]
    num_heads: Annotated[int, Range(1, 1024)]
    head_size: Size
    vocab_size: Annotated[int, Range(1, 1 << 24)]
    max_positions: Size
    pad_token_id: TokenId
    bos_token_id: TokenId | None
    tokenizer: TokenizerSpec


@dataclass(frozen=True)
class RagSpec:
    """The fields of Hugging Face's ``RagConfig`` that decide what the model computes."""

    architecture: Literal["RagTokenForGeneration", "RagSequenceForGeneration"]
    title_sep: str
    doc_sep: str
    prefix: str
    n_docs: Size
    max_combined_length: Size
    do_deduplication: bool
    exclude_bos_score: bool


@dataclass(frozen=True)
class BundleManifest:
    """The content of a bundle's ``manifest.json``.

    ``generation`` holds the default :class:`~ragengine.GenerationOptions` of this model, by name.
    """

    precision: Literal["fp32", "fp16", "int8", "int4"]
    created_by: Line
    created_from: dict[str, Any]
    rag: RagSpec
    question_encoder: EncoderSpec
    passage_encoder: EncoderSpec | None
    generator: GeneratorSpec
    generation: dict[str, Any]
    files: dict[str, folders.FileEntry]
