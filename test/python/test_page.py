"""The page for trying the server out, in headless Chromium where there is one."""

import re

import pytest

pytest.importorskip("fastapi")

from browser import BROWSER, browse
from moa.serving.server import PAGE, Settings
from served import idle, planned, serving

needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")


def test_the_page_is_one_file():
    text = PAGE.read_text()
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", text)


@pytest.fixture(scope="module")
def loaded():
    return planned()


@pytest.fixture
def page(tmp_path):
    with browse(tmp_path) as found:
        yield found


def write(page, text, tokens):
    """As a user: fills the fields and clicks."""
    page.run(f"by('text').value = {text!r}; by('max').value = {tokens}; by('send').click()")


TURNS = (
    "[...document.querySelectorAll('.turn')].map(turn => [turn.className, turn.textContent])"
)
DONE = "!by('send').disabled"


@needs_browser
@pytest.mark.parametrize("template", [True, False])
def test_a_message_is_answered(page, loaded, monkeypatch, template):
    if not template:
        monkeypatch.setattr("served.TEMPLATE", None)
    with serving(loaded) as (address, engine):
        page.open(f"{address}/?q=Hello%20%3Cb%3E")
        page.until(f"{DONE} && document.querySelectorAll('.count').length == 1")
        assert page.run("by('model').textContent") == "tiny"
        user, answer = page.run(TURNS)
        assert user == ["turn user", "Hello <b>"]
        assert answer[0] == "turn assistant" and answer[1]
        told = page.run("document.querySelector('.count').textContent")
        assert re.fullmatch(
            r"\d+ \+ \d+ tokens in [0-9.]+ s; KV cache [0-9.]+ MiB, \d+ % of dense", told
        )
        assert engine.counters.ended["stop"] + engine.counters.ended["length"] == 1


@needs_browser
def test_a_conversation_that_is_stopped_and_begun_anew(page, loaded):
    with serving(loaded) as (address, engine):
        page.open(f"{address}/")
        page.until("model !== null")
        write(page, "one", 5)
        page.until(f"{DONE} && {TURNS}.length == 2")
        write(page, "two", 900)
        page.until("turns.length == 3 && document.querySelectorAll('.assistant').length == 2")
        page.run("by('stop').click()")
        page.until(f"{DONE} && turns.length == 4")
        assert idle(engine)["pages"]["pages_used"] == 0
        page.run("by('clear').click()")
        assert page.run("turns.length") == page.run(f"{TURNS}.length") == 0
        write(page, "x" * 1100, 5)
        page.until(f"{DONE} && document.querySelectorAll('.error').length == 1")
        assert "the maximum context length is 1024" in page.run(TURNS)[1][1]
        assert page.run("turns.length") == 0


@needs_browser
def test_a_key_is_asked_for(page, loaded):
    with serving(loaded, Settings("tiny", api_key="secret")) as (address, _):
        page.open(f"{address}/")
        page.until("by('status').textContent.includes('API key is missing')")
        page.run("by('key').value = 'secret'; by('key').dispatchEvent(new Event('change'))")
        page.until("model !== null")
        write(page, "one", 5)
        page.until(f"{DONE} && {TURNS}.length == 2")
        assert page.run(TURNS)[1][0] == "turn assistant"
