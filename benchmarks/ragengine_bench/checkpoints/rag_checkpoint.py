"""Random small RAG checkpoints that behave like trained ones, each a pure function of its seed.

:mod:`.spec` draws sizes and settings, :mod:`.generators` makes configs and tokenizers of every model type,
:mod:`.random_weights` the weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import (
    DPRConfig,
    DPRQuestionEncoder,
    PreTrainedTokenizerBase,
    RagConfig,
    RagTokenForGeneration,
    RagTokenizer,
)

from ragengine_bench.checkpoints.corpus import Passage, random_passages, random_questions
from ragengine_bench.checkpoints.generators import GENERATORS, forced_bos
from ragengine_bench.checkpoints.random_weights import randomise, shape_head
from ragengine_bench.checkpoints.spec import CheckpointSpec, random_spec
from ragengine_bench.checkpoints.tokenizers import train_question_tokenizer

__all__ = ["Checkpoint", "CheckpointSpec", "open_checkpoint", "random_spec", "write_checkpoint"]


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


def write_checkpoint(spec: CheckpointSpec, folder: Path) -> Checkpoint:
    """Write the checkpoint of `spec` under `folder`. The same spec gives the same numbers everywhere."""
    rng = np.random.default_rng([spec.seed, 2])
    question_tokenizer = train_question_tokenizer(
        rng, spec.question_vocab_size, spec.clean_up_tokenization_spaces, folder / "trained" / "question"
    )
    train = GENERATORS[spec.model_type].tokenizer
    generator_tokenizer = train(rng, spec.generator_tokens, folder / "trained" / "generator")
    torch_rng = torch.Generator().manual_seed(spec.seed)
    model = _random_model(spec, len(question_tokenizer), generator_tokenizer, torch_rng)
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
    spec: CheckpointSpec, question_vocab: int, tokenizer: PreTrainedTokenizerBase, rng: torch.Generator
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
    vocab_size = spec.vocab_size or len(tokenizer) + spec.generator_vocab_extra
    generator_config = GENERATORS[spec.model_type].config(spec, vocab_size, tokenizer)
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
    generator = model.rag.generator
    if not spec.tied and generator.lm_head.weight is generator.get_input_embeddings().weight:
        # transformers 5 ties T5's head in every config, but not in a checkpoint that has another
        generator.lm_head.weight = nn.Parameter(torch.empty_like(generator.lm_head.weight))
    # Only now: the constructor of the RAG model initialises its parts anew, even ones handed to it.
    randomise(model, spec, rng)
    shape_head(generator, spec, rng)
    begin = forced_bos(spec.model_type, tokenizer)
    model.generation_config.forced_bos_token_id = begin if spec.forced_bos else None
    model.generation_config.forced_eos_token_id = tokenizer.eos_token_id if spec.forced_eos else None
    return model


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
