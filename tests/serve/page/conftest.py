"""One browser and one server for all tests of the page, and a fresh tab for each."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ragengine import build_index
from tests.support.paths import WORLDFACTS
from tests.support.served import Served, running, write_keys

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.browser import Tab

ADMIN = "a-key-for-the-admins"
SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="package")
def browser() -> "Iterator[Browser]":
    pytest.importorskip("playwright", reason="The extra serve-test is not installed.")
    from tests.support.browser import installed_browser, launched

    path = installed_browser()
    if path is None:
        pytest.skip("There is no Chromium; apt-get install chromium.")
    with launched(path) as opened:
        yield opened


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose index may be swapped for ``hostile``, with scripts for passages, and for ``large``."""
    root = tmp_path_factory.mktemp("indexes")
    passages = root / "passages.jsonl"
    passages.write_text(
        f'{{"id": "1", "title": "{SCRIPT}", "text": "The capital of Iceland is {SCRIPT} Reykjavik.", '
        f'"owner": "{SCRIPT}", "year": 2026}}\n'
        '{"id": "2", "title": "Peru", "text": "The capital of Peru is Lima."}\n'
    )
    build_index(passages, root / "hostile", bundle=WORLDFACTS / "bundle")
    shutil.copytree(WORLDFACTS / "index", root / "large")
    keys = write_keys(root / "admin", ADMIN)
    with running(admin_key_file=keys, index_root=root, max_request_bytes=50_000) as server:
        yield server


@pytest.fixture
def tab(browser: "Browser", served: Served) -> "Iterator[Tab]":
    """The page.  At the end nothing may have been complained of, or asked of another host."""
    from tests.support.browser import Tab

    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        tab = Tab.of(context.new_page(), served.url).open()
        yield tab
        assert tab.complaints == []
        assert {address for address in tab.requested if not address.startswith(f"{served.url}/")} == set()
