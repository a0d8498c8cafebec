"""What a system cannot do is found without loading a model."""

import dataclasses
from pathlib import Path

import pytest

from ragengine.errors import BundleError, IndexFolderError, InputError, OptionsError, RagEngineError
from ragengine.evaluation.systems import System, check_systems
from tests.support.paths import WORLDFACTS

WHOLE = System(WORLDFACTS / "bundle", WORLDFACTS / "index", {"n_docs": 3})


def test_whole_systems_pass() -> None:
    check_systems([WHOLE, dataclasses.replace(WHOLE, options={})], ks=(3,), verify="size")


@pytest.mark.parametrize(
    ("change", "ks", "error", "message"),
    [
        ({"bundle": Path("nowhere")}, (), BundleError, "^nowhere is not a folder"),
        ({"index": Path("nowhere")}, (), IndexFolderError, "^nowhere is not a folder"),
        (
            {"options": {"n_doc": 3}},
            (),
            OptionsError,
            "'n_doc' is not a generation option; did you mean 'n_docs'",
        ),
        ({"options": {"n_docs": 0}}, (), OptionsError, "n_docs is 0"),
        ({"options": {"max_length": 10**6}}, (), OptionsError, "max_length is 1000000, the model has"),
        ({}, (4,), InputError, "^k is 4 and must be 1 to n_docs, which is 3; raise n_docs"),
    ],
)
def test_what_is_wrong_with_the_second_is_said_too(
    change: dict[str, object], ks: tuple[int, ...], error: type[RagEngineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_systems([WHOLE, dataclasses.replace(WHOLE, **change)], ks=ks, verify="size")
