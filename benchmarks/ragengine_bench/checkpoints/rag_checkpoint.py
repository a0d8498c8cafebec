"""Random small RAG checkpoints that behave like trained ones, each a pure function of its seed.

The shapes are odd on purpose (no size is a multiple of anything it need not be), and so are the settings.
The weights are drawn at the scale of trained networks, not of freshly initialised ones: at init_std 0.02
every token has the same probability, every document the same influence, and a wrong beam search passes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    DPRQuestionEncoder,
    RagConfig,
    RagTokenForGeneration,
    RagTokenizer,
)

from ragengine_bench.checkpoints.corpus import Passage, random_passages, random_questions
from ragengine_bench.checkpoints.tokenizers import train_generator_tokenizer, train_question_tokenizer

# The scale of the weights. Larger is more varied, and more chaotic: at 2.5 and 2.0 HF's own log-probabilities
# in fp32 are off those in fp64 by up to 3e-4, so nothing could be compared to 1e-4; here HF and the engine,
# both in fp32, differ by at most 6e-5 over 220 configurations.
SHARPNESS = 1.3  # queries and keys
STRENGTH = 1.3  # all other matrices


@dataclass(frozen=True)
class CheckpointSpec:
    """Everything that is random about a checkpoint, so that a failing test can print it."""

    seed: int
    # question encoder
    question_vocab_size: int
    question_hidden_size: int
    question_heads: int
    question_layers: int
    question_ffn: int
    question_positions: int
    question_activation: str
    projection_dim: int
    clean_up_tokenization_spaces: bool | None
    # generator
    generator_tokens: int  # entries of the tokenizer
    generator_vocab_extra: int  # rows of the embedding that the tokenizer does not know
    vocab_size: int | None  # of the generator, where it is not those two together
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn: int
    decoder_ffn: int
    positions: int
    activation: str
    scale_embedding: bool
    tied: bool
    final_logits_bias: bool
    forced_bos: bool
    forced_eos: bool
    eos_shift: float  # added to the end token's logit, in units of `peak`: answers end
    peak: float  # standard deviation of the logits
    # RAG
    n_docs: int
    max_combined_length: int
    title_sep: str
    doc_sep: str
    rag_prefix: str | None
    generator_prefix: str | None
    prior_spread: float  # standard deviation of the doc_scores over all passages
    n_passages: int
    longest_passage: int  # words


@dataclass(frozen=True)
class Checkpoint:
    """The files of one random checkpoint, and its corpus as ragengine and transformers read."""

    spec: CheckpointSpec
    source: Path  # RagTokenForGeneration.save_pretrained + RagTokenizer.save_pretrained
    passages_file: Path  # JSONL of {"id", "title", "text"}
    embeddings_file: Path  # float32 [passages, E], exactly representable in float16
    dataset: Path  # datasets.save_to_disk with title, text, embeddings
    faiss_index: Path  # flat inner product
    passages: tuple[Passage, ...]


def random_spec(seed: int, **overrides: Any) -> CheckpointSpec:
    """The spec of `seed`; `overrides` fix the fields that a test is about."""
    rng = np.random.default_rng([seed, 1])

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def between(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    question_heads = pick(1, 2, 3, 4)
    encoder_heads, decoder_heads = pick((1, 1), (2, 2), (2, 1), (3, 3), (4, 4), (4, 2))
    head_unit = int(np.lcm(encoder_heads, decoder_heads))
    d_model = head_unit * between(-(-16 // head_unit), 48 // head_unit)
    max_combined_length = pick(between(40, 70), between(70, 120), between(100, 200))
    spec = CheckpointSpec(
        seed=seed,
        question_vocab_size=between(200, 420),
        question_hidden_size=question_heads * between(-(-18 // question_heads), 44 // question_heads),
        question_heads=question_heads,
        question_layers=between(1, 3),
        question_ffn=between(11, 75),
        question_positions=between(120, 200),
        question_activation=pick("gelu", "relu"),
        projection_dim=pick(0, 0, between(5, 20) * 2 + 1),
        clean_up_tokenization_spaces=pick(None, True, False),
        generator_tokens=between(300, 520),
        generator_vocab_extra=pick(0, 0, between(1, 9)),
        vocab_size=None,
        d_model=d_model,
        encoder_layers=between(1, 3),
        decoder_layers=between(1, 3),
        encoder_heads=encoder_heads,
        decoder_heads=decoder_heads,
        encoder_ffn=between(9, 70),
        decoder_ffn=between(9, 70),
        positions=max_combined_length + between(0, 130),
        activation=pick("gelu", "relu", "silu"),
        scale_embedding=pick(True, False),
        tied=pick(True, True, False),
        final_logits_bias=pick(True, False),
        forced_bos=pick(True, False),
        forced_eos=pick(True, True, False),
        eos_shift=float(rng.uniform(1.0, 3.4)),
        peak=float(rng.uniform(2.0, 3.6)),
        n_docs=between(1, 7),
        max_combined_length=max_combined_length,
        title_sep=pick(" / ", " / ", ": ", "  "),
        doc_sep=pick(" // ", " // ", " | question: ", "</s>"),
        rag_prefix=pick(None, None, "rag prefix that is never read: "),
        generator_prefix=pick(None, None, "", " ", "answer:  "),
        prior_spread=float(rng.uniform(0.7, 2.2)),
        n_passages=between(30, 60),
        longest_passage=pick(10, 20, 30),
    )
    return replace(spec, **overrides)


def write_checkpoint(spec: CheckpointSpec, folder: Path) -> Checkpoint:
    """Write the checkpoint of `spec` under `folder`. The same spec gives the same numbers everywhere."""
    rng = np.random.default_rng([spec.seed, 2])
    question_tokenizer = train_question_tokenizer(
        rng, spec.question_vocab_size, spec.clean_up_tokenization_spaces, folder / "trained" / "question"
    )
    generator_tokenizer = train_generator_tokenizer(
        rng, spec.generator_tokens, folder / "trained" / "generator"
    )
    torch_rng = torch.Generator().manual_seed(spec.seed)
    model = _random_model(spec, len(question_tokenizer), len(generator_tokenizer), torch_rng)
    source = folder / "source"
    model.save_pretrained(source)
    tokenizer = RagTokenizer(question_encoder=question_tokenizer, generator=generator_tokenizer)
    tokenizer.save_pretrained(str(source))

    passages = random_passages(rng, spec.n_passages, spec.longest_passage)
    lines = [json.dumps(passage.as_row(), ensure_ascii=False) + "\n" for passage in passages]
    (folder / "passages.jsonl").write_text("".join(lines), encoding="utf-8")
    embeddings = _passage_vectors(spec, model.rag.question_encoder, question_tokenizer, rng)
    np.save(folder / "embeddings.npy", embeddings)
    dataset = Dataset.from_dict(
        {
            "title": [passage.title for passage in passages],
            "text": [passage.text for passage in passages],
            "embeddings": embeddings,
        }
    )
    dataset.save_to_disk(str(folder / "dataset"))
    dataset.add_faiss_index("embeddings", metric_type=0)  # 0 is faiss.METRIC_INNER_PRODUCT
    dataset.save_faiss_index("embeddings", str(folder / "index.faiss"))
    return open_checkpoint(spec, folder)


def open_checkpoint(spec: CheckpointSpec, folder: Path) -> Checkpoint:
    """The checkpoint that :func:`write_checkpoint` has written under `folder`."""
    with (folder / "passages.jsonl").open(encoding="utf-8") as file:
        passages = tuple(Passage(**json.loads(line)) for line in file)
    return Checkpoint(
        spec=spec,
        source=folder / "source",
        passages_file=folder / "passages.jsonl",
        embeddings_file=folder / "embeddings.npy",
        dataset=folder / "dataset",
        faiss_index=folder / "index.faiss",
        passages=passages,
    )


def _random_model(
    spec: CheckpointSpec, question_vocab: int, generator_vocab: int, rng: torch.Generator
) -> RagTokenForGeneration:
    question_config = DPRConfig(
        vocab_size=question_vocab,
        hidden_size=spec.question_hidden_size,
        num_hidden_layers=spec.question_layers,
        num_attention_heads=spec.question_heads,
        intermediate_size=spec.question_ffn,
        hidden_act=spec.question_activation,
        max_position_embeddings=spec.question_positions,
        projection_dim=spec.projection_dim,
    )
    generator_config = BartConfig(
        vocab_size=spec.vocab_size or generator_vocab + spec.generator_vocab_extra,
        max_position_embeddings=spec.positions,
        d_model=spec.d_model,
        encoder_layers=spec.encoder_layers,
        decoder_layers=spec.decoder_layers,
        encoder_attention_heads=spec.encoder_heads,
        decoder_attention_heads=spec.decoder_heads,
        encoder_ffn_dim=spec.encoder_ffn,
        decoder_ffn_dim=spec.decoder_ffn,
        activation_function=spec.activation,
        scale_embedding=spec.scale_embedding,
        tie_word_embeddings=spec.tied,
        forced_eos_token_id=2 if spec.forced_eos else None,
    )
    if spec.generator_prefix is not None:
        generator_config.prefix = spec.generator_prefix
    rag_config = RagConfig.from_question_encoder_generator_configs(
        question_config,
        generator_config,
        n_docs=spec.n_docs,
        max_combined_length=spec.max_combined_length,
        title_sep=spec.title_sep,
        doc_sep=spec.doc_sep,
        prefix=spec.rag_prefix,
        retrieval_vector_size=spec.projection_dim or spec.question_hidden_size,
        index_name="custom",
    )
    with torch.device("meta"):  # the usual initialisation is thrown away: do not pay for it
        model = RagTokenForGeneration(config=rag_config)
    model.to_empty(device="cpu").eval()
    model.tie_weights()
    # Only now: the constructor of the RAG model initialises its parts anew, even ones handed to it.
    _randomise(model, spec, rng)
    _shape_head(model.rag.generator, spec, rng)
    model.generation_config.forced_bos_token_id = 0 if spec.forced_bos else None
    model.generation_config.forced_eos_token_id = 2 if spec.forced_eos else None
    return model


@torch.no_grad()
def _randomise(model: nn.Module, spec: CheckpointSpec, rng: torch.Generator) -> None:
    """Trained-looking weights: every layer moves its input, every bias and every gain is its own number."""

    def normal(tensor: torch.Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=rng) * std + mean)

    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            normal(module.weight, 0.25, mean=1.0)
            normal(module.bias, 0.15)
        elif isinstance(module, nn.Linear):
            # Sharp attention (queries, keys) reads single tokens; strong values and outputs keep a tied head
            # from repeating the token that it has just read.
            sharp = name.endswith(("q_proj", "k_proj", "query", "key"))
            normal(module.weight, (SHARPNESS if sharp else STRENGTH) / module.in_features**0.5)
            if module.bias is not None:
                normal(module.bias, 0.15)
        elif isinstance(module, nn.Embedding):
            # Rows of norm `peak`: against states of norm sqrt(d_model) that gives logits of deviation `peak`.
            std = spec.peak / module.embedding_dim**0.5
            if spec.scale_embedding and name.endswith("embed_positions"):
                std *= module.embedding_dim**0.5  # positions that still count beside scaled tokens
            normal(module.weight, std)
            if module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()  # as in every trained checkpoint
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        elif name.endswith("token_type_ids"):
            buffer.zero_()
        elif name.endswith("embed_scale"):
            raise AssertionError("embed_scale is a number in every supported transformers release")


@torch.no_grad()
def _shape_head(generator: BartForConditionalGeneration, spec: CheckpointSpec, rng: torch.Generator) -> None:
    """Give the head what training gives it: logits that vary with the state, and an end token with a chance.

    The states of a random decoder share a large mean, which would favour the same few tokens everywhere and
    cost float32 digits. The last LayerNorm's bias replaces it by a small one, along which the end token's row
    is then moved: that shifts its logit everywhere, without a `final_logits_bias`, for a tied head too.
    """
    head = generator.lm_head.weight  # [V, d_model]
    if not spec.tied:
        head.copy_(torch.randn(head.shape, generator=rng) * spec.peak / spec.d_model**0.5)
    generator.final_logits_bias.zero_()
    states = _decoder_states(generator, spec, rng)
    mean = states.mean(dim=0)
    small_mean = torch.randn(mean.shape, generator=rng)
    small_mean *= 0.4 * (states - mean).norm(dim=1).mean() / small_mean.norm()
    scale = spec.peak / ((states - mean) @ head.T).std()
    last_norm = generator.model.decoder.layers[-1].final_layer_norm
    last_norm.bias += small_mean - mean
    last_norm.bias *= scale
    last_norm.weight *= scale
    small_mean *= scale
    head[2] += spec.eos_shift * spec.peak * small_mean / small_mean.square().sum()
    bias = torch.randn(generator.final_logits_bias.shape, generator=rng)
    generator.final_logits_bias.copy_(bias if spec.final_logits_bias else torch.zeros_like(bias))


def _decoder_states(
    generator: BartForConditionalGeneration, spec: CheckpointSpec, rng: torch.Generator
) -> torch.Tensor:
    """States [N, d_model] in front of the head, for random contexts and random answers."""
    vocab = generator.config.vocab_size
    contexts = torch.randint(5, vocab, (12, min(40, spec.max_combined_length)), generator=rng)
    answers = torch.randint(5, vocab, (12, 16), generator=rng)
    return generator.model(input_ids=contexts, decoder_input_ids=answers)[0].flatten(0, 1)


@torch.no_grad()
def _passage_vectors(
    spec: CheckpointSpec, question_encoder: DPRQuestionEncoder, tokenizer: Any, rng: np.random.Generator
) -> np.ndarray:
    """Vectors [passages, E] that make doc_scores of deviation `prior_spread`, different for every question.

    An encoder's vectors share a large mean, which would rank the passages alike for all questions: the
    random vectors are made orthogonal to it. Rounded to float16 and back, since ragengine stores float16.
    """
    sample = tokenizer(random_questions(rng, 12), padding=True, return_tensors="pt")
    states = question_encoder(**sample)[0].double().numpy()  # [12, E]
    mean = states.mean(axis=0)
    vectors = rng.standard_normal((spec.n_passages, states.shape[1]))
    vectors -= 0.9 * np.outer(vectors @ mean / (mean @ mean), mean)
    vectors *= spec.prior_spread / (vectors @ states.T).std()
    return vectors.astype(np.float16).astype(np.float32)
