"""A bundle: the folder that holds an exported model, and the manifest that describes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ragengine import folders
from ragengine.errors import BundleError

FORMAT = "ragengine-bundle"
FORMAT_VERSION = 3  # 3 has step.onnx, which CUDA needs
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

    pad_token_id: int
    max_length: int
    clean_up_tokenization_spaces: bool


@dataclass(frozen=True)
class EncoderSpec:
    """A BERT encoder of questions or passages.

    ``path`` is its folder in the bundle; both sides share one where their weights are the same.
    ``fingerprint`` identifies the weights, whatever the precision they are stored in: an index
    remembers the one that encoded its passages.
    """

    path: str
    name: str
    fingerprint: str
    dimension: int
    tokenizer: TokenizerSpec


@dataclass(frozen=True)
class GeneratorSpec:
    """Sizes and special tokens of the BART generator.

    ``pad_token_id`` and ``bos_token_id`` are the model's, which decide what is scored; the tokenizer's may
    differ.
    """

    path: str
    num_decoder_layers: int
    num_heads: int
    head_size: int
    vocab_size: int
    max_positions: int
    pad_token_id: int
    bos_token_id: int | None
    tokenizer: TokenizerSpec


@dataclass(frozen=True)
class RagSpec:
    """The fields of Hugging Face's ``RagConfig`` that decide what the model computes."""

    architecture: Literal["RagTokenForGeneration", "RagSequenceForGeneration"]
    title_sep: str
    doc_sep: str
    prefix: str
    n_docs: int
    max_combined_length: int
    do_deduplication: bool
    exclude_bos_score: bool


@dataclass(frozen=True)
class BundleManifest:
    """The content of a bundle's ``manifest.json``.

    ``generation`` holds the default :class:`~ragengine.GenerationOptions` of this model, by name.
    """

    precision: str
    created_by: str
    created_from: dict[str, Any]
    rag: RagSpec
    question_encoder: EncoderSpec
    passage_encoder: EncoderSpec | None
    generator: GeneratorSpec
    generation: dict[str, Any]
    files: dict[str, folders.FileEntry]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files have been checked against its manifest."""

    path: Path
    manifest: BundleManifest

    @classmethod
    def open(cls, path: str | Path, *, verify: Literal["sha256", "size"] = "sha256") -> "Bundle":
        """Open a bundle folder and check it.

        ``verify="sha256"`` reads every file once; ``"size"`` compares sizes only and starts faster.
        Raises :class:`BundleError` with every fault when it is not whole.
        """
        folder = Path(path)
        manifest = folders.read_manifest(
            folder, BundleManifest, FORMAT, FORMAT_VERSION, BundleError, oldest=OLDEST_VERSION
        )
        folders.check_files(folder, manifest.files, BundleError, hashes=verify == "sha256")
        bundle = cls(folder, manifest)
        bundle._check_listed()
        return bundle

    def file(self, *parts: str) -> Path:
        """The path of a file inside the bundle."""
        return self.path.joinpath(*parts)

    @property
    def index_encoder(self) -> EncoderSpec:
        """The encoder an index is bound to: the passage encoder, or without one the question encoder."""
        return self.manifest.passage_encoder or self.manifest.question_encoder

    def _check_listed(self) -> None:
        """Only listed files are checked, so every file that will be opened must be listed."""
        question, generator = self.manifest.question_encoder.path, self.manifest.generator.path
        passage = self.index_encoder.path
        needed = {
            f"{folder}/{name}"
            for folder in (question, passage)
            for name in ("encoder.onnx", "tokenizer.json")
        }
        needed |= {f"{generator}/{name}" for name in (*GENERATOR_GRAPHS, "tokenizer.json")}
        absent = sorted(needed - set(self.manifest.files))
        if absent:
            raise BundleError(f"{self.path} is damaged: its manifest does not list {', '.join(absent)}.")
