"""Everybody can use the page: axe-core finds nothing, in both themes, on wide and narrow screens."""

from typing import TYPE_CHECKING

import pytest

from tests.support.served import QUESTION, Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.browser import Tab

pytestmark = pytest.mark.xdist_group("page")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing(browser: "Browser", served: Served, scheme: str, width: int) -> None:
    from tests.support.browser import Tab

    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        tab = Tab.of(context.new_page(), served.url).open()
        assert tab.violations() == []
        tab.ask(QUESTION)
        tab.after(tab.page.get_by_role("button", name="Leave out Sweden").click)
        tab.page.locator("summary").first.click()
        tab.page.locator(".word").first.focus()
        tab.page.wait_for_timeout(200)  # colours change in 120 ms
        assert tab.violations() == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.complaints == []


def test_the_theme_is_chosen_and_kept(tab: "Tab") -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(colour)
    tab.page.select_option("#theme", "dark")
    dark = tab.evaluate(colour)
    assert dark != light
    tab.open()
    assert tab.evaluate(colour) == dark
    tab.page.select_option("#theme", "")
    assert tab.evaluate(colour) == light
