"""The operator's page in Chromium."""

from __future__ import annotations

from typing import Any

import httpx2
from browsers import StartServer, in_each_view, needs_chromium
from http_serving import IMAGES
from playwright.sync_api import Page, expect

from multimodal_gen.errors import GenerationFailed

pytestmark = needs_chromium


def ask_for(url: str, prompt: str) -> None:
    body = {"prompt": prompt, "run_in_background": True}
    httpx2.post(url + IMAGES, json=body).raise_for_status()


@in_each_view
def test_the_state_is_shown_and_renews_itself(
    page: Page, start_server: StartServer, view: str
) -> None:
    server = start_server()
    page.goto(f"{server.url}/operator")
    expect(page.locator("#state")).to_contain_text("Ready")
    expect(page.locator("#failures")).to_contain_text("None since")
    ask_for(server.url, "a heart")
    assert server.has("a heart")
    server.engine.fail("a heart", GenerationFailed("it went wrong"))
    expect(page.locator("#failures")).to_contain_text("it went wrong")
    expect(page.locator("#keys")).to_contain_text("anonymous")
    expect(page.locator("#memory")).to_contain_text("3.00 GiB")
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(wide)


@in_each_view
def test_the_key_is_asked_for_and_a_wrong_one_is_told_by_keyboard_alone(
    page: Page, start_server: StartServer, console: Any, view: str
) -> None:
    console.expected = ("401", "403")
    server = start_server(api_key="key-of-all", admin_key="key-of-admin")
    page.goto(f"{server.url}/operator")
    expect(page.locator("#key")).to_be_focused()
    for key in ("key-of-all", "key-of-admin"):
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        if key == "key-of-all":
            expect(page.locator("#problem")).to_contain_text("not the administrator key")
            expect(page.locator("#shown")).to_be_hidden()
    expect(page.locator("#shown")).to_be_visible()
    expect(page.locator("#keys")).to_contain_text("default")
    page.reload()
    expect(page.locator("#shown")).to_be_visible()
    assert "key-of-admin" not in page.content()


def test_a_pause_stops_renewing_and_its_end_renews_at_once(
    page: Page, start_server: StartServer
) -> None:
    server = start_server()
    page.goto(f"{server.url}/operator")
    expect(page.locator("#shown")).to_be_visible()
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
    ask_for(server.url, "a heart")
    assert server.has("a heart")
    expect(page.locator("#priorities")).to_contain_text("No requests now.")
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator("#priorities")).to_contain_text("normal")
