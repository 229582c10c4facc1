"""The playground's timeline of what the scheduler does, in a real Chromium."""

from __future__ import annotations

from browsers import in_each_view, make, needs_chromium, opened, violations
from http_serving import eventually
from playground_server import Server
from playwright.sync_api import Page, expect

pytestmark = [needs_chromium, in_each_view]


def test_the_timeline_tells_who_shares_a_step_and_who_is_interrupted(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.click("#tab-timeline-panel")
    scene = page.locator("#timeline-scene")
    for prompt in ("one", "two"):
        make(page, server, prompt)
        server.share(prompt, 3, 2)
    expect(scene).to_contain_text("2 requests share each step")
    server.share("one", 3, 0)
    server.share("two", 4, 1)
    expect(scene).to_contain_text("“two” has the model to itself.")
    expect(scene).to_contain_text("“one” is interrupted")
    for prompt in ("one", "two"):
        server.finish(prompt)
    expect(scene).to_have_text("Nothing runs now.")


def test_the_timeline_is_read_by_keyboard_and_as_a_table(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.click("#tab-timeline-panel")
    make(page, server, "one")
    server.share("one", 3, 4)
    expect(page.locator("#timeline-scene")).to_contain_text("4 requests share")
    page.focus("#timeline")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#timeline-spot")).to_contain_text("one: steps shared by 4 requests")
    page.keyboard.press("Space")
    expect(page.locator("#timeline-pause")).to_have_attribute("aria-pressed", "true")
    page.click("#timeline-text summary")
    expect(page.locator("#timeline-text tbody tr")).to_contain_text(["one"])
    server.finish("one")


def test_the_demonstration_sends_long_requests_and_an_urgent_one(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    page.click("#tab-timeline-panel")
    for button in page.locator("#timeline-panel .tools button:visible").all():
        assert button.evaluate("each => each.scrollWidth <= each.clientWidth")
    page.click("#timeline-demo")
    assert eventually(lambda: len(server.engine.alive) == 4)
    asked = {req.params.prompt: req.params for req in server.engine.alive.values()}
    assert sorted(params.priority for params in asked.values()) == ["high", "low", "low", "low"]
    for prompt in asked:
        server.finish(prompt)


def test_the_grid_the_timeline_and_their_dialogs_have_no_violations(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    make(page, server, "one")
    server.share("one", 3, 2)
    page.click("#tab-timeline-panel")
    page.click("#timeline-text summary")
    assert not violations(page)
    page.click("#tab-grid-panel")
    page.fill("#grid-x-values", "1-2")
    page.click("#grid-make")
    expect(page.locator(".cell")).to_have_count(2)
    assert not violations(page)
    for button in ("#open-keys", "#open-prompts"):
        page.click(button)
        assert not violations(page)
        page.keyboard.press("Escape")
    page.click("#grid-cancel")
    server.finish("one")
