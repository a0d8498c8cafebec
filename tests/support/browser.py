"""A real browser on the server's page."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def installed_browser() -> str | None:
    """The path of the Chromium of this machine."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def launched(path: str) -> Iterator[Browser]:
    """The browser, headless, inside the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A page of a server, and what the browser complained about.

    url         of the server
    complaints  errors and warnings of the console, uncaught exceptions, dialogs
    requested   the addresses of all requests
    """

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    _debugger: CDPSession | None = None

    @classmethod
    def of(cls, page: Page, url: str) -> "Tab":
        tab = cls(page, url)
        page.on("console", tab._console)
        page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        page.on("request", lambda request: tab.requested.append(request.url))
        page.set_default_timeout(20_000)
        return tab

    def open(self) -> "Tab":
        """Load the page, and wait until it knows the server."""
        self.page.goto(self.url)
        self.page.locator("[name=n_docs]:valid").wait_for()
        return self

    def ask(self, question: str, **fields: int | str) -> dict[str, Any]:
        """Ask, and wait for the whole answer: what the page keeps of it."""
        for name, value in fields.items():
            control = self.page.locator(f"[name={name}]")
            if name == "marginalize":
                control.select_option(str(value))
            else:
                control.fill(str(value))
        self.page.fill("#question", question)
        return self.after(lambda: self.page.click("#submit"))

    def after(self, act: Any) -> dict[str, Any]:
        """Do what leads to a new answer, and wait for it."""
        before = len(self.history())
        act()
        self.page.locator(f"#history > li:nth-child({before + 1})").wait_for()
        entry: dict[str, Any] = self.history()[0]
        return entry

    def history(self) -> list[dict[str, Any]]:
        """The entries that the page keeps, newest first."""
        found: list[dict[str, Any]] = json.loads(
            self.evaluate("sessionStorage.getItem('ragengine-history-1')") or "[]"
        )
        return found

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; the debugger may evaluate what the page's policy forbids the page."""
        if self._debugger is None:
            self._debugger = self.page.context.new_cdp_session(self.page)
        found = self._debugger.send(
            "Runtime.evaluate", {"expression": expression, "awaitPromise": True, "returnByValue": True}
        )
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def violations(self) -> list[str]:
        """What axe-core finds wrong."""
        axe = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
        self.evaluate(f"{axe}; 0")
        found = self.evaluate("axe.run()")
        assert len(found["passes"]) > 30  # it did look
        return [
            f"{violation['id']}: {node['target']} {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        self.page.screenshot(path=path, full_page=True)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)
