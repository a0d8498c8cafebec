"""Weights at the scale of trained networks, for models that were made without any.

At init_std 0.02 every token has the same probability, every document the same influence, and a wrong beam
search passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ragengine_bench.checkpoints.spec import CheckpointSpec

# The scale of the weights. Larger is more varied, and more chaotic: at 2.5 and 2.0 HF's own log-probabilities
# in fp32 are off those in fp64 by up to 3e-4, so nothing could be compared to 1e-4; here HF and the engine,
# both in fp32, differ by at most 6e-5 over 220 configurations.
SHARPNESS = 1.3  # queries and keys
STRENGTH = 1.3  # all other matrices
_SHARP = ("q_proj", "k_proj", "query", "key", "Attention.q", "Attention.k")


@torch.no_grad()
def randomise(model: nn.Module, spec: CheckpointSpec, rng: torch.Generator) -> None:
    """Trained-looking weights: every layer moves its input, every bias and every gain is its own number."""

    def normal(tensor: torch.Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=rng) * std + mean)

    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            normal(module.weight, 0.25, mean=1.0)
            normal(module.bias, 0.15)
        elif type(module).__name__ in ("T5LayerNorm", "MT5LayerNorm"):
            normal(module.weight, 0.25, mean=1.0)
        elif isinstance(module, nn.Linear):
            # Sharp attention (queries, keys) reads single tokens; strong values and outputs keep a tied head
            # from repeating the token that it has just read.
            std = (SHARPNESS if name.endswith(_SHARP) else STRENGTH) / module.in_features**0.5
            if name.endswith("Attention.q"):
                std /= spec.d_kv**0.5  # T5 does not scale its scores
            normal(module.weight, std)
            if module.bias is not None:
                normal(module.bias, 0.15)
        elif hasattr(module, "create_weight"):
            module.weight.copy_(module.create_weight())  # sinusoidal positions
        elif name.endswith("relative_attention_bias"):
            normal(module.weight, 1.0)
        elif isinstance(module, nn.Embedding):
            normal(module.weight, _table_std(name, module, model, spec))
            if module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()  # as in every trained checkpoint
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        elif name.endswith("token_type_ids"):
            buffer.zero_()
        elif name.endswith("embed_scale"):
            raise AssertionError("embed_scale is a number in every supported transformers release")


def _table_std(name: str, module: nn.Embedding, model: Any, spec: CheckpointSpec) -> float:
    """Of rows of norm `peak`: against states of norm sqrt(d_model) that gives logits of deviation `peak`."""
    std: float = spec.peak / module.embedding_dim**0.5
    if spec.scale_embedding and name.endswith("embed_positions"):
        std *= module.embedding_dim**0.5  # positions that still count beside scaled tokens
    if "shared" in name and getattr(model.config.generator, "scale_decoder_outputs", False):
        std *= module.embedding_dim**0.5  # T5 divides the states by it instead
    return std


@torch.no_grad()
def shape_head(generator: Any, spec: CheckpointSpec, rng: torch.Generator) -> None:
    """Give the head what training gives it: logits that vary with the state, and an end token with a chance.

    The states of a random decoder share a large mean, which would favour the same few tokens everywhere and
    cost float32 digits. The last LayerNorm's bias replaces it by a small one, along which the end token's row
    is then moved: that shifts its logit everywhere, without a `final_logits_bias`, for a tied head too. Where
    the last norm has no bias, the head's rows are made orthogonal to the mean instead.
    """
    head, eos = generator.lm_head.weight, generator.config.eos_token_id  # [V, d_model]
    if not spec.tied:
        head.copy_(torch.randn(head.shape, generator=rng) * spec.peak / spec.d_model**0.5)
    has_bias = hasattr(generator, "final_logits_bias")
    if has_bias:
        generator.final_logits_bias.zero_()
    states = _decoder_states(generator, spec, rng)
    mean = states.mean(dim=0)
    last_norm = _last_norm(generator.get_decoder())
    scale = spec.peak / ((states - mean) @ head.T).std()
    if hasattr(last_norm, "bias"):
        small_mean = torch.randn(mean.shape, generator=rng)
        small_mean *= 0.4 * (states - mean).norm(dim=1).mean() / small_mean.norm()
        last_norm.bias += small_mean - mean
        last_norm.bias *= scale
        small_mean *= scale
    else:
        small_mean = mean * scale
        head -= torch.outer(head @ small_mean, small_mean) / small_mean.square().sum()
    last_norm.weight *= scale
    head[eos] += spec.eos_shift * spec.peak * small_mean / small_mean.square().sum()
    if has_bias:
        bias = torch.randn(generator.final_logits_bias.shape, generator=rng)
        generator.final_logits_bias.copy_(bias if spec.final_logits_bias else torch.zeros_like(bias))


def _last_norm(decoder: Any) -> Any:
    for name in ("layer_norm", "final_layer_norm"):
        if hasattr(decoder, name):
            return getattr(decoder, name)
    return decoder.layers[-1].final_layer_norm


def _decoder_states(generator: Any, spec: CheckpointSpec, rng: torch.Generator) -> torch.Tensor:
    """States [N, d_model] in front of the head, for random contexts and random answers."""
    vocab = generator.config.vocab_size
    contexts = torch.randint(5, vocab, (12, min(40, spec.max_combined_length)), generator=rng)
    answers = torch.randint(5, vocab, (12, 16), generator=rng)
    read: list[torch.Tensor] = []
    hook = generator.lm_head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    generator(input_ids=contexts, decoder_input_ids=answers)
    hook.remove()
    return read[0].flatten(0, 1)
