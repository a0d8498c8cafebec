"""Encoders, generators and whole RAG models, as transformers reads and writes them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertModel,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
)

from ragengine.errors import ExportError, OptionsError
from ragengine_export import encoders
from ragengine_export.choices import GIVEN_POOLINGS
from ragengine_export.encoder_families import encoder_shape
from ragengine_export.families import generator_type
from ragengine_export.graphs.text_encoder import HeadShape
from ragengine_export.loading import load_config, load_model
from ragengine_export.sentence_folder import read_sentence_folder
from ragengine_export.tokenization import load_tokenizer
from ragengine_train.config import ModelConfig
from ragengine_train.folders import replaced
from ragengine_train.pooled_encoder import PooledEncoder, save_pooled_encoder

RAG_MODELS = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}
CONTEXT_ENCODER = "context_encoder"  # the folder in a RAG checkpoint that `ragengine export` reads
_SPECIAL = ("bos_token_id", "pad_token_id", "eos_token_id")
_INNER = {DPRQuestionEncoder: "question_encoder", DPRContextEncoder: "ctx_encoder"}


@dataclass(frozen=True)
class Parts:
    """Where the three networks of a RAG model are: folders with their tokenizers, or names on the hub."""

    question_encoder: str
    context_encoder: str
    generator: str


def longest_text(source: str) -> int:
    """The tokens that an encoder has positions for; raises :class:`ExportError` where it is not supported."""
    folder = read_sentence_folder(source)
    config = load_config(source if folder is None else folder.transformer)
    return encoder_shape(source, config, HeadShape(("cls",))).max_tokens


def load_encoder_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of an encoder; in a sentence-transformers folder it lies beside the transformer."""
    folder = read_sentence_folder(source)
    tokenizer = load_tokenizer(source if folder is None else folder.transformer)
    if folder is not None and folder.lower_case:
        encoders.lower_case(tokenizer)
    return tokenizer


def pools_as_given(source: str) -> bool:
    """Whether an encoder is a bare network, which ``model.pooling`` is about."""
    return read_sentence_folder(source) is None and load_config(source).model_type != "dpr"


def generator_config(source: str) -> Any:
    """The config of a generator, whose outputs have a beginning.

    Raises:
        ExportError: it is not supported, or does not say with which token the decoder starts.
    """
    config = load_config(source)
    generator_type(source, config.model_type)
    for name in ("decoder_start_token_id", "pad_token_id"):
        if getattr(config, name, None) is None:
            raise ExportError(
                f"{source} has no {name}, which training needs; set it in its config.json (mBART: the id of "
                "the language that it writes)."
            )
    return config


def load_encoder(source: str, cls: type[PreTrainedModel], pooling: Any = None) -> Any:
    """An encoder of questions or passages.

    Args:
        source: a folder or hub name.
        cls: ``DPRQuestionEncoder`` or ``DPRContextEncoder``; the encoder is one of these if its weights are
            of DPR, or of a BERT without a pooling.  Any other is a :class:`PooledEncoder`.
        pooling: of a bare network.

    Raises:
        ExportError: it cannot be loaded, or nothing says how it pools.
    """
    folder = read_sentence_folder(source)
    config = load_config(source if folder is None else folder.transformer)
    is_bare = folder is None and config.model_type != "dpr"
    if is_bare and pooling is None and config.model_type != "bert":
        raise ExportError(
            f"{source} is a bare {config.model_type} model, and nothing in its folder says how it pools; set "
            f"model.pooling to one of {', '.join(GIVEN_POOLINGS)}."
        )
    if folder is not None or (is_bare and pooling is not None):
        side: encoders.Side = "question" if cls is DPRQuestionEncoder else "passage"
        return PooledEncoder(encoders.load_encoder(source, side, pooling if is_bare else None))
    if config.model_type == "bert":
        bert = load_model(BertModel, source, optional="pooler.")
        model = cls(DPRConfig(**_shared_fields(config)))
        getattr(model, _INNER[cls]).bert_model.load_state_dict(bert.state_dict(), strict=False)
        return model
    architecture = (config.architectures or ["DPRQuestionEncoder"])[0]
    stored = DPRContextEncoder if architecture == "DPRContextEncoder" else DPRQuestionEncoder
    model = load_model(stored, source)
    return model if cls is stored else as_encoder(model, cls)


def as_encoder(model: Any, cls: type[PreTrainedModel]) -> Any:
    """The same network as a question or as a context encoder; the weights are copied."""
    if isinstance(model, PooledEncoder):
        return copy.deepcopy(model)
    result = cls(copy.deepcopy(model.config))
    inner = getattr(model, _INNER[type(model)])
    getattr(result, _INNER[cls]).load_state_dict(inner.state_dict())
    return result


def load_generator(source: str, model: ModelConfig, dropout: Mapping[str, float] | None = None) -> Any:
    """A generator, with the prefix that its prompts begin with.

    Raises:
        OptionsError: ``dropout`` names fields that its config does not have.
        ExportError: it cannot be loaded.
    """
    config = generator_config(source)
    if unknown := [name for name in dropout or {} if not hasattr(config, name)]:
        has = [name for name in config.to_dict() if "dropout" in name or "layerdrop" in name]
        raise OptionsError(f"{source} has no {', '.join(unknown)}; its config has {', '.join(sorted(has))}.")
    generator = load_model(generator_type(source, config.model_type).model, source, changes=dropout)
    for name in _SPECIAL:  # which some configs leave out, and RAG models ask for
        setattr(generator.config, name, getattr(generator.config, name, None))
    if model.prefix is not None:
        generator.config.prefix = model.prefix
    return generator


def vector_size(encoder: Any) -> int:
    """Numbers in a vector of an encoder."""
    if isinstance(encoder, PooledEncoder):
        return encoder.dimension
    return int(encoder.config.projection_dim or encoder.config.hidden_size)


def save_with_tokenizer(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write an ordinary checkpoint that names no path of this machine."""
    if isinstance(model, PooledEncoder):
        save_pooled_encoder(model, tokenizer, folder)
        return
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rag_config(question_encoder: Any, generator: Any, model: ModelConfig) -> RagConfig:
    """The ``RagConfig`` of a model with these two networks."""
    reader = generator.config
    special = {name: getattr(reader, name) for name in _SPECIAL}
    return RagConfig.from_question_encoder_generator_configs(
        question_encoder.config,
        reader,
        n_docs=model.n_docs,
        max_combined_length=model.max_combined_length,
        title_sep=model.title_sep,
        doc_sep=model.doc_sep,
        retrieval_vector_size=vector_size(question_encoder),
        index_name="custom",
        decoder_start_token_id=reader.decoder_start_token_id,
        **special,
    )


def load_rag(parts: Parts, model: ModelConfig, dropout: Mapping[str, float] | None = None) -> Any:
    """A ``RagTokenForGeneration`` or ``RagSequenceForGeneration`` of two networks, without a retriever."""
    question_encoder = load_encoder(parts.question_encoder, DPRQuestionEncoder, model.pooling)
    generator = load_generator(parts.generator, model, dropout)
    with torch.device("meta"):
        rag = RAG_MODELS[model.type](config=rag_config(question_encoder, generator, model))
    # Not handed to the class: transformers 5 initialises such modules anew.  Not their weights alone: it ties
    # those of every T5 that it makes of a config.
    rag.rag.question_encoder, rag.rag.generator = question_encoder, generator
    generation = generation_config(rag.config, model)
    rag.generation_config, rag.generator.generation_config = generation, copy.deepcopy(generation)
    return rag


def generation_config(config: RagConfig, model: ModelConfig) -> GenerationConfig:
    """`[model.generation]` over the special tokens of the generator."""
    reader = config.generator
    values = {name: getattr(reader, name, None) for name in (*_SPECIAL, "decoder_start_token_id")}
    values["max_length"] = model.max_answer_length
    return GenerationConfig(**(values | model.generation))


@dataclass(frozen=True)
class RagTokenizers:
    """The tokenizers of a RAG checkpoint: whoever encodes with it cuts where the training did."""

    questions: PreTrainedTokenizerBase
    passages: PreTrainedTokenizerBase
    generator: PreTrainedTokenizerBase

    @classmethod
    def load(cls, parts: Parts, model: ModelConfig) -> "RagTokenizers":
        """Those of ``parts``, with the lengths of ``model``."""
        questions, passages = map(load_encoder_tokenizer, (parts.question_encoder, parts.context_encoder))
        questions.model_max_length = model.max_question_length
        passages.model_max_length = model.max_passage_length
        return cls(questions, passages, load_tokenizer(parts.generator))

    def save(self, question_encoder: Any, folder: Path) -> None:
        """Write what a RAG checkpoint has beside its weights.

        A question encoder that is not DPR's is in a folder, too, which says how it pools.
        """
        RagTokenizer(self.questions, self.generator).save_pretrained(folder)
        if isinstance(question_encoder, PooledEncoder):
            save_with_tokenizer(question_encoder, self.questions, folder / "question_encoder")


def write_checkpoint(parts: Parts, model: ModelConfig, target: Path, *, context_encoder: bool = True) -> None:
    """Write a RAG checkpoint as transformers does, and in it the ``context_encoder`` in a folder.

    ``target`` appears whole or not at all.
    """
    rag = load_rag(parts, model)
    rag.config.question_encoder._name_or_path = rag.config.generator._name_or_path = ""
    tokenizers = RagTokenizers.load(parts, model)
    with replaced(target) as folder, torch.no_grad():
        question_encoder = rag.question_encoder
        if isinstance(question_encoder, PooledEncoder):
            rag.rag.question_encoder = question_encoder.model
        rag.config._name_or_path = ""
        rag.save_pretrained(folder)
        tokenizers.save(question_encoder, folder)
        if context_encoder:
            encoder = load_encoder(parts.context_encoder, DPRContextEncoder, model.pooling)
            save_with_tokenizer(encoder, tokenizers.passages, folder / CONTEXT_ENCODER)


def _shared_fields(config: Any) -> dict[str, Any]:
    """The fields of a ``BertConfig`` that a ``DPRConfig`` has, too."""
    ours = DPRConfig().to_dict()
    skipped = {"model_type", "architectures", "transformers_version", "dtype", "torch_dtype"}
    return {name: value for name, value in config.to_dict().items() if name in ours and name not in skipped}
