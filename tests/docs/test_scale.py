"""The numbers of docs/guides/scale.md that are not measured are what the planner says today."""

from collections.abc import Callable

import pytest

from tests.docs import scale_table
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "guides" / "scale.md").read_text("utf-8")


@pytest.mark.parametrize("table", [scale_table.sizes, scale_table.work, scale_table.prices])
def test_tables_are_those_of_the_formulas(table: Callable[[], list[str]]) -> None:
    assert "\n".join(table()) in PAGE, "run python -m tests.docs.scale_table"


def test_the_assumptions_of_the_formulas_are_on_the_page() -> None:
    for stated in (
        f"{scale_table.TEXT_BYTES} bytes a passage",
        f"{scale_table.RATE / 1e9:.0f} billion",
        f"{scale_table.ENCODER_PARAMETERS / 1e6:.0f} million",
        f"{scale_table.TOKENS} tokens",
        f"{scale_table.GPU_RATE / 1e12:.0f} trillion",
        f"{scale_table.CORE_HOUR:.2f} a core-hour",
        f"{scale_table.GPU_HOUR:.2f} a GPU-hour",
        f"{scale_table.GB_MONTH:.2f} a gigabyte and month",
    ):
        assert stated in " ".join(PAGE.split()), stated
