"""What the lines of an output depend on, by name: it must not change while a run is resumed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from ragengine.batch_inference.questions import FileQuestion
from ragengine.confidence.corpus import fingerprint
from ragengine.engine import RagEngine
from ragengine.options import OPTION_NAMES
from ragengine.version import __version__


def engine_identity(engine: RagEngine, settings: Mapping[str, Any]) -> dict[str, str]:
    """Model, index, calibration, device, version, and every setting, with the model's defaults.

    Raises:
        OptionsError, InputError: a setting is wrong, whatever is asked.
    """
    engine.generate([], **settings)
    options = engine.default_options.replace(
        **{name: settings[name] for name in OPTION_NAMES if name in settings}
    ).to_dict()
    others = {name: value for name, value in settings.items() if name not in OPTION_NAMES}
    with engine.retriever.borrow_index() as index:
        corpus = index.corpus
    return {
        "bundle": engine.bundle.fingerprint[:12],
        "index": "" if corpus is None else corpus.fingerprint[:12],
        "calibration": "" if corpus is None else fingerprint({"": repr(corpus.calibration)})[:12],
        "device": engine.device,
        "ragengine": __version__,
        **{name: json.dumps(value, sort_keys=True) for name, value in (options | others).items()},
    }


def questions_identity(questions: Sequence[FileQuestion]) -> str:
    """The fingerprint of lines, ids and texts."""
    return fingerprint({"questions": [astuple(question) for question in questions]})[:12]
