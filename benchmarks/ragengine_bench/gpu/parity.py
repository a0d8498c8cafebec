"""Steps `parity-small` and `parity-large`: tokens and log-probabilities beside Hugging Face, fp32 on the CPU.

Reference and requests are those of :mod:`ragengine_bench.parity`, which the parity tests use.  Differences
are counted, not asserted: in fp32 only ties may differ, which Hugging Face itself decided by less than 1e-5;
for fp16 the table says how much differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from ragengine import Generator
from ragengine.arrays import FloatArray, IntArray
from ragengine.results import Hypothesis
from ragengine_bench.checkpoints.corpus import random_questions
from ragengine_bench.checkpoints.rag_checkpoint import CheckpointSpec, random_spec
from ragengine_bench.gpu.models import PRECISIONS, Models
from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.gpu.report import Recorder, Table, Target
from ragengine_bench.parity.margins import TIE
from ragengine_bench.parity.pairs import full_dict, full_options
from ragengine_bench.parity.reference import Reference, ReferenceAnswer
from ragengine_bench.parity.requests import random_request, sequence_request, with_special_tokens
from ragengine_bench.parity.sequence_reference import SequenceReference
from ragengine_bench.peers.ragengine import load_generator

Contexts: TypeAlias = tuple[IntArray, IntArray, FloatArray]
"""Token ids and mask [Q, D, S], document scores [Q, D]."""
Case: TypeAlias = tuple[Contexts, dict[str, Any], list[ReferenceAnswer]]
"""One request: contexts, options, the answers of Hugging Face."""
MOST_DIFFERENCE = 1e-4
"""Of log-probabilities in fp32, as in tests/parity."""
_CHECKPOINTS = {"full": range(1001, 1007), "toy": range(1001, 1002)}
_REQUESTS = {"full": 4, "toy": 2}  # to each checkpoint, of each kind
_COLUMNS = [
    "", "questions", "outputs", "same tokens", "ties", "others", "max Δ log p(y)", "max Δ log p(y_t, z)"
]  # fmt: skip


@dataclass
class Differences:
    """Sums over questions, and the largest absolute differences.

    ``ties`` counts questions whose outputs differ where Hugging Face decided by less than a tie, ``others``
    those that differ without one; ``log_prob`` is of outputs that are the same, ``token_log_prob`` of every
    token of Hugging Face's best output under every document.
    """

    questions: int = 0
    outputs: int = 0
    same: int = 0
    ties: int = 0
    others: int = 0
    log_prob: float = 0.0
    token_log_prob: float = 0.0

    def cells(self, name: str) -> list[str]:
        counts = [self.questions, self.outputs, self.same, self.ties, self.others]
        return [name, *map(str, counts), f"{self.log_prob:.1e}", f"{self.token_log_prob:.1e}"]

    def compare(
        self, hypotheses: Sequence[Hypothesis], expected: ReferenceAnswer, length_penalty: float
    ) -> None:
        """Add one question's hypotheses; scores were divided by length ** penalty."""
        if expected.distorted:
            return
        found = [hypothesis for hypothesis in expected.hypotheses if hypothesis.found]
        pairs = list(zip(hypotheses, found, strict=False))
        same = [ours.token_ids.tolist() == theirs.token_ids for ours, theirs in pairs]
        self.questions += 1
        self.outputs += len(found)
        self.same += sum(same)
        if sum(same) < len(found):
            tie = expected.margin < TIE
            self.ties, self.others = self.ties + tie, self.others + (not tie)
        for (ours, theirs), alike in zip(pairs, same, strict=True):
            if alike:
                log_prob = ours.score * len(theirs.token_ids) ** length_penalty
                self.log_prob = max(self.log_prob, abs(log_prob - theirs.log_prob))

    def compare_tokens(
        self, generator: Generator, reference: Reference, contexts: Contexts, tokens: list[int]
    ) -> None:
        """Add log p(y_t | x, z, y_<t) of given ``tokens`` for one question, without a search."""
        start = generator.default_options.decoder_start_token_id
        ids, mask, scores = contexts
        found = generator.forward(ids, mask, scores, np.array([[start, *tokens]]))
        ours = found.document_log_probs[0].T  # [T, D]
        theirs = reference.document_log_probs(ids, mask, scores, tokens)
        self.token_log_prob = max(self.token_log_prob, float(np.abs(ours - theirs).max()))


def small(plan: GpuPlan, recorder: Recorder) -> None:
    """Random checkpoints of odd shapes, random options, both models."""
    specs = [random_spec(seed) for seed in _CHECKPOINTS[plan.size]]
    compare_checkpoints(plan, recorder, "Random small checkpoints", specs)


def compare_checkpoints(
    plan: GpuPlan, recorder: Recorder, title: str, specs: Sequence[CheckpointSpec]
) -> None:
    """The checkpoint of each spec under random options, in both precisions, RAG-Token and RAG-Sequence."""
    models, found = Models(plan), _Found(recorder, title)
    for spec in specs:
        name = f"parity-{spec.seed}" if spec.model_type == "bart" else f"parity-{spec.model_type}-{spec.seed}"
        checkpoint = models.written(spec, name)
        reference = Reference(checkpoint)
        references: dict[str, Reference | SequenceReference] = {
            "token": reference,
            "sequence": SequenceReference(reference),
        }
        for kind, expected in references.items():
            cases = list(_requests(kind, spec.seed, _REQUESTS[plan.size], reference, expected))
            for precision in PRECISIONS:
                plan.say(f"parity: {name}, RAG-{kind}, {precision}")
                bundle = models.exported(checkpoint.source, f"{name}-{precision}", precision)
                generator = load_generator(bundle, plan.device, plan.threads, cuda_graphs=True, static=True)
                _compare(found, f"RAG-{kind}, {precision}", generator, reference, cases)
                generator.close()
    found.add_targets()


def large(plan: GpuPlan, recorder: Recorder) -> None:
    """BART-large's shape: 50265 tokens, 12 layers of rounding; the model of the other steps."""
    models, load = Models(plan), Models(plan).workload
    found = _Found(recorder, models.title)
    reference = Reference(models.checkpoint)
    options = {"num_beams": load.beams, "num_return_sequences": load.beams, "max_length": load.target}
    options["min_length"] = load.target // 2
    plan.say("parity: Hugging Face on the CPU")
    contexts = reference.contexts(models.questions[:2], load.documents)
    cases = [(contexts, options, reference.decode(*contexts, full_dict(**options)))]
    for precision in PRECISIONS:
        plan.say(f"parity: {models.title}, {precision}")
        bundle = models.bundle(precision)
        generator = load_generator(bundle, plan.device, plan.threads, cuda_graphs=True, static=True)
        _compare(found, f"RAG-token, {precision}", generator, reference, cases)
        generator.close()
    found.add_targets()


class _Found:
    """The differences of each row, written as they come."""

    def __init__(self, recorder: Recorder, title: str) -> None:
        self.rows: dict[str, Differences] = {}
        self._recorder = recorder
        self._table = Table(f"{title} against Hugging Face, fp32 on the CPU", _COLUMNS)
        recorder.step.tables.append(self._table)

    def row(self, name: str) -> Differences:
        return self.rows.setdefault(name, Differences())

    def save(self) -> None:
        self._table.rows = [row.cells(name) for name, row in self.rows.items()]
        self._recorder.step.data = {name: asdict(row) for name, row in self.rows.items()}
        self._recorder.save()

    def add_targets(self) -> None:
        """fp32 has to give the same; fp16 is only reported."""
        rows = [row for name, row in self.rows.items() if name.endswith("fp32")]
        largest = max((max(row.log_prob, row.token_log_prob) for row in rows), default=None)
        others = sum(row.others for row in rows)
        self._recorder.compare(
            Target.below("fp32, largest difference of a log-probability", MOST_DIFFERENCE, largest, ""),
            Target("fp32, outputs that differ without a tie", "0", str(others), others == 0),
        )


def _requests(
    kind: str, seed: int, count: int, reference: Reference, expected: Reference | SequenceReference
) -> Iterator[Case]:
    """Contexts, options and Hugging Face's answers to random requests."""
    make = random_request if kind == "token" else sequence_request
    for number in range(count):
        request = with_special_tokens(make(seed, number), reference.model.config.generator)
        options = dict(request.options)
        n_docs = options.pop("n_docs", reference.model.config.n_docs)
        rng = np.random.default_rng([seed, number, 4])
        contexts = reference.contexts(random_questions(rng, request.n_questions), n_docs)
        yield contexts, options | {"marginalize": kind}, expected.decode(*contexts, full_dict(**options))


def _compare(
    found: _Found,
    name: str,
    generator: Generator,
    reference: Reference,
    cases: Sequence[Case],
) -> None:
    row = found.row(name)
    for contexts, options, answers in cases:
        ids, mask, scores = contexts
        defaults = generator.default_options
        tokens = {name: getattr(defaults, name) for name in ("eos_token_id", "decoder_start_token_id")}
        ours = generator.generate(ids, mask, scores, full_options(**tokens | options))
        # RAG-Sequence ranks by the likelihood as it is.
        penalty = options.get("length_penalty", 1.0) if options.get("marginalize") != "sequence" else 0.0
        for question, (hypotheses, expected) in enumerate(zip(ours, answers, strict=True)):
            row.compare(hypotheses, expected, penalty)
            if expected.hypotheses and expected.hypotheses[0].found:
                one = slice(question, question + 1)
                given = ids[one], mask[one], scores[one]
                row.compare_tokens(generator, reference, given, expected.hypotheses[0].token_ids)
        found.save()
