"""From a bundle back to a checkpoint of transformers: its weights, its tokenizers and what it remembers."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from transformers import AutoConfig, DPRContextEncoder, DPRQuestionEncoder

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import GENERATOR_GRAPHS, EncoderSpec, TokenizerSpec
from ragengine.errors import ExportError
from ragengine.storage.atomic import explained, put_in_place
from ragengine.storage.foreign_files import checked_path
from ragengine_export import verification
from ragengine_export.bundle_weights import graph_weights, network_state
from ragengine_export.checkpoint import Checkpoint, load_checkpoint
from ragengine_export.encoder_families import encoder_family
from ragengine_export.encoders import EncoderCheckpoint
from ragengine_export.families import generator_type
from ragengine_export.inferred_origin import inferred_origin
from ragengine_export.origin import EncoderOrigin, Origin, dense_shapes, read_origin
from ragengine_export.sentence_writer import SentenceFiles, write_sentence_files
from ragengine_export.tokenization import tokenizer_json
from ragengine_export.untrusted import check_config
from ragengine_export.weights import State

PARTS = ("question_encoder", "context_encoder", "generator")
_DPR = {"question_encoder": DPRQuestionEncoder, "context_encoder": DPRContextEncoder}
_DPR_INNER = {"question_encoder": "question_encoder.", "context_encoder": "ctx_encoder."}


@dataclass(frozen=True)
class UnpackReport:
    """What was written: the checkpoint's path, a check per graph, and notes on how to use it."""

    path: Path
    checks: tuple[verification.GraphCheck, ...]
    notes: tuple[str, ...]


def unpack_bundle(bundle: str | Path, checkpoint: str | Path, *, check: bool = True) -> UnpackReport:
    """Write the RAG checkpoint that a bundle was exported from, which transformers and the training read.

    The folder is a RAG checkpoint with its tokenizers.  In it are the networks by themselves:
    ``question_encoder``, ``context_encoder`` (where the bundle has one) and ``generator``, each with its
    tokenizer.  Weights are float32; those of an fp16 bundle are what float16 left of them.

    Args:
        bundle: a bundle in fp32 or fp16.
        checkpoint: the folder to write, which must not exist.
        check: compare the networks with the bundle's graphs, on random inputs.

    Raises:
        BundleError: the bundle is not whole.
        ExportError: it is quantised, or the folder cannot be written; or what was written would not be
            exported to the same weights again, in which case nothing is kept.
    """
    opened = Bundle.open(bundle)
    if opened.manifest.precision not in ("fp32", "fp16"):
        raise ExportError(
            f"{opened.path} is an {opened.manifest.precision} bundle, whose weights are rounded for good; "
            "unpack the fp32 or fp16 bundle of the same checkpoint."
        )
    target = checked_path(checkpoint, ExportError)
    with _new_folder(target) as folder:
        writer = _Writer(opened, folder)
        writer.write()
        checks = writer.verify(check=check)
    return UnpackReport(target, tuple(checks), tuple(writer.notes()))


class _Writer:
    """Writes the parts of a checkpoint into ``folder``, and reads it as the export does."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self.bundle, self.manifest, self.folder = bundle, bundle.manifest, folder
        spec = self.manifest.generator
        self.generator = graph_weights(bundle.file(spec.path, name) for name in GENERATOR_GRAPHS)
        self.specs: dict[str, EncoderSpec] = {"question_encoder": self.manifest.question_encoder}
        if self.manifest.passage_encoder is not None:
            self.specs["context_encoder"] = self.manifest.passage_encoder
        self.encoders = {
            part: graph_weights([bundle.file(spec.path, spec.graph)]) for part, spec in self.specs.items()
        }
        origin = read_origin(self.manifest)
        self.is_inferred = origin is None
        self.origin: Origin = origin or inferred_origin(
            self.manifest,
            bundle.path,
            self.encoders["question_encoder"],
            self.encoders.get("context_encoder"),
            self.generator,
        )

    def write(self) -> None:
        """Every file of the checkpoint."""
        content = self.origin.config
        check_config(str(self.bundle.path), content)
        encoders = {part: self._write_encoder(part) for part in self.specs}
        generator = self._write_generator(content["generator"])
        rag = {
            **{
                f"rag.question_encoder.{name}": values
                for name, values in encoders["question_encoder"].items()
            },
            **{f"rag.generator.{name}": values for name, values in generator.items()},
        }
        _write_json(self.folder / "config.json", content)
        _write_json(self.folder / "generation_config.json", self.origin.generation)
        _save(rag, self.folder)
        for part, tokens, spec in (
            ("question_encoder", self.origin.question_encoder.tokenizer, self.manifest.question_encoder),
            ("generator", self.origin.tokenizer, self.manifest.generator),
        ):
            self._write_tokenizer(tokens, spec, self.folder / f"{part}_tokenizer")

    def verify(self, *, check: bool) -> list[verification.GraphCheck]:
        """Read what was written as the export reads it: the same weights and tokenizers, bit for bit."""
        pooling = next((origin.pooling for origin in self._origins.values() if origin.kind == "bare"), None)
        context = self.folder / "context_encoder"
        read = load_checkpoint(
            str(self.folder),
            str(context) if "context_encoder" in self.specs else None,
            None if pooling is None else self._given_pooling,  # type: ignore[arg-type]  # a literal of them
        )
        self._require_same(read)
        if not check and not self.is_inferred:
            return []
        checks = []
        for part, encoder in self._read_encoders(read).items():
            spec = self.specs[part]
            checks.append(verification.check_encoder(self.bundle.file(spec.path, spec.graph), encoder))
        checks += verification.check_generator(self.bundle.path, read.generator, self.manifest.generator)
        verification.require_within(checks, self.manifest.precision)
        return checks

    def notes(self) -> list[str]:
        """What a user should know about the checkpoint."""
        notes = []
        if any(origin.kind == "bare" for origin in self._origins.values()):
            notes.append(
                f"nothing in it says how its encoders pool: export it with --pooling {self._given_pooling}"
            )
        if self.manifest.precision == "fp16":
            notes.append(
                "the weights are those of the fp16 bundle, as float32: indexes of the fp32 bundle do not fit"
            )
        if self.is_inferred:
            notes.append(
                "the bundle is an older one: the configs are made of its graphs, and were compared with them"
            )
        return notes

    @property
    def _origins(self) -> dict[str, EncoderOrigin]:
        origins = {"question_encoder": self.origin.question_encoder}
        if self.origin.passage_encoder is not None and "context_encoder" in self.specs:
            origins["context_encoder"] = self.origin.passage_encoder
        return origins

    @property
    def _given_pooling(self) -> str:
        """The ``--pooling`` of a network whose folder does not say it."""
        origin = next(origin for origin in self._origins.values() if origin.kind == "bare")
        return "pooler" if origin.steps else (origin.pooling or ["cls"])[0]

    def _write_encoder(self, part: str) -> dict[str, np.ndarray[Any, Any]]:
        """An encoder in a folder of its own; returns its weights."""
        origin, weights, folder = self._origins[part], self.encoders[part], self.folder / part
        check_config(str(self.bundle.path), origin.config)
        config = AutoConfig.for_model(**origin.config)
        if origin.kind == "dpr":
            network: Any = _DPR[part]
            graph_name: Callable[[str], str] = partial(_dpr_name, _DPR_INNER[part])
        else:
            family = encoder_family(part, config.model_type)
            network, graph_name = (
                family.model,
                lambda key: next(iter(family.renamed({key: np.empty(0, np.float32)}))),
            )
        state = network_state(f"the {part}", network, config, graph_name, weights)
        _write_json(folder / "config.json", origin.config | {"architectures": [network.__name__]})
        _save(state, folder)
        self._write_tokenizer(origin.tokenizer, self.specs[part], folder)
        if origin.kind == "sentence":
            write_sentence_files(self._sentence_files(part, config.hidden_size), folder)
        return state

    def _sentence_files(self, part: str, width: int) -> SentenceFiles:
        origin, spec = self._origins[part], self.specs[part]
        prompts = {"query": self.manifest.question_encoder.prompt}
        if "context_encoder" in self.specs:
            prompts["document"] = self.specs["context_encoder"].prompt
        return SentenceFiles(
            width=width,
            pooling=origin.pooling or ["mean"],
            include_prompt=origin.include_prompt,
            steps=dense_shapes(origin),
            weights=self.encoders[part],
            similarity=spec.similarity,
            prompts=prompts,
            max_length=spec.tokenizer.max_length,
            lower_case=False,  # the tokenizer does it
        )

    def _write_generator(self, content: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """The generator in a folder of its own; returns its weights."""
        folder = self.folder / "generator"
        config = AutoConfig.for_model(**content)
        network = generator_type(str(self.bundle.path), config.model_type).model
        state = network_state("the generator", network, config, lambda key: key, self.generator)
        _write_json(folder / "config.json", content | {"architectures": [network.__name__]})
        _write_json(folder / "generation_config.json", self.origin.generation)
        _save(state, folder)
        self._write_tokenizer(self.origin.tokenizer, self.manifest.generator, folder)
        return state

    def _write_tokenizer(self, tokens: dict[str, Any], spec: Any, folder: Path) -> None:
        """`tokenizer.json` as it is in the bundle, and what it does not say."""
        rules: TokenizerSpec = spec.tokenizer
        folder.mkdir(exist_ok=True)
        shutil.copyfile(self.bundle.file(spec.path, "tokenizer.json"), folder / "tokenizer.json")
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": rules.max_length,
            "padding_side": "right",
            "truncation_side": rules.truncation_side,
            "split_special_tokens": rules.split_special_tokens,
            "clean_up_tokenization_spaces": rules.clean_up_tokenization_spaces,
        }
        _write_json(folder / "tokenizer_config.json", settings | tokens)

    def _read_encoders(self, read: Checkpoint) -> dict[str, EncoderCheckpoint]:
        encoders = {"question_encoder": read.question_encoder}
        if read.context_encoder is not None:
            encoders["context_encoder"] = read.context_encoder
        return encoders

    def _require_same(self, read: Checkpoint) -> None:
        """Raise :class:`ExportError` where an export of ``read`` would have other weights or tokenizers."""
        wrong = _differences("generator", read.generator.state, self.generator)
        encoders = self._read_encoders(read)
        for part, encoder in encoders.items():
            wrong += _differences(part, encoder.state, self.encoders[part])
        tokenizers = {part: (encoder.tokenizer, self.specs[part].path) for part, encoder in encoders.items()}
        tokenizers["generator"] = read.generator.tokenizer, self.manifest.generator.path
        for part, (tokenizer, path) in tokenizers.items():
            ours = self.bundle.file(path, "tokenizer.json").read_text("utf-8")
            if not same_tokenizer(tokenizer_json(tokenizer), ours):
                wrong.append(f"the tokenizer of {part}")
        if wrong:
            raise ExportError(
                f"{self.bundle.path} cannot be unpacked: transformers reads {', '.join(wrong[:5])} otherwise "
                "than the bundle has it; export the original checkpoint again."
            )


def same_tokenizer(one: str, other: str) -> bool:
    """Whether two `tokenizer.json` say the same.

    The library that reads and writes them does not round every number to the nearest one: scores of a Unigram
    vocabulary change in the last of their 16 digits, of which 12 are compared.
    """

    def rounded(number: str) -> str:
        return f"{float(number):.12g}"

    return bool(json.loads(one, parse_float=rounded) == json.loads(other, parse_float=rounded))


def _dpr_name(inner: str, key: str) -> str:
    """The name in the graph of a weight of DPR's, which is a ``bert_model`` and a projection."""
    return key.removeprefix(inner).removeprefix("bert_model.")


def _differences(part: str, state: State, weights: State) -> list[str]:
    return [
        f"{part}.{name}"
        for name, values in weights.items()
        if name not in state or not np.array_equal(state[name], values)
    ]


def _save(state: dict[str, np.ndarray[Any, Any]], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    tensors = {name: np.ascontiguousarray(values) for name, values in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``target`` when the block ends well; nothing is ever replaced."""
    if target.exists():
        raise ExportError(f"{target} exists, and unpack replaces nothing; name a folder that does not.")
    workspace = target.with_name(f".{target.name}.writing")
    try:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        yield workspace
        put_in_place(workspace, target, workspace)
    except OSError as reason:
        raise ExportError(f"{target} cannot be written: {explained(reason)}.") from reason
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
