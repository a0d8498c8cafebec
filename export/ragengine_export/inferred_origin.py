"""The checkpoint of a bundle whose manifest does not remember it: DPR's encoders and BART, by their graphs.

Versions that wrote no ``created_from.checkpoint`` exported little else.  Sizes are those of the weights,
heads those of the graphs' attention; what no file says (an activation, a scaled embedding) has the family's
usual value, so that whoever uses this must compare the result with the graphs.
"""

import re
from pathlib import Path
from typing import Any

import onnx_ir as ir
from transformers import BartConfig, DPRConfig, GenerationConfig, RagConfig

from ragengine.bundle.manifest import BundleManifest, EncoderSpec
from ragengine.errors import ExportError
from ragengine_export.origin import EncoderOrigin, Origin, config_content
from ragengine_export.weights import State


def inferred_origin(
    manifest: BundleManifest, folder: Path, question: State, passage: State | None, generator: State
) -> Origin:
    """What such a bundle was exported from.

    Args:
        manifest: that of the bundle.
        folder: the bundle.
        question, passage, generator: the weights of its graphs.

    Raises:
        ExportError: its encoders are not DPR's, or its generator is no BART.
    """
    encoders = [(manifest.question_encoder, question)]
    if manifest.passage_encoder is not None and passage is not None:
        encoders.append((manifest.passage_encoder, passage))
    is_dpr = all("embeddings.token_type_embeddings.weight" in weights for _, weights in encoders)
    is_bart = "model.encoder.layernorm_embedding.weight" in generator
    if not is_dpr or not is_bart or manifest.generator.position_offset != BartConfig().pad_token_id + 1:
        raise ExportError(
            f"{folder} does not say what it was exported from, and is not made of DPR's encoders and a BART; "
            "export it again with this version."
        )
    question_origin, *others = (_encoder(folder, spec, weights) for spec, weights in encoders)
    reader = _generator_config(manifest, folder, generator)
    rag, spec = manifest.rag, manifest.generator
    config = RagConfig.from_question_encoder_generator_configs(
        DPRConfig(**question_origin.config),
        reader,
        n_docs=rag.n_docs,
        title_sep=rag.title_sep,
        doc_sep=rag.doc_sep,
        max_combined_length=rag.max_combined_length,
        do_deduplication=rag.do_deduplication,
        exclude_bos_score=rag.exclude_bos_score,
        retrieval_vector_size=manifest.question_encoder.dimension,
        bos_token_id=spec.bos_token_id,
        pad_token_id=spec.pad_token_id,
        eos_token_id=reader.eos_token_id,
        decoder_start_token_id=reader.decoder_start_token_id,
    )
    config.architectures = [rag.architecture]
    known = GenerationConfig().to_dict()
    return Origin(
        config=config_content(config),
        generation={name: value for name, value in manifest.generation.items() if name in known}
        | {"bos_token_id": spec.bos_token_id, "pad_token_id": spec.pad_token_id},
        question_encoder=question_origin,
        tokenizer=_BART_TOKENS,
        passage_encoder=others[0] if others else None,
    )


_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_BART_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}


def _encoder(folder: Path, spec: EncoderSpec, weights: State) -> EncoderOrigin:
    vocab_size, hidden_size = weights["embeddings.word_embeddings.weight"].shape
    projection = weights.get("encode_proj.weight")
    config = DPRConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=_layers(weights, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=_heads(folder / spec.path / spec.graph),
        intermediate_size=weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=len(weights["embeddings.position_embeddings.weight"]),
        type_vocab_size=len(weights["embeddings.token_type_embeddings.weight"]),
        projection_dim=0 if projection is None else len(projection),
        pad_token_id=spec.tokenizer.pad_token_id,
    )
    return EncoderOrigin(config_content(config), _BERT_TOKENS)


def _generator_config(manifest: BundleManifest, folder: Path, weights: State) -> BartConfig:
    spec, defaults = manifest.generator, manifest.generation
    return BartConfig(
        vocab_size=spec.vocab_size,
        d_model=spec.width,
        encoder_layers=_layers(weights, r"model\.encoder\.layers\.(\d+)\."),
        decoder_layers=spec.num_decoder_layers,
        encoder_attention_heads=_heads(folder / spec.path / "encoder.onnx"),
        decoder_attention_heads=spec.num_heads,
        encoder_ffn_dim=weights["model.encoder.layers.0.fc1.weight"].shape[0],
        decoder_ffn_dim=weights["model.decoder.layers.0.fc1.weight"].shape[0],
        max_position_embeddings=spec.longest,
        prefix=manifest.rag.prefix,
        bos_token_id=spec.bos_token_id,
        pad_token_id=spec.pad_token_id,
        eos_token_id=defaults.get("eos_token_id"),
        decoder_start_token_id=defaults.get("decoder_start_token_id"),
        forced_eos_token_id=defaults.get("forced_eos_token_id"),
    )


def _layers(weights: State, pattern: str) -> int:
    return 1 + max(int(found[1]) for name in weights if (found := re.match(pattern, name)))


def _heads(graph: Path) -> int:
    """The heads of the first attention in a graph."""
    attentions: Any = (node for node in ir.load(graph).graph if node.op_type == "MultiHeadAttention")
    return int(next(attentions).attributes["num_heads"].value)
