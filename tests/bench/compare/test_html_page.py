"""The page of a report."""

import re
from pathlib import Path

import pytest

from ragengine_bench.compare.html_page import write_page
from ragengine_bench.compare.plots import write_plots
from ragengine_bench.harness.report import Report
from tests.support.browser import installed_browser, launched


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


def test_a_phone_shows_every_value_without_scrolling_sideways(report: Report, tmp_path: Path) -> None:
    path = installed_browser()
    if path is None:
        pytest.skip("There is no Chromium; apt-get install chromium.")
    page_file = write_page(report, write_plots(report, tmp_path), tmp_path)
    with launched(path) as browser:
        page = browser.new_page(viewport={"width": 360, "height": 740})
        page.goto(page_file.as_uri())
        wide = """[...document.querySelectorAll("*")].filter(
            (one) => one.getBoundingClientRect().right > innerWidth || one.scrollWidth > one.clientWidth + 1
        ).map((one) => one.outerHTML.slice(0, 200))"""
        assert page.evaluate(wide) == []
        cells = """[...document.querySelectorAll("td:not(:empty)")].map((one) =>
            [one.checkVisibility(), getComputedStyle(one, "::before").content, one.dataset.name])"""
        found = page.evaluate(cells)
        assert len(found) > 10
        assert all(visible for visible, _, _ in found)
        assert {f'"{name}"' for _, said, name in found if said != "none"} <= {said for _, said, _ in found}
