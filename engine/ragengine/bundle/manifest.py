"""The manifest of a bundle, and the names of its files."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from ragengine.storage import folders
from ragengine.storage.schema import FileName, Hash, Line, Range, Size, TokenId

FORMAT = "ragengine-bundle"
FORMAT_VERSION = 5
"""3 added step.onnx, which CUDA needs; 4 EncoderSpec.graph; 5 what defaults in the specifications say,
and a position for each beam of decoder.onnx."""
OLDEST_VERSION = 2  # 1 had no cross.onnx, and its decoder reordered the cache

ENCODER_GRAPH: Final = "encoder.onnx"
PASSAGES_GRAPH: Final = "passages.onnx"
GENERATOR_GRAPHS = ("encoder.onnx", "cross.onnx", "decoder.onnx")
STEP_GRAPH = "step.onnx"
STEP_PRECISIONS = ("fp32", "fp16")
"""The precisions whose operators CUDA implements, so that there is a :data:`STEP_GRAPH`."""


@dataclass(frozen=True)
class TokenizerSpec:
    """What `tokenizer.json` does not say about a Hugging Face tokenizer.

    pad_token_id                   fills shorter inputs of a batch
    max_length                     the longest input in tokens, special tokens included
    clean_up_tokenization_spaces   whether ``decode`` removes the space before punctuation
    truncation_side                the end at which a longer input is cut
    split_special_tokens           whether a special token that a text spells out is read as text
    """

    pad_token_id: TokenId
    max_length: Size
    clean_up_tokenization_spaces: bool
    truncation_side: Literal["right", "left"] = "right"
    split_special_tokens: bool = False


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder of questions or passages.

    path             its folder in the bundle
    name             where it came from, for people
    fingerprint      identifies weights, in whatever precision they are stored, and all else that decides the
                     vectors; an index remembers that of the encoder of its passages
    dimension        E, the length of its vectors
    tokenizer        what tokenises its inputs
    graph            the file in ``path``
    similarity       how vectors are compared; for cosine they are stored and searched with the norm 1
    prompt           what comes before each text
    passages         how title and text are read: as a pair, or joined by a space
    position_offset  rows of the table of positions before the first one; None where there is no table

    The two encoders share one graph if all their weights are the same.  If some are, they share the folder,
    and ``passages.onnx`` reads those from the question encoder's weights.
    """

    path: FileName
    name: Line
    fingerprint: Hash
    dimension: Size
    tokenizer: TokenizerSpec
    graph: Literal["encoder.onnx", "passages.onnx"] = ENCODER_GRAPH
    similarity: Literal["inner_product", "cosine"] = "inner_product"
    prompt: str = ""
    passages: Literal["pair", "joined"] = "pair"
    position_offset: Annotated[int, Range(0, 1 << 16)] | None = 0


@dataclass(frozen=True)
class GeneratorSpec:
    """Sizes and special tokens of the generator.

    ``pad_token_id`` and ``bos_token_id`` are those of the model's configuration, which decide what is scored;
    those of the tokenizer may differ.

    max_positions    tokens of the longest text; None where positions are relative and no text is too long
    d_model          the width of the states; None is num_heads x head_size
    family           whose graphs it has, and so what their tables are called
    position_offset  rows of the table of positions before the first one
    memory           what the decoder's keys and values of documents are kept in
    activations      what shares a scale where the decoder multiplies with int8: all of a step, or a row
    """

    path: FileName
    num_decoder_layers: Annotated[int, Range(1, 1024)]
    num_heads: Annotated[int, Range(1, 1024)]
    head_size: Size
    vocab_size: Annotated[int, Range(1, 1 << 24)]
    max_positions: Size | None
    pad_token_id: TokenId
    bos_token_id: TokenId | None
    tokenizer: TokenizerSpec
    d_model: Size | None = None
    family: Literal["bart", "t5"] = "bart"
    position_offset: Annotated[int, Range(0, 16)] = 2
    memory: Literal["float", "int8"] = "float"
    activations: Literal["step", "row"] = "step"

    @property
    def width(self) -> int:
        """d_model, the length of a state."""
        return self.d_model or self.num_heads * self.head_size

    @property
    def bias_heads(self) -> int:
        """Heads of what is added to the scores of self-attention: relative positions have a bias for each."""
        return self.num_heads if self.family == "t5" else 1

    @property
    def longest(self) -> int:
        """Tokens of the longest text that it can read or write."""
        return self.max_positions or sys.maxsize


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

    @property
    def texts_share_a_scale(self) -> bool:
        """Whether an encoder's activations have one scale for all texts that it reads at once."""
        return self.precision == "int8"

    @property
    def questions_share_a_scale(self) -> bool:
        """Whether those of the decoder have one for all questions of a batch: answers depend on it."""
        return self.precision not in STEP_PRECISIONS and self.generator.activations == "step"
