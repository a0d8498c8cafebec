"""The memory that a search needs, and how many questions fit under a limit at once.

docs/guides/small-machines.md has the measurements.
"""

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.errors import InputError, MemoryLimitError
from ragengine.generation.batching import ROWS
from ragengine.generation.decoders.dynamic import ALIGNED
from ragengine.messages import short_repr
from ragengine.runtime.memory import available_memory, release_free_memory, resident_bytes

_FLOAT = 4  # bytes
_LARGEST_LIMIT = 2**63 - 1  # bytes
_ALWAYS_THERE = 1 << 30  # bytes; less is not looked for
# Copies of [B, V] per document that a step holds: logits, log-probabilities, scaled probabilities.
_VOCABULARY_ARRAYS = 3
# Arrays of d_model per row of the encoder's batch: a layer's activations, the feed-forward ones four wide.
_ENCODER_ARRAYS = 16


def working_bytes(spec: GeneratorSpec, n_docs: int, source: int, beams: int, target: int) -> int:
    """Upper bound of what one question needs while it is answered, beside the weights.

    ``source`` tokens a document, ``target`` tokens an output.  Keys and values of the documents; past and
    present of the beams if they share nothing; a step's distributions.
    """
    past = (
        2 * (beams * target + ALIGNED) * _keys_and_values(spec) + _VOCABULARY_ARRAYS * beams * spec.vocab_size
    )
    return _FLOAT * n_docs * past + _document_bytes(spec, n_docs, source)


def check_weights_fit(bundle: Bundle, limit: int) -> None:
    """Refuse, before anything is loaded, a bundle whose weights alone are over ``limit`` bytes."""
    if not isinstance(limit, int) or isinstance(limit, bool) or abs(limit) > _LARGEST_LIMIT:
        raise InputError(
            f"memory_limit is {short_repr(limit)}; it must be a whole number of bytes, or None, under 2**63."
        )
    listed = bundle.manifest.files
    folders = {bundle.manifest.question_encoder.path, bundle.manifest.generator.path}
    weights = sum(listed[f"{folder}/weights.bin"].size for folder in folders)
    if resident_bytes() + weights > limit:
        release_free_memory()
    used = resident_bytes()
    if used + weights > limit:
        raise MemoryLimitError(
            f"memory_limit is {_mb(limit)}; the process has {_mb(used)}, the weights of {bundle.path} take "
            f"{_mb(weights)}: raise the limit, or export the bundle with --precision int8 or int4."
        )


def questions_at_once(
    spec: GeneratorSpec, limit: int, n_docs: int, source: int, beams: int, target: int
) -> int:
    """How many questions may be answered together, so that the process stays under ``limit`` bytes."""
    encoder = _FLOAT * max(ROWS, source) * _ENCODER_ARRAYS * spec.width
    one = working_bytes(spec, n_docs, source, beams, target)
    if limit - resident_bytes() < encoder + one:
        release_free_memory()  # a call that ended may have left the heap large
    used = resident_bytes()
    free = limit - used - encoder
    if free < one:
        raise MemoryLimitError(
            f"memory_limit is {_mb(limit)}; the process has {_mb(used)}, and one question with {n_docs} "
            f"documents of {source} tokens, {beams} beams and {target} tokens may need {_mb(one + encoder)} "
            "more: raise the limit, or ask for fewer documents, beams or tokens."
        )
    return max(1, free // (one + _document_bytes(spec, n_docs, source)))


def questions_that_fit(
    spec: GeneratorSpec, questions: int, n_docs: int, source: int, beams: int, target: int
) -> int:
    """How many of ``questions`` may be answered together in the memory that can be had now.

    Without a limit of the user's own: so that ten thousand questions in one call, or a thousand beams, are
    answered in parts or refused with numbers, and end no process.
    """
    one = working_bytes(spec, n_docs, source, beams, target)
    together = one + _document_bytes(spec, n_docs, source)
    if (questions == 1 and one <= _ALWAYS_THERE) or questions * together <= _ALWAYS_THERE:
        return questions
    free = available_memory()
    if free is None:
        return questions
    if one > free:
        raise MemoryLimitError(
            f"One question with {n_docs} documents of {source} tokens, {beams} beams and {target} tokens may "
            f"need {_mb(one)}, {_mb(free)} can be had here; ask for fewer documents, beams or tokens."
        )
    return min(questions, max(1, free // 2 // together))  # half: other threads answer, too


def _document_bytes(spec: GeneratorSpec, n_docs: int, source: int) -> int:
    """Keys and values of a question's documents: twice there when others leave its batch (`search.batch`)."""
    return _FLOAT * n_docs * source * _keys_and_values(spec)


def _keys_and_values(spec: GeneratorSpec) -> int:
    """Numbers in the keys and values of one token, of all layers."""
    return 2 * spec.num_decoder_layers * spec.num_heads * spec.head_size


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
