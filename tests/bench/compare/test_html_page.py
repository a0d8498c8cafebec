"""The page of a report."""

import re
from pathlib import Path

from ragengine_bench.compare.html_page import write_page
from ragengine_bench.compare.plots import write_plots
from ragengine_bench.harness.report import Report


def test_the_page_needs_nothing_else(report: Report, tmp_path: Path) -> None:
    plots = write_plots(report, tmp_path)
    assert sorted(plot.stem for plot in plots) == ["1-generation-ratios", "1-generation-stages", "2-beams"]
    assert all(plot.with_suffix(".png").read_bytes().startswith(b"\x89PNG") for plot in plots)
    page = write_page(report, plots, tmp_path).read_text("utf-8")
    places = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(places) == len(plots)
    assert all(place.startswith("data:image/svg+xml;base64,") for place in places)
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "&lt;a &amp; b&gt;" in page
    assert "Interrupted" in page
    report.complete = True
    assert "Interrupted" not in write_page(report, plots, tmp_path).read_text("utf-8")
