"""RAG's marginalisation and the choice of candidates, inside the decoder graph.

    p(y_t | x, y_<t) = Σ_z p(z | x) p(y_t | x, z, y_<t)            (paper, section 2.1, RAG-Token)

The same sum with weights that each beam carries, p(z | x, y_<t), is RAG-Sequence's next-token
probability, so the weights are an input with a beam axis.  Only the best candidates leave the graph.
"""

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.layers import Op


class Mixture(nn.Module):
    """From next-token logits per document to the best continuations of the mixture.

    logits            float32 [Q·D, B, V]
    log_weights       float32 [Q, D, B]     log p(z | x) or log p(z | x, y_<t); -inf drops a document
    beam_scores       float32 [Q, B]        log p(y_<t | x), as the search counts it
    num_candidates    int64 [1]             C, at most B·V
    probe_ids         int64 [Q, B, P]       tokens whose probabilities are wanted whatever their rank

    Returns, best first,

    candidate_scores     float32 [Q, C]     beam score + log p(y_t | x, y_<t)
    candidate_beams      int64 [Q, C]
    candidate_tokens     int64 [Q, C]
    candidate_log_probs  float32 [Q, D, C]  log p(y_t | x, z, y_<t), for the posterior
    probe_log_probs      float32 [Q, D, B, P]
    """

    def forward(
        self,
        op: Op,
        logits: ir.Value,
        log_weights: ir.Value,
        beam_scores: ir.Value,
        num_candidates: ir.Value,
        probe_ids: ir.Value,
    ) -> tuple[ir.Value, ...]:
        q, d, b = (op.Shape(log_weights, start=i, end=i + 1) for i in range(3))
        one, minus_one = op.Constant(value_ints=[1]), op.Constant(value_ints=[-1])
        v = op.Shape(logits, start=2, end=3)

        # log p(y_t | x, z, y_<t)
        log_probs = op.Reshape(op.LogSoftmax(logits, axis=-1), op.Concat(q, d, b, minus_one, axis=0))
        # log Σ_z p(z) p(y_t | z), in log space: a token may be impossible in float32 for every document
        joint = op.Add(log_probs, op.Unsqueeze(log_weights, minus_one))
        largest = op.ReduceMax(joint, one, keepdims=1)
        total = op.ReduceSum(op.Exp(op.Sub(joint, largest)), one, keepdims=1)
        marginal = op.Squeeze(op.Add(op.Log(total), largest), one)  # [Q, B, V]

        scores = op.Add(marginal, op.Unsqueeze(beam_scores, minus_one))
        flat = op.Reshape(scores, op.Concat(q, minus_one, axis=0))  # [Q, B·V]
        candidate_scores, places = op.TopK(flat, num_candidates, axis=-1, _outputs=2)
        candidate_beams, candidate_tokens = op.Div(places, v), op.Mod(places, v)

        per_document = op.Reshape(log_probs, op.Concat(q, d, minus_one, axis=0))  # [Q, D, B·V]
        spread = op.Expand(op.Unsqueeze(places, one), op.Concat(q, d, one, axis=0))
        candidate_log_probs = op.GatherElements(per_document, spread, axis=2)

        probes = op.Shape(probe_ids, start=2, end=3)
        probe_places = op.Expand(op.Unsqueeze(probe_ids, one), op.Concat(q, d, b, probes, axis=0))
        probe_log_probs = op.GatherElements(log_probs, probe_places, axis=3)
        return candidate_scores, candidate_beams, candidate_tokens, candidate_log_probs, probe_log_probs
