"""The keyword arguments of the engine's calls, for editors and type checkers; the calls check them anyway."""

from collections.abc import Sequence
from typing import TypeAlias, TypedDict

from ragengine.generation.search.rules import AllowedTokens
from ragengine.options import GenerationOptions, GenerationOverrides, ScoringOverrides
from ragengine.results import Document
from ragengine.retrieval.passage_filter import Filter
from ragengine.runtime.cancellation import CancelSignal, Stop

OwnDocuments: TypeAlias = Sequence[Document] | Sequence[Sequence[Document]] | None
"""Documents to read instead of searching: of one question, or of each."""


class CallSettings(TypedDict, total=False):
    """What :meth:`RagEngine.generate` and :meth:`RagEngine.score` have in common."""

    options: GenerationOptions | None
    documents: OwnDocuments
    doc_pruning: float | None
    filter: Filter | None
    deadline: float | Stop | None
    cancel: CancelSignal | None


class GenerateSettings(CallSettings, GenerationOverrides, total=False):
    """The keyword arguments of :meth:`RagEngine.generate`."""

    adaptive_reading: bool
    prefix_allowed_tokens_fn: AllowedTokens | None
    abstain: bool


class ScoreSettings(CallSettings, ScoringOverrides, total=False):
    """The keyword arguments of :meth:`RagEngine.score`."""

    with_bos: bool | None
    exclude_bos_score: bool | None
