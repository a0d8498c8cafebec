"""The calibrated model: from an answer's features to probabilities, and the file beside an index."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ragengine.arrays import DoubleArray
from ragengine.confidence.features import FEATURES
from ragengine.confidence.rarity import Rarity
from ragengine.errors import IndexFolderError
from ragengine.options import GenerationOptions
from ragengine.storage.atomic import replaced_file
from ragengine.storage.foreign_files import why
from ragengine.storage.ownership import CALIBRATION as CALIBRATION
from ragengine.storage.schema import Count, Hash, Line, Range, join_errors, parse
from ragengine.storage.strict_json import read_json

FORMAT = "ragengine-calibration"
FORMAT_VERSION = 1

FARTHEST = 8.0
"""Standard deviations at which a feature is cut: no value beyond is known from the fit."""

_Weight = Annotated[float, Range(-1e6, 1e6)]
_Probability = Annotated[float, Range(0, 1)]
_IRRELEVANT = ("num_return_sequences",)  # the search asks for the hypotheses that the features need


@dataclass(frozen=True)
class Logistic:
    """p = 1 / (1 + exp(-(intercept + weights · f))) of standardised features f."""

    intercept: _Weight
    weights: list[_Weight]

    def probability(self, values: DoubleArray) -> DoubleArray:
        """p of features [..., F]: [...]."""
        logits = np.clip(self.intercept + values @ np.array(self.weights), -500, 500)
        found: DoubleArray = 1 / (1 + np.exp(-logits))
        return found


@dataclass(frozen=True)
class ConfidenceModel:
    """What ``ragengine calibrate`` found: the content of ``calibration.json`` in the folder of an index.

    bundle         fingerprint of the bundle that gave the answers
    index          fingerprint of the index they came from
    options        the generation options they were made with
    features       the names of the features f, in order; f = (value - mean) / scale, cut to -8 to 8
    means, scales  of the features
    answerable     p(the documents hold an answer | f)
    right          p(the answer is right | f, and the documents hold one)
    common_words   weights of words (:class:`Rarity`)
    threshold      the confidence under which an answer is flagged ``low_confidence``
    error_rate     the share of wrong answers among the others that the threshold was chosen for
    created_by     the program that wrote it
    questions      how many questions it was fitted to
    unanswerable   how many of them no document answers
    report         figures of the fit, for readers
    """

    bundle: Hash
    index: Hash
    options: dict[str, Any]
    features: list[Line]
    means: list[_Weight]
    scales: list[Annotated[float, Range(1e-9, 1e6)]]
    answerable: Logistic
    right: Logistic
    common_words: dict[str, _Probability]
    threshold: _Probability
    error_rate: _Probability
    created_by: Line
    questions: Count
    unanswerable: Count
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def rarity(self) -> Rarity:
        """The weights of words."""
        return Rarity(self.common_words)

    def fits(self, options: GenerationOptions) -> bool:
        """Whether answers with ``options`` are of the kind that was calibrated.

        An option that the version which calibrated did not know had its default.
        """
        return relevant_options(options) == relevant_options(GenerationOptions()) | self.options

    def probabilities(self, values: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
        """(confidence, answerability) of features [..., F] in the order of :data:`FEATURES`: [...] each."""
        standard = np.clip((values - np.array(self.means)) / np.array(self.scales), -FARTHEST, FARTHEST)
        answerability = self.answerable.probability(standard)
        return answerability * self.right.probability(standard), answerability

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with the format."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}

    def write(self, folder: Path) -> None:
        """Put it into the folder of an index, whole or not at all, once it has been read back.

        Raises:
            IndexFolderError: it cannot be written or read back.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        path = folder / CALIBRATION
        partial = folder / f".{CALIBRATION}.writing"
        try:
            with replaced_file(path, partial) as file:
                file.write(text.encode())
                file.flush()
                if _read(partial) != self:
                    raise IndexFolderError(f"{path} cannot be read back as it was written; nothing changed.")
        except OSError as reason:
            raise IndexFolderError(f"{path} cannot be written: {why(reason)}.") from reason

    @classmethod
    def read(cls, folder: Path) -> "ConfidenceModel | None":
        """The calibration in the folder of an index; None where there is none.

        Raises:
            IndexFolderError: the file is damaged, or of a newer version.
        """
        try:
            return _read(folder / CALIBRATION)
        except FileNotFoundError:
            return None


def relevant_options(options: GenerationOptions) -> dict[str, Any]:
    """The options that an answer's features depend on, as JSON has them."""
    values: dict[str, Any] = json.loads(json.dumps(options.to_dict(), default=str))
    return {name: value for name, value in values.items() if name not in _IRRELEVANT}


def _read(path: Path) -> ConfidenceModel:
    remedy = "remove it or run ragengine calibrate again"
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as reason:
        raise IndexFolderError(f"{path} cannot be read: {why(reason)}; {remedy}.") from reason
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise IndexFolderError(f"{path} is not a {FORMAT}; {remedy}.")
    if content.get("format_version") != FORMAT_VERSION:
        raise IndexFolderError(
            f"{path} has format version {content.get('format_version')!r:.80}, this ragengine reads "
            f"{FORMAT_VERSION}; {remedy}."
        )
    parsed = parse(ConfidenceModel, content)
    if parsed.value is None:
        raise IndexFolderError(f"{path} is damaged: {join_errors(parsed.errors)}; {remedy}.")
    model = parsed.value
    lengths = {
        len(part) for part in (model.means, model.scales, model.answerable.weights, model.right.weights)
    }
    if model.features != list(FEATURES) or lengths != {len(FEATURES)}:
        raise IndexFolderError(
            f"{path} is of other features than this version of ragengine computes; {remedy}."
        )
    return model
