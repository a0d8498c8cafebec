"""Every exported graph against torch, on random inputs, before the bundle takes its place."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ragengine.bundle.manifest import STEP_GRAPH, GeneratorSpec
from ragengine.bundle.onnx_reader import FLOAT
from ragengine.bundle.signatures import HIDDEN_HALF, host_values, layer_names, memory_values
from ragengine.errors import ExportError
from ragengine.runtime.sessions import InferenceSession, create_session
from ragengine_export.checkpoint import GeneratorCheckpoint
from ragengine_export.encoders import EncoderCheckpoint
from ragengine_export.reference_vectors import torch_vectors

# Largest |onnx - torch| allowed, relative to the largest |torch| where that is over 1.  float32 graphs
# differ from torch by the order of sums alone; the others by rounding, so their limits find wrong graphs
# only, and what the rounding costs is measured (:class:`PrecisionLoss`).
TOLERANCE = {"fp32": 2e-4, "fp16": 0.1, "int8": 0.5, "int4": 1.0}

Array: TypeAlias = NDArray[Any]


_STEPS = 6
_BEST = 8  # of torch's tokens are compared


@dataclass(frozen=True)
class PrecisionLoss:
    """What a precision costs on the check's random inputs, over every step, question and beam.

    token_agreement  the share of steps where the most probable next token is torch's
    log_prob_drop    torch's log p(y_t | x, y_<t) of its most probable token less ours, the mean in nats
    """

    token_agreement: float
    log_prob_drop: float


@dataclass(frozen=True)
class GraphCheck:
    """One line of the export's table: sizes in bytes, difference as described at ``TOLERANCE``."""

    graph: str
    max_abs_difference: float
    difference: float
    graph_size: int
    nodes: int
    loss: PrecisionLoss | None = None


def check_encoder(path: Path, checkpoint: EncoderCheckpoint) -> GraphCheck:
    """Vectors of random token ids with padding, against the torch encoder's."""
    rng = np.random.default_rng(0)
    shape, prompt = checkpoint.shape, checkpoint.shape.head.skipped
    ids, mask = _random_texts(rng, 3, min(24 + prompt, shape.max_tokens), shape.vocab_size, prompt + 1)
    expected = torch_vectors(checkpoint, torch.tensor(ids), torch.tensor(mask))
    session = create_session(path, device="cpu", threads=None)
    got = session.run(None, {"input_ids": ids, "attention_mask": mask})
    return _report(path, session, [(got[0], expected.numpy())])


def check_generator(bundle: Path, checkpoint: GeneratorCheckpoint, spec: GeneratorSpec) -> list[GraphCheck]:
    """Random documents, encoded and projected, then decoding steps with beams that change places."""
    folder = bundle / spec.path
    rng = np.random.default_rng(0)
    shape, q, d, s = checkpoint.shape, 4, 3, min(24, checkpoint.shape.max_positions or 24)
    ids, mask = _random_texts(rng, q * d, s, shape.vocab_size)
    model = checkpoint.model
    with torch.no_grad():
        states = model.get_encoder()(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
        ).last_hidden_state
        names = checkpoint.graphs.cross(shape).names
        expected = [model.get_submodule(name)(states).numpy() for name in names]
    encoder = create_session(folder / "encoder.onnx", device="cpu", threads=None)
    read = encoder.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    visible = mask[..., None].astype(bool)
    encoder_check = _report(
        folder / "encoder.onnx", encoder, [(np.where(visible, read, 0), np.where(visible, states.numpy(), 0))]
    )
    projections = create_session(folder / "cross.onnx", device="cpu", threads=None)
    cross = projections.run(None, {"states": states.numpy().astype(read.dtype)})
    kept = dict(zip(memory_values(spec, FLOAT), cross, strict=True))
    merged = [value.transpose(0, 2, 1, 3).reshape(q * d, s, -1) for value in _in_floats(kept, spec)]
    cross_check = _report(folder / "cross.onnx", projections, list(zip(merged, expected, strict=True)))
    cross = projections.run(None, {"states": read})
    documents = dict(zip(memory_values(spec, FLOAT), cross, strict=True))
    steps = [folder / name for name in ("decoder.onnx", STEP_GRAPH) if (folder / name).exists()]
    decoders = [
        _check_decoder(path, checkpoint, spec, states, mask.reshape(q, d, s), documents) for path in steps
    ]
    return [encoder_check, cross_check, *decoders]


def _in_floats(kept: dict[str, Array], spec: GeneratorSpec) -> list[Array]:
    """Key and value of each layer, [N, H, S, K]."""
    if spec.memory == "float":
        return list(kept.values())
    floats = []
    for layer in range(spec.num_decoder_layers):
        for part, swapped in (("key", True), ("value", False)):
            numbers = kept[f"cross_{part}_{layer}"] - np.float32(128)
            by_token = numbers.swapaxes(2, 3) if swapped else numbers  # [N, H, S, K]
            floats.append(by_token * kept[f"cross_{part}_scale_{layer}"].swapaxes(2, 3))
    return floats


def _check_decoder(
    path: Path,
    checkpoint: GeneratorCheckpoint,
    spec: GeneratorSpec,
    states: Any,
    mask: Array,
    cross: dict[str, Array],
) -> GraphCheck:
    """Steps of two random beams, on our own ``cross``, beside torch's on its own ``states``.

    For the dynamic and the static decoder.
    """
    rng = np.random.default_rng(1)
    shape, (q, d, _), b = checkpoint.shape, mask.shape, 2
    decoder = create_session(path, device="cpu", threads=None)
    read = [value.name for value in decoder.get_inputs()]  # graphs of older versions have fewer
    static = path.name == STEP_GRAPH
    capacity = b * _STEPS if static else 0
    dtype = np.float32 if spec.memory == "int8" else cross["cross_key_0"].dtype
    past = np.zeros((q * d, spec.num_heads, capacity, spec.head_size), dtype)
    feeds = cross | dict.fromkeys(layer_names("past", spec), past)
    feeds["context_attention_mask"] = mask
    log_weights = torch.log_softmax(torch.tensor(rng.normal(size=(q, d)), dtype=torch.float32), dim=1)
    feeds["log_weights"] = np.repeat(log_weights.numpy()[:, :, None], b, axis=2)
    feeds["num_candidates"] = np.array([min(8, b * shape.vocab_size)])
    tokens, own_past = np.empty((q, b, 0), np.int64), np.zeros((q, b, 0), np.bool_)
    pairs, found = [], []
    for position in range(min(_STEPS, shape.max_positions or _STEPS)):
        parents = rng.integers(0, b if position else 1, (q, b, 1))
        last = rng.integers(0, shape.vocab_size, (q, b))
        tokens = np.take_along_axis(tokens, parents, axis=1)
        own_past = np.take_along_axis(own_past, parents, axis=1)
        tokens = np.concatenate([tokens, last[..., None]], axis=2)
        own_past = np.concatenate([own_past, np.eye(b, dtype=bool)[None].repeat(q, axis=0)], axis=2)
        log_probs = _torch_log_probs(checkpoint.model, states, mask, tokens)
        marginal = torch.logsumexp(log_probs + log_weights[:, :, None, None], dim=1)
        best = marginal.topk(min(_BEST, shape.vocab_size)).indices.numpy()
        probes = np.concatenate([best, rng.integers(0, shape.vocab_size, (q, b, 5))], axis=2)
        feeds |= {"token_ids": last, "own_past": own_past, "position": np.array([position])}
        feeds |= {"probe_ids": probes, "beam_scores": rng.normal(size=(q, b)).astype(np.float32)}
        given = _static_feeds(feeds, spec, capacity) if static else feeds
        given = {name: given[name] for name in read}
        outputs = dict(zip((o.name for o in decoder.get_outputs()), decoder.run(None, given), strict=True))
        presents = (outputs[name] for name in layer_names("present", spec))
        feeds |= dict(zip(layer_names("past", spec), presents, strict=True))
        pairs += _step_pairs(log_probs, marginal, feeds, outputs)
        probed = torch.tensor(outputs["probe_log_probs"][..., : best.shape[2]])
        ours = torch.logsumexp(probed + log_weights[:, :, None, None], dim=1)
        found.append((ours.argmax(dim=2) == 0, marginal.max(dim=2).values - ours[..., 0]))
    check = _report(path, decoder, pairs)
    if static:  # the dynamic decoder has the same weights, and its check says what they cost
        return check
    agreement, drop = (torch.stack(values).double().mean().item() for values in zip(*found, strict=True))
    return replace(check, loss=PrecisionLoss(agreement, drop))


def _static_feeds(feeds: dict[str, Array], spec: GeneratorSpec, capacity: int) -> dict[str, Array]:
    """The dynamic decoder's feeds as the static decoder takes them."""
    (q, d, s), b = feeds["context_attention_mask"].shape, feeds["token_ids"].shape[1]
    own_past = np.zeros((q, b, capacity), np.bool_)
    own_past[:, :, : feeds["own_past"].shape[2]] = feeds["own_past"]
    visible = feeds["context_attention_mask"].reshape(q * d, 1, 1, s).repeat(b, axis=2) != 0
    numbers = feeds["cross_key_0"].dtype
    hidden = HIDDEN_HALF if numbers == np.float16 else np.finfo(numbers).min
    sizes = {"Q": q, "D": d, "Q*D": q * d, "B": b, "P": capacity}
    sizes |= {"C": int(feeds["num_candidates"][0]), "probes": feeds["probe_ids"].shape[2]}
    kept = {name: value for name, value in feeds.items() if name != "context_attention_mask"}
    return {
        **kept,
        "own_past": own_past,
        "context_bias": np.where(visible, 0, hidden).astype(numbers),
        "best_scores": feeds["beam_scores"].max(axis=1, keepdims=True),
        "slots": feeds["position"] * b + np.arange(b),
        **{name: np.array(value) for name, value in host_values(spec, sizes).items()},
    }


def _torch_log_probs(model: Any, states: Any, mask: Array, tokens: Array) -> Any:
    """log p(y_t | x, z, y_<t) after ``tokens`` [Q, B, T], without a cache: [Q, D, B, V]."""
    (q, b, t), (_, d, s) = tokens.shape, mask.shape
    # every beam under every document, [Q, D, B, ...] flattened for torch
    prefix = torch.tensor(tokens)[:, None].expand(q, d, b, t).reshape(q * d * b, t)
    with torch.no_grad():
        logits = model(
            encoder_outputs=(states.repeat_interleave(b, dim=0),),
            attention_mask=torch.tensor(mask).reshape(q * d, s).repeat_interleave(b, dim=0),
            decoder_input_ids=prefix,
        ).logits[:, -1]
    return torch.log_softmax(logits, dim=-1).reshape(q, d, b, -1)


def _step_pairs(
    log_probs: Any, marginal: Any, feeds: dict[str, Array], outputs: dict[str, Array]
) -> list[tuple[Array, Array]]:
    """What one step gave, each beside what torch's ``log_probs`` and their ``marginal`` say of it."""
    q, d, b, v = log_probs.shape
    probes = torch.tensor(feeds["probe_ids"])[:, None].expand(q, d, b, -1)
    scores = (marginal + torch.tensor(feeds["beam_scores"])[..., None]).reshape(q, -1)
    best = scores.topk(outputs["candidate_scores"].shape[1]).values
    places = torch.tensor(outputs["candidate_beams"] * v + outputs["candidate_tokens"])
    chosen = log_probs.reshape(q, d, -1).gather(2, places[:, None].expand(q, d, -1))
    return [
        (outputs["probe_log_probs"], log_probs.gather(3, probes).numpy()),
        (outputs["candidate_scores"], best.numpy()),
        (outputs["candidate_scores"], scores.gather(1, places).numpy()),
        (outputs["candidate_log_probs"], chosen.numpy()),
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


def _random_texts(
    rng: np.random.Generator, count: int, length: int, vocab_size: int, shortest: int = 1
) -> tuple[Array, Array]:
    ids = rng.integers(0, vocab_size, (count, length))
    lengths = rng.integers(shortest, length + 1, count)
    lengths[0] = length
    return ids, (np.arange(length) < lengths[:, None]).astype(np.int64)
