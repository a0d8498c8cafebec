"""Every exported graph against torch, on random inputs, before the bundle takes its place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ragengine.errors import ExportError
from ragengine.sessions import InferenceSession, create_session
from ragengine_export.checkpoint import EncoderCheckpoint, GeneratorCheckpoint

# Largest |onnx - torch| allowed, relative to the largest |torch| where that is over 1.  float32 graphs
# differ from torch by the order of sums alone.
TOLERANCE = {"fp32": 2e-4}

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class GraphCheck:
    """One line of the export's table: sizes in bytes, difference as described at ``TOLERANCE``."""

    graph: str
    max_abs_difference: float
    difference: float
    graph_size: int
    nodes: int


def check_encoder(path: Path, checkpoint: EncoderCheckpoint) -> GraphCheck:
    """Vectors of random token ids with padding, against the torch encoder's."""
    rng = np.random.default_rng(0)
    ids, mask = _random_texts(rng, 3, min(24, checkpoint.shape.max_positions), checkpoint.shape.vocab_size)
    with torch.no_grad():
        output = checkpoint.model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    if checkpoint.shape.head == "cls" and hasattr(output, "last_hidden_state"):
        expected = output.last_hidden_state[:, 0]
    else:
        expected = output.pooler_output
    session = create_session(path, device="cpu", threads=None)
    got = session.run(None, {"input_ids": ids, "attention_mask": mask})
    return _report(path, session, [(got[0], expected.numpy())])


def check_generator(folder: Path, checkpoint: GeneratorCheckpoint) -> list[GraphCheck]:
    """Cross-attention of random documents, then three decoding steps with beams that change places."""
    rng = np.random.default_rng(0)
    shape, q, d, b, s = checkpoint.shape, 2, 3, 2, min(24, checkpoint.shape.max_positions)
    ids, mask = _random_texts(rng, q * d, s, shape.vocab_size)
    model = checkpoint.model
    with torch.no_grad():
        states = model.get_encoder()(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
        ).last_hidden_state
        attentions = [layer.encoder_attn for layer in model.get_decoder().layers]
        expected = [proj(states).numpy() for a in attentions for proj in (a.k_proj, a.v_proj)]
    encoder = create_session(folder / "encoder.onnx", device="cpu", threads=None)
    cross = encoder.run(None, {"input_ids": ids, "attention_mask": mask})
    merged = [value.transpose(0, 2, 1, 3).reshape(q * d, s, -1) for value in cross]
    encoder_check = _report(folder / "encoder.onnx", encoder, list(zip(merged, expected, strict=True)))

    decoder = create_session(folder / "decoder.onnx", device="cpu", threads=None)
    feeds = {f"cross_{name}": value for name, value in zip(_layers(shape.decoder_layers), cross, strict=True)}
    past = np.empty((q, d, 1, shape.decoder_heads, 0, shape.d_model // shape.decoder_heads), np.float32)
    feeds |= {f"past_{name}": past for name in _layers(shape.decoder_layers)}
    feeds["context_attention_mask"] = mask.reshape(q, d, s)
    log_weights = torch.log_softmax(torch.tensor(rng.normal(size=(q, d)), dtype=torch.float32), dim=1)
    tokens, pairs = np.empty((q, b, 0), np.int64), []
    for position in range(3):
        parents = rng.integers(0, b if position else 1, (q, b))
        last = rng.integers(0, shape.vocab_size, (q, b))
        if position:
            tokens = np.take_along_axis(tokens, parents[..., None], axis=1)
        tokens = np.concatenate([tokens, last[..., None]], axis=2)
        probes = rng.integers(0, shape.vocab_size, (q, b, 5))
        scores = rng.normal(size=(q, b)).astype(np.float32)
        feeds |= {
            "token_ids": last,
            "beam_indices": parents,
            "position": np.array([position]),
            "probe_ids": probes,
        }
        feeds |= {"log_weights": np.repeat(log_weights.numpy()[:, :, None], b, axis=2), "beam_scores": scores}
        feeds["num_candidates"] = np.array([min(8, b * shape.vocab_size)])
        outputs = dict(zip((o.name for o in decoder.get_outputs()), decoder.run(None, feeds), strict=True))
        feeds |= {f"past_{n}": outputs[f"present_{n}"] for n in _layers(shape.decoder_layers)}
        pairs += _step_pairs(model, states, mask, tokens, log_weights, scores, probes, outputs)
    return [encoder_check, _report(folder / "decoder.onnx", decoder, pairs)]


def _step_pairs(
    model: Any,
    states: Any,
    mask: Array,
    tokens: Array,
    log_weights: Any,
    scores: Array,
    probes: Array,
    outputs: Any,
) -> list[tuple[Array, Array]]:
    """What one step should have given, from torch without a cache, beside what it gave."""
    (q, b, t), d = tokens.shape, log_weights.shape[1]
    # every beam under every document, [Q, D, B, ...] flattened for torch
    prefix = torch.tensor(tokens)[:, None].expand(q, d, b, t).reshape(q * d * b, t)
    with torch.no_grad():
        logits = model(
            encoder_outputs=(states.repeat_interleave(b, dim=0),),
            attention_mask=torch.tensor(mask).repeat_interleave(b, dim=0),
            decoder_input_ids=prefix,
        ).logits[:, -1]
    log_probs = torch.log_softmax(logits, dim=-1).reshape(q, d, b, -1)
    wanted = torch.tensor(probes)[:, None].expand(q, d, b, probes.shape[2])
    marginal = (
        torch.logsumexp(log_probs + log_weights[:, :, None, None], dim=1) + torch.tensor(scores)[..., None]
    )
    best = marginal.reshape(q, -1).topk(outputs["candidate_scores"].shape[1]).values
    places = torch.tensor(outputs["candidate_beams"] * marginal.shape[2] + outputs["candidate_tokens"])
    flat = log_probs.reshape(q, d, -1)
    return [
        (outputs["probe_log_probs"], log_probs.gather(3, wanted).numpy()),
        (outputs["candidate_scores"], best.numpy()),
        (outputs["candidate_scores"], marginal.reshape(q, -1).gather(1, places).numpy()),
        (outputs["candidate_log_probs"], flat.gather(2, places[:, None].expand(q, d, -1)).numpy()),
    ]


def require_within(checks: list[GraphCheck], precision: str) -> None:
    """Raise :class:`ExportError` when a graph is further from torch than ``TOLERANCE`` allows."""
    limit = TOLERANCE[precision]
    wrong = [check for check in checks if not check.difference <= limit]
    if wrong:
        listed = ", ".join(f"{check.graph} by {check.difference:.2e}" for check in wrong)
        raise ExportError(
            f"Graphs differ from torch by more than {limit:.0e}: {listed}; nothing was written."
        )


def _report(path: Path, session: InferenceSession, pairs: list[tuple[Array, Array]]) -> GraphCheck:
    largest = max(float(np.abs(got - want).max()) for got, want in pairs)
    relative = max(float(np.abs(got - want).max() / max(1.0, np.abs(want).max())) for got, want in pairs)
    return GraphCheck(
        graph=f"{path.parent.name}/{path.name}",
        max_abs_difference=largest,
        difference=relative,
        graph_size=path.stat().st_size,
        nodes=ir.load(path).graph.num_nodes(),
    )


def _random_texts(rng: np.random.Generator, count: int, length: int, vocab_size: int) -> tuple[Array, Array]:
    ids = rng.integers(0, vocab_size, (count, length))
    lengths = rng.integers(1, length + 1, count)
    lengths[0] = length
    return ids, (np.arange(length) < lengths[:, None]).astype(np.int64)


def _layers(count: int) -> list[str]:
    return [f"{part}_{layer}" for layer in range(count) for part in ("key", "value")]
