"""Asking on the page, in a real browser: the page shows what the engine answers."""

import math
from typing import TYPE_CHECKING

import pytest

from ragengine import RagEngine
from tests.serve.page.conftest import ADMIN, SCRIPT
from tests.support.served import QUESTION, Served, running, write_keys

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.browser import Tab

pytestmark = pytest.mark.xdist_group("page")
LONG = "What countries does Kosovo border?"


@pytest.fixture
def engine(served: Served) -> RagEngine:
    engine: RagEngine = served.state.models.get(None).engine
    return engine


def shares(tab: "Tab") -> list[float]:
    """By which posterior each passage is shaded."""
    found: list[float] = tab.evaluate(
        "[...document.querySelectorAll('.passage')].map((card) => Number(card.style.getPropertyValue('--p')))"
    )
    return found


def test_an_answer_is_shown_with_all_that_is_known_of_it(tab: "Tab", engine: RagEngine) -> None:
    tab.ask(QUESTION)
    page, answer = tab.page, engine.generate(QUESTION, num_return_sequences=4)
    assert page.inner_text("#words") == answer.text.strip()
    assert page.locator(".passage h3").all_inner_texts() == [d.title for d in answer.documents]
    assert page.locator(".passage .text").all_inner_texts() == [d.text for d in answer.documents]
    assert shares(tab) == pytest.approx([d.posterior for d in answer.documents], abs=1e-4)
    assert page.locator(".passage").first.locator(".number").all_inner_texts() == ["99.9 %", ">99.9 %"]
    assert f"p(y | x) {math.exp(answer.log_prob) * 100:.0f} %" in page.inner_text("#confidence")
    others = page.locator("#alternatives li span:first-child").all_inner_texts()
    assert others == [text.strip() for text in answer.texts[1:]]
    stages = page.locator("#timings dt").all_inner_texts()
    assert stages == ["queue", *(stage.replace("_", " ") for stage in answer.timings_ms)]
    assert page.locator("#figure tbody td").count() == len(answer.tokens) * len(answer.documents)
    assert page.locator("#figure thead th").all_inner_texts() == [token.strip() for token in answer.tokens]
    assert page.inner_text("#status") == f"Answer: {answer.text.strip()}."
    assert "10,000 passages" in page.inner_text("#served")


def test_an_answer_of_one_beam_streams_in(tab: "Tab", engine: RagEngine) -> None:
    tab.evaluate("""
        seen = [];
        new MutationObserver(() => {
          const words = document.getElementById("words");
          seen.push([words.textContent, words.getAttribute("aria-busy")]);
        }).observe(document.getElementById("words"), { childList: true });
    """)
    with tab.page.expect_request("**/v1/answer") as asked:
        tab.ask(LONG, num_beams=1)
    assert asked.value.post_data_json["stream"] is True
    assert "streams" in tab.page.inner_text("#mode")
    answer = engine.generate(LONG, num_beams=1).text.strip()
    *growing, last = tab.evaluate("seen")
    texts = [text for text, busy in growing if busy == "true"]
    assert texts == sorted(texts, key=len)
    assert all(answer.startswith(text) for text in texts)
    assert len(set(texts)) >= 3  # token by token, but a browser may draw two at once
    assert last == [answer, "false"]


def test_rag_sequence_is_asked_whole(tab: "Tab", engine: RagEngine) -> None:
    with tab.page.expect_request("**/v1/answer") as asked:
        tab.ask(QUESTION, num_beams=1, marginalize="sequence")
    assert "stream" not in asked.value.post_data_json
    answer = engine.generate(QUESTION, num_beams=1, marginalize="sequence")
    assert tab.page.inner_text("#words") == (answer.text.strip() or "(no text)")
    assert answer.notes[0] in tab.page.inner_text("#confidence")  # it was trained for RAG-Token
    assert tab.page.inner_text("#confidence strong") == "Check this answer"


def test_a_word_shades_the_passages_and_marks_a_sentence(tab: "Tab", engine: RagEngine) -> None:
    tab.ask(LONG)
    page, answer = tab.page, engine.generate(LONG)
    whole = shares(tab)
    page.hover(".word:has-text('Montenegro')")
    parts = [number for number, text in enumerate(answer.tokens) if text in (" Mont", "en", "egro")]
    word = answer.token_posteriors[[*parts, parts[-1] + 1]].mean(axis=0)  # with its comma
    assert shares(tab) == pytest.approx(word.tolist(), abs=1e-3)
    assert page.locator("mark").all_inner_texts() == [
        "Its neighbours on land are Albania, Montenegro, North Macedonia and Serbia."
    ]
    assert "from passage 1" in page.inner_text("#word-note")
    assert page.locator("#figure thead th.pointed").all_inner_texts() == ["Mont", "en", "egro", ","]
    page.mouse.move(1, 1)
    assert shares(tab) == whole
    assert page.locator("mark, .pointed").count() == 0


def test_words_are_reached_by_keys(tab: "Tab") -> None:
    tab.ask(LONG)
    page = tab.page
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    assert "Montenegro" in page.inner_text("#word-note")
    page.keyboard.press("Enter")
    assert page.locator(".word[aria-pressed=true]").inner_text() == "Montenegro,"
    page.keyboard.press("End")
    assert "Serbia" in page.inner_text("#word-note")
    page.keyboard.press("Tab")  # away: the word that was pressed is shown again
    assert "Montenegro" in page.inner_text("#word-note")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Escape")
    assert page.locator(".word[aria-pressed=true]").count() == 0
    assert page.locator(".word[tabindex='0']").count() == 1


def test_without_a_passage_another_answer_is_found(tab: "Tab", engine: RagEngine) -> None:
    first = tab.ask(LONG)
    page = tab.page
    entry = tab.after(page.get_by_role("button", name="Leave out Kosovo").click)
    kept = [d for d in engine.retrieve(LONG, 5) if d.title != "Kosovo"]
    expected = engine.generate(LONG, documents=kept, n_docs=4)
    assert page.inner_text("#words") == expected.text.strip() != first["answer"]["answer"].strip()
    assert page.locator(".passage h3").all_inner_texts() == [d.title for d in kept]
    assert entry["answer"]["flags"] == list(expected.flags)
    assert "Another answer than before" in page.inner_text("#comparison")
    assert tab.evaluate("document.activeElement.id") == "passages-title"
    tab.after(page.get_by_role("button", name="Put back Kosovo").click)
    assert page.inner_text("#words") == first["answer"]["answer"].strip()
    page.locator("#history li").last.get_by_role("button").click()
    assert page.locator("#comparison").is_hidden()
    assert page.locator("#history [aria-current]").count() == 1


def test_numbers_of_passages_and_beams_are_asked(tab: "Tab", engine: RagEngine) -> None:
    entry = tab.ask(QUESTION, n_docs=2, num_beams=2)
    expected = engine.generate(QUESTION, n_docs=2, num_beams=2, num_return_sequences=2)
    assert entry["answer"]["log_prob"] == pytest.approx(expected.log_prob, abs=1e-5)
    assert len(entry["answer"]["hypotheses"]) == len(entry["answer"]["documents"]) == 2
    tab.ask(QUESTION, n_docs=3)
    assert tab.page.locator(".passage").count() == 3
    assert "2 passages, 2 beams" in tab.page.inner_text("#comparison")


def test_history_outlives_a_reload_and_can_be_cleared(tab: "Tab") -> None:
    tab.ask(QUESTION)
    tab.open()
    assert "Reykjav" in tab.page.inner_text("#words")
    assert tab.page.input_value("#question") == QUESTION
    tab.page.click("#forget")
    assert tab.history() == []
    assert tab.page.locator("#history-section").is_hidden()


def test_another_index_answers_and_scripts_in_it_are_text(tab: "Tab", served: Served) -> None:
    tab.ask(QUESTION)
    dialogs: list[str] = []
    tab.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    headers = {"Authorization": f"Bearer {ADMIN}"}
    assert served.post("/admin/index", {"path": "hostile"}, **headers).status == 200
    try:
        tab.ask(QUESTION)
        page = tab.page
        page.locator("#served", has_text="2 passages").wait_for()
        assert set(page.locator(".passage h3").all_inner_texts()) == {SCRIPT, "Peru"}
        assert "".join(page.locator(".passage .text").all_inner_texts()).count(SCRIPT) == 1
        (metadata,) = page.locator(".metadata").all()
        assert metadata.locator("dt").all_inner_texts() == ["owner", "year"]
        assert metadata.locator("dd").all_inner_texts() == [SCRIPT, "2026"]
        page.hover(".word")
        page.locator("summary", has_text="curl").click()
        assert page.locator("main img, main script").count() == 0
        assert dialogs == []
        assert "Only 2 documents were there" in page.inner_text("#confidence")
        entry = tab.after(page.get_by_role("button", name="Leave out Peru").click)
        assert entry["answer"]["documents"][0]["metadata"] == {"owner": SCRIPT, "year": "2026"}
        assert page.locator(".metadata").count() == 1
        assert f'metadata={{"owner":"{SCRIPT}","year":"2026"}}' in (page.text_content("#code") or "")
    finally:
        served.post("/admin/index", {"path": "large"}, **headers)
    tab.ask(QUESTION)
    assert tab.page.locator(".passage").count() == 5


def test_an_error_is_shown_and_the_page_goes_on(tab: "Tab") -> None:
    page = tab.page
    tab.evaluate("document.querySelector('[name=n_docs]').removeAttribute('max')")  # as of a server before
    page.fill("[name=n_docs]", "1000")
    page.fill("#question", QUESTION)
    page.click("#submit")
    page.locator("[name=n_docs][aria-invalid]").wait_for()
    assert page.inner_text("#error").startswith("n_docs is 1000, and this server allows at most 100")
    page.fill("[name=n_docs]", "5")
    page.fill("#question", "x" * 60_000)
    page.click("#submit")
    page.locator("#error", has_text="50000").wait_for()
    page.context.set_offline(True)
    page.fill("#question", QUESTION)
    page.click("#submit")
    page.locator("#error", has_text="cannot be reached").wait_for()
    page.context.set_offline(False)
    assert tab.violations() == []
    assert all("Failed to load resource" in complaint for complaint in tab.complaints)
    assert len(tab.complaints) == 3  # the browser's own lines of three failed requests
    tab.complaints.clear()
    tab.ask(QUESTION)
    assert page.locator("#error").is_hidden()
    assert page.locator("[aria-invalid]").count() == 0


def test_what_cannot_be_asked_is_not_sent(tab: "Tab") -> None:
    page, before = tab.page, len(tab.requested)
    for question, n_docs in ((" ", "5"), (QUESTION, "1000"), (QUESTION, "")):
        page.fill("#question", question)
        page.fill("[name=n_docs]", n_docs)
        page.click("#submit")
        assert page.locator("#ask :invalid:not(fieldset)").count() == 1
    assert len(tab.requested) == before


def test_the_page_waits_until_models_are_loaded(browser: "Browser", served: Served) -> None:
    from tests.support.browser import Tab

    with browser.new_context() as context:
        tab = Tab.of(context.new_page(), served.url)
        loading = '{"error": {"type": "loading", "message": "The server is loading.", "field": null}}'
        tab.page.route(
            "**/info",
            lambda route: route.fulfill(status=503, headers={"Retry-After": "1"}, body=loading),
            times=1,
        )
        tab.page.goto(served.url)
        tab.page.locator("#error", has_text="The server is loading. Try again in 1 s.").wait_for()
        tab.page.locator("[name=n_docs]:valid").wait_for()
        assert tab.page.locator("#error").is_hidden()


def test_a_question_can_be_stopped(tab: "Tab", served: Served) -> None:
    page = tab.page
    page.route("**/v1/answer", lambda route: None)  # the network swallows it
    page.fill("#question", QUESTION)
    page.click("#submit")
    page.locator("#submit", has_text="Stop").click()
    page.locator("#status", has_text="Stopped").wait_for()
    page.unroute_all()
    tab.ask(QUESTION)


def test_a_stream_that_breaks_off_is_an_error(tab: "Tab") -> None:
    page = tab.page
    first = tab.ask(QUESTION)
    token = '{"id": 1, "text": "Ro", "log_prob": -1, "posterior": []}'
    broken = f'event: documents\ndata: {{"documents": []}}\n\nevent: token\ndata: {token}\n\n'
    page.route(
        "**/v1/answer", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=broken)
    )
    page.fill("[name=num_beams]", "1")
    page.click("#submit")
    page.locator("#error", has_text="ended before the answer did").wait_for()
    assert page.inner_text("#words") == first["answer"]["answer"].strip()
    page.unroute_all()


def test_a_key_is_asked_for(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.support.browser import Tab

    keys = write_keys(tmp_path_factory.mktemp("keys") / "api", "a-key-for-the-clients")
    with running(api_key_file=keys) as guarded, browser.new_context() as context:
        tab = Tab.of(context.new_page(), guarded.url)
        tab.page.goto(guarded.url)
        tab.page.locator("#key").fill("a-wrong-key-for-clients")
        tab.page.keyboard.press("Enter")
        tab.page.locator("#key").fill("a-key-for-the-clients")
        tab.page.keyboard.press("Enter")
        tab.page.locator("[name=n_docs]:valid").wait_for()
        tab.ask(QUESTION)
        assert "a-key-for" not in tab.page.content()
        assert all("401" in complaint for complaint in tab.complaints)
