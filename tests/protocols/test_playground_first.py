"""The first minutes in the playground: ideas for prompts, and what the model makes of words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browsers import StartServer, in_each_view, make, needs_chromium, opened, value, violations
from playground_server import Server
from playwright.sync_api import Page, expect

pytestmark = needs_chromium


@pytest.fixture
def silent(tmp_path: Path) -> str:
    """A checkpoint that has no examples."""
    (tmp_path / "silent").mkdir()
    (tmp_path / "silent" / "model_index.json").write_text("{}")
    return str(tmp_path / "silent")


@in_each_view
def test_an_example_on_the_empty_stage_is_written_into_the_prompt(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    example = page.locator("#well").get_by_role("button", name="a dog on a blue background")
    expect(example.locator("img")).to_have_js_property("naturalWidth", 96)
    example.click()
    assert value(page, "prompt") == "a dog on a blue background"
    page.keyboard.press("Enter")
    assert server.has("a dog on a blue background")
    server.finish("a dog on a blue background")
    expect(page.locator("#well .first-look")).to_have_count(0)
    expect(page.locator("#well button img")).to_be_visible()


@in_each_view
def test_what_the_model_knows_is_searched_and_written_by_keyboard(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.fill("#prompt", "a dog and a")
    page.focus("#open-ideas")
    page.keyboard.press("Enter")
    expect(page.locator("#known-count")).to_contain_text("728 of 728 things")
    assert not violations(page)
    page.locator("#search-known").focus()
    page.keyboard.type("margherita")
    page.keyboard.press("Control+A")
    page.keyboard.type("aeroplane")
    expect(page.locator("#known li")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#ideas")).to_be_hidden()
    assert value(page, "prompt") == "a dog and a airplane"
    assert page.evaluate("document.activeElement.id") == "prompt"


@in_each_view
def test_words_that_the_model_does_not_know_are_marked_while_typing(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.locator("#prompt").press_sequentially("two rockets beside a quizzle and a 'piz")
    expect(page.locator("#marks mark")).to_have_text(["quizzle"])
    expect(page.locator("#unknown-words")).to_have_text(
        "The model doesn't know: quizzle. A red question mark means: a word it doesn't know."
    )
    assert not violations(page)
    for edge in ("top", "left", "width"):
        script = f"id => document.getElementById(id).getBoundingClientRect().{edge}"
        assert page.evaluate(script, "marks") == page.evaluate(script, "prompt")
    page.fill("#prompt", "a rocket")
    expect(page.locator("#unknown-words")).to_be_hidden()
    expect(page.locator("#marks mark")).to_have_count(0)


def test_a_model_without_examples_has_no_ideas(
    page: Page, start_server: StartServer, silent: str
) -> None:
    opened(page, start_server(model_path=silent).url)
    expect(page.locator("#well")).to_have_text("Results appear here.")
    expect(page.locator("#open-ideas")).to_be_hidden()
    page.fill("#prompt", "a quizzle")
    page.locator("#prompt").blur()
    expect(page.locator("#unknown-words")).to_be_hidden()


def test_the_page_can_be_installed_as_an_app(page: Page, server: Server) -> None:
    opened(page, server.url)
    client = page.context.new_cdp_session(page)
    manifest = client.send("Page.getAppManifest")
    assert manifest["url"] == f"{server.url}/playground/manifest.webmanifest"
    assert not manifest["errors"]
    found = json.loads(manifest["data"])
    start = page.evaluate(
        "([path, base]) => new URL(path, base).href", [found["start_url"], manifest["url"]]
    )
    assert start == f"{server.url}/"
    why_not = client.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [each["errorId"] for each in why_not] == ["in-incognito"]  # as all windows of tests are
    for icon in found["icons"]:
        url = f"{server.url}/playground/{icon['src']}"
        assert page.request.get(url).headers["content-type"] == icon["type"]


def test_the_title_tells_how_far_the_work_is(page: Page, server: Server) -> None:
    opened(page, server.url)
    expect(page).to_have_title("owner/name · multimodal_gen")
    make(page, server, "a rocket")
    server.preview("a rocket", 5, gray=90)
    expect(page).to_have_title("25 % · owner/name · multimodal_gen")
    server.finish("a rocket")
    expect(page).to_have_title("owner/name · multimodal_gen")


@in_each_view
def test_the_page_leads_to_the_documentation_of_the_api(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.get_by_role("link", name="API").click()
    expect(page).to_have_url(f"{server.url}/docs")


@in_each_view
def test_tokens_are_counted_while_typing_and_what_will_be_cut_is_told(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.evaluate("document.getElementById('settings').open = true")
    expect(page.locator("#tokens")).to_be_hidden()
    page.fill("#prompt", "a red heart and a rocket")
    page.fill("#max_sequence_length", "16")
    expect(page.locator("#tokens")).to_have_text("8 of 16 tokens")
    page.fill("#max_sequence_length", "7")
    expect(page.locator("#tokens")).to_have_text("8 of 7 tokens")
    expect(page.locator("#cut-words")).to_have_text("The model will not read: “rocket”")
    assert not violations(page)
    page.fill("#prompt", "")
    expect(page.locator("#tokens")).to_be_hidden()
    expect(page.locator("#cut-words")).to_be_hidden()


@in_each_view
def test_what_stands_before_the_prompt_is_reached_by_keyboard(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.focus("#prompt")
    reached = []
    for _ in range(6):
        page.keyboard.press("Shift+Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.text"))
    assert {"open-ideas", "language", "API"} <= set(reached)


def test_when_the_page_is_first_painted(page: Page, server: Server) -> None:
    opened(page, server.url)
    script = "performance.getEntriesByName('first-contentful-paint').map(each => each.startTime)"
    (painted,) = page.evaluate(script)
    print(f"first contentful paint after {painted:.0f} ms")  # no limit: the machine may be busy
    assert painted > 0


@in_each_view
def test_the_prompt_stays_at_hand_while_looking_back(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    page.evaluate("document.body.style.minHeight = '4000px'")
    page.evaluate("document.querySelector('main').style.minHeight = '4000px'")
    page.evaluate("window.scrollTo(0, 1000)")
    at = page.evaluate("document.getElementById('prompt').getBoundingClientRect().top")
    assert (at > 0) == ("desktop" in view)
