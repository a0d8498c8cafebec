"""The page about what differs from transformers names every field of a generation config."""

import re

from transformers import GenerationConfig

from ragengine.options import OPTION_NAMES
from tests.docs.pages import ROOT


def test_every_name_of_a_generation_config_is_an_option_or_on_the_page() -> None:
    """A name that a new release of transformers adds fails here."""
    page = (ROOT / "docs/concepts/transformers.md").read_text("utf-8")
    (names,) = re.findall(r"These names of `GenerationConfig`.*?(?=\n## )", page, re.S)
    listed = set(re.findall(r"`(\w+)`", names))
    config = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert config - set(OPTION_NAMES) - listed == set()
    assert listed & set(OPTION_NAMES) == set()
