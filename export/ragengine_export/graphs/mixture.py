"""RAG's marginalisation and the choice of candidates, inside the decoder graph.

    p(y_t | x, y_<t) = Σ_z p(z | x) p(y_t | x, z, y_<t)            (paper, section 2.1, RAG-Token)

The same sum with weights that each beam carries, p(z | x, y_<t), is RAG-Sequence's next-token
probability, so the weights are an input with a beam axis.  Only the best candidates leave the graph.
"""

import onnx_ir as ir
from onnxscript import nn

from ragengine.bundle.signatures import PART_WIDTH
from ragengine_export.graphs.decoder_step import StaticInputs, StepShapes
from ragengine_export.graphs.layers import MASKED
from ragengine_export.graphs.values import Op

# Probabilities are summed as e^80 p, best beam first: a float32 then reaches down to e^-183 of it, far below
# any token a search could want, where p itself would end at e^-103.
HEADROOM = 80.0


class Mixture(nn.Module):
    """From next-token logits per document to the best continuations of the mixture.

    logits            float32 [Q, B, D, V]
    log_weights       float32 [Q, D, B]     log p(z | x) or log p(z | x, y_<t); -inf drops a document
    beam_scores       float32 [Q, B]        log p(y_<t | x), as the search counts it; -inf is no beam
    num_candidates    int64 [1]             C, at most B·V
    probe_ids         int64 [Q, B, P]       tokens whose probabilities are wanted whatever their rank

    Returns by name, best first,

    candidate_scores     float32 [Q, C]     beam score + log p(y_t | x, y_<t)
    candidate_beams      int64 [Q, C]
    candidate_tokens     int64 [Q, C]
    candidate_log_probs  float32 [Q, D, C]  log p(y_t | x, z, y_<t), for the posterior
    probe_log_probs      float32 [Q, D, B, P]

    A continuation less probable than e^-183 of the best beam has the score -inf.

    A graph that is to be captured (``static``) takes the best beam score as an input and avoids GatherND and
    Concat: CUDA's kernels of these copy numbers from the host in every run, and a replay would read that
    memory after it was freed.  A CPU reads the few places of [Q, B, D, V] with GatherND, and copies nothing.
    Its candidates come from parts of the vocabulary (:meth:`_best_of_parts`).
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self._vocab_size = vocab_size

    def forward(
        self,
        op: Op,
        logits: ir.Value,
        log_weights: ir.Value,
        beam_scores: ir.Value,
        num_candidates: ir.Value,
        probe_ids: ir.Value,
        shapes: StepShapes,
        static: StaticInputs | None = None,
    ) -> dict[str, ir.Value]:
        minus_one, one, two = (op.Constant(value_ints=[i]) for i in (-1, 1, 2))
        vocab_size = op.Constant(value_int=self._vocab_size)
        headroom = op.Constant(value_float=HEADROOM)
        log_probs = op.LogSoftmax(logits, axis=-1)  # log p(y_t | x, z, y_<t)

        # Σ_z p(z) p(y_t | z) for all beams, times what each beam is worth beside the best
        if static is None:
            best = op.ReduceMax(beam_scores, minus_one, keepdims=1)  # [Q, 1]
        else:
            best = static.best_scores
        best = op.Max(best, op.Constant(value_float=MASKED))  # no beam at all: not -inf - -inf
        worth = op.Unsqueeze(op.Sub(beam_scores, best), one)  # [Q, 1, B]
        weights = op.Exp(op.Transpose(op.Add(log_weights, worth), perm=[0, 2, 1]))  # [Q, B, D]
        scaled = op.Exp(op.Add(log_probs, headroom))
        marginal = op.MatMul(op.Unsqueeze(weights, two), scaled)  # [Q, B, 1, V]

        if static is None:
            flat = op.Reshape(marginal, op.Constant(value_ints=[0, -1]))  # [Q, B·V]
            chosen, places = op.TopK(flat, num_candidates, axis=-1, _outputs=2)
            # A CPU's Log rounds otherwise at the end of a tensor than in whole registers, so that a score
            # would depend on how many there are; that of a sum is the same everywhere.
            log_chosen = op.ReduceLogSum(op.Unsqueeze(chosen, minus_one), minus_one, keepdims=0)
        else:
            chosen, places = self._best_of_parts(op, marginal, num_candidates, static)
            log_chosen = op.Log(chosen)
        candidate_scores = op.Add(op.Sub(log_chosen, headroom), best)
        candidate_beams, candidate_tokens = op.Div(places, vocab_size), op.Mod(places, vocab_size)

        if shapes.documents is None:
            by_place = op.Transpose(log_probs, perm=[0, 2, 1, 3])
            by_place = op.Reshape(by_place, op.Constant(value_ints=[0, 0, -1]))  # [Q, D, B·V]
            everywhere = op.Expand(op.Unsqueeze(places, one), shapes.candidates)
            candidate_log_probs = op.GatherElements(by_place, everywhere, axis=2)
        else:
            documents = op.Unsqueeze(shapes.documents, one)  # [D, 1]
            coordinates = [
                op.Unsqueeze(op.Expand(axis, shapes.candidates), minus_one)
                for axis in (
                    op.Unsqueeze(candidate_beams, one),
                    documents,
                    op.Unsqueeze(candidate_tokens, one),
                )
            ]
            candidate_log_probs = op.GatherND(log_probs, op.Concat(*coordinates, axis=-1), batch_dims=1)

        probe_places = op.Expand(op.Unsqueeze(probe_ids, two), shapes.probes)  # [Q, B, D, P]
        probed = op.GatherElements(log_probs, probe_places, axis=3)
        probe_log_probs = op.Transpose(probed, perm=[0, 2, 1, 3])
        return {
            "candidate_scores": candidate_scores,
            "candidate_beams": candidate_beams,
            "candidate_tokens": candidate_tokens,
            "candidate_log_probs": candidate_log_probs,
            "probe_log_probs": probe_log_probs,
        }

    def _best_of_parts(
        self, op: Op, marginal: ir.Value, num_candidates: ir.Value, static: StaticInputs
    ) -> tuple[ir.Value, ir.Value]:
        """The largest of ``marginal`` [Q, B, 1, V] and their places in [Q, B·V]: [Q, C] each.

        The best of each part of the vocabulary come first, then the best of those: the same in the same
        order, but CUDA's TopK gives a row to one block of threads, and a block takes a millisecond for the
        vocabulary of four beams.
        """
        minus_one, zero = (op.Constant(value_ints=[i]) for i in (-1, 0))
        parts = -(-self._vocab_size // PART_WIDTH)
        filling = op.Constant(value_ints=[0] * 7 + [parts * PART_WIDTH - self._vocab_size])
        never = op.Constant(value_float=-1.0)  # below every probability
        padded = op.Pad(marginal, filling, never)
        by_part = op.Reshape(padded, op.Constant(value_ints=[0, 0, parts, PART_WIDTH]))  # [Q, B, parts, W]
        best, within = op.TopK(by_part, static.part_candidates, axis=-1, _outputs=2)

        beams = op.Sub(static.slots, op.Gather(static.slots, zero))  # 0, 1, ... B-1
        first_of_beam = op.Mul(beams, op.Constant(value_int=self._vocab_size))
        first_of_part = op.Constant(value_ints=[PART_WIDTH * part for part in range(parts)])
        starts = op.Add(op.Unsqueeze(first_of_beam, minus_one), first_of_part)  # [B, parts]
        places = op.Add(within, op.Unsqueeze(starts, minus_one))  # [Q, B, parts, c]

        row = op.Constant(value_ints=[0, -1])
        chosen, order = op.TopK(op.Reshape(best, row), num_candidates, axis=-1, _outputs=2)
        return chosen, op.GatherElements(op.Reshape(places, row), order, axis=1)
