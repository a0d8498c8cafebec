"""What the page gives to copy runs and answers the same."""

import contextlib
import io
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.browser import Tab

pytestmark = pytest.mark.xdist_group("page")
AWKWARD = 'What\'s "the" capital\tof Iceland, $HOME `id` \\n é 😀 {x} %s?'


def test_what_is_copied_answers_the_same(tab: "Tab") -> None:
    page = tab.page
    tab.ask(AWKWARD, n_docs=3, num_beams=2)
    first = page.locator(".passage .quiet").first
    entry = tab.after(first.click)  # then the documents are part of the request
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copied = {}
    for name in ("curl", "Python"):
        page.locator("summary", has_text=name).click()
        page.get_by_role("button", name=f"Copy as {name}").click()
        page.get_by_role("button", name=f"Copy as {name}").filter(has_text="Copied").wait_for()
        copied[name] = tab.evaluate("navigator.clipboard.readText()")
    printed = subprocess.run(["sh", "-c", copied["curl"]], capture_output=True, check=True).stdout
    answered = json.loads(printed)
    assert answered["question"] == AWKWARD
    assert [d["title"] for d in answered["documents"]] == [d["title"] for d in entry["answer"]["documents"]]
    assert answered["log_prob"] == pytest.approx(entry["answer"]["log_prob"], abs=1e-4)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(copied["Python"], {})
    assert said.getvalue() == f"{entry['answer']['answer']}\n"
