"""A tokenizer that loads but does not work is an error of its bundle, in one sentence."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.errors import BundleError
from ragengine.tokenization import Tokenizer
from tests.robustness.forgery import field, tokenizer
from tests.support.bundles import rewrite_manifest
from tests.support.paths import GOLDEN

WORDS = "question_encoder/tokenizer.json"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "bundle_v2", tmp_path / "bundle"))


BROKEN: dict[str, tuple[Callable[[Any], object], str]] = {
    "panics when it is loaded": (
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "is not a tokenizer that this version of tokenizers reads",
    ),
    "panics when it is used": (
        lambda t: t.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        "cannot encode a text: chunk size must be non-zero",
    ),
    "lacks a special token": (
        lambda t: t["post_processor"].update(special_tokens={}),
        "no entry found for key|is not a tokenizer",
    ),
    "lacks its unknown token": (
        lambda t: t["model"]["vocab"].pop("[UNK]"),
        r"cannot encode a text: .*Missing \[UNK\] token",
    ),
    "has a wrong expression": (
        lambda t: t.update(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "("},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "is not a tokenizer that this version of tokenizers reads",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_tokenizer_that_does_not_work_is_the_bundles_fault(bundle: Path, case: str) -> None:
    edit, message = BROKEN[case]
    tokenizer(WORDS, edit)(bundle)
    rewrite_manifest(bundle)
    opened = Bundle.open(bundle)
    spec = opened.manifest.question_encoder.tokenizer
    with pytest.raises(BundleError, match=message):
        Tokenizer(bundle / WORDS, spec).encode(["who wrote 𝔘 ?"])


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_truncation_to_less_than_the_special_tokens_is_refused(bundle: Path, longest: int) -> None:
    """tokenizers would then not truncate, and texts would exceed the model's positions."""
    field("question_encoder.tokenizer.max_length", longest)(bundle)
    spec = Bundle.open(bundle).manifest.question_encoder.tokenizer
    with pytest.raises(BundleError, match=f"is {longest}, its special tokens alone are 3"):
        Tokenizer(bundle / WORDS, spec)
