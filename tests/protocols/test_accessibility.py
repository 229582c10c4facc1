"""axe finds no violation, whatever the pages show."""

from __future__ import annotations

from browsers import (
    Console,
    StartServer,
    in_each_view,
    made,
    make,
    needs_chromium,
    opened,
    violations,
)
from playground_server import FRAMES, Server
from playwright.sync_api import Page, expect

from multimodal_gen.errors import OutOfMemory

pytestmark = [needs_chromium, in_each_view]

OPEN_ALL = "for (const each of document.querySelectorAll('details')) each.open = true"


def test_the_first_look(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    assert not violations(page)


def test_results_tabs_and_the_viewer(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    page.evaluate(OPEN_ALL)
    made(page, server, "a red heart", n=2)
    for tab in page.locator("#tabs button:visible").all():
        tab.click()
        assert not violations(page), tab.inner_text()
    page.locator("#well button.frame").first.click()
    expect(page.locator("#viewer")).to_be_visible()
    assert not violations(page)


def test_dialogs(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    for dialog in page.locator("dialog").all():
        dialog.evaluate("each => each.showModal()")
        assert not violations(page), dialog.get_attribute("id")
        dialog.evaluate("each => each.close()")


def test_work_under_way_and_what_went_wrong(
    page: Page, server: Server, view: str, console: Console
) -> None:
    opened(page, server.url)
    page.evaluate(OPEN_ALL)
    make(page, server, "a pizza")
    server.engine.fail("a pizza", OutOfMemory("no memory is left"))
    expect(page.locator("#error")).to_be_visible()
    make(page, server, "a rocket")
    make(page, server, "a dog")
    server.preview("a rocket", 5, gray=90)
    page.fill("#width", "100")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".wrong")).to_be_visible()
    assert not violations(page)


def test_a_form_of_videos_with_all_its_inputs(
    page: Page, start_server: StartServer, view: str
) -> None:
    opened(page, start_server(model=FRAMES).url)
    page.evaluate(OPEN_ALL)
    assert not violations(page)


def test_a_key_is_asked_for(
    page: Page, start_server: StartServer, view: str, console: Console
) -> None:
    page.goto(start_server(api_key="secret").url)
    expect(page.locator("#key")).to_be_visible()
    assert not violations(page)


def test_the_documentation_of_the_api(page: Page, server: Server, view: str) -> None:
    page.goto(f"{server.url}/docs")
    page.locator("details summary").first.click()
    expect(page.locator("details[open]").first).to_be_visible()
    assert not violations(page)


def test_the_operators_page(
    page: Page, start_server: StartServer, view: str, console: Console
) -> None:
    console.expected = ("403",)  # what says that a key is needed
    page.goto(f"{start_server(admin_key='admin').url}/operator")
    expect(page.locator("#key")).to_be_visible()
    assert not violations(page)
    page.fill("#key", "admin")
    page.keyboard.press("Enter")
    expect(page.locator("#shown")).to_be_visible()
    assert not violations(page)
