"""`/docs` in Chromium."""

from __future__ import annotations

import pytest
from browsers import in_each_view, needs_chromium, violations
from playground_server import Server
from playwright.sync_api import Page, expect

pytestmark = needs_chromium
MAKE = "#post-v1-images-generations"


def opened(page: Page, server: Server, at: str = "") -> Page:
    page.goto(f"{server.url}/docs{at}")
    expect(page.locator("section h2").first).to_have_text("OpenAI: images")
    return page


@in_each_view
def test_a_route_shows_its_example_and_the_ranges_of_its_fields(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server)
    page.locator(f"{MAKE} summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator(f"{MAKE} pre").first).to_contain_text(f"curl -s {server.url}/v1/images")
    row = page.locator(f"{MAKE} tr", has_text="num_inference_steps")
    expect(row).to_contain_text("1 or more")
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(wide)
    assert not violations(page)


@in_each_view
def test_the_search_leaves_the_routes_that_have_all_words(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server)
    page.keyboard.press("/")
    page.keyboard.type("cancel job")
    expect(page.locator("#found")).to_contain_text("routes")
    expect(page.locator("#delete-v1-jobs-job-id")).to_be_visible()
    expect(page.locator(MAKE)).to_be_hidden()
    page.fill("#search", "zzzz")
    expect(page.locator("#found")).to_have_text("No route has these words.")


def test_a_link_to_a_route_opens_it_and_it_can_be_tried(page: Page, server: Server) -> None:
    opened(page, server, "#get-version")
    expect(page.locator("#get-version")).to_have_attribute("open", "")
    page.locator("#get-version").get_by_role("button", name="Send").click()
    expect(page.locator("#get-version pre").last).to_contain_text('"version"')


def test_what_stands_above_leads_back_to_the_playground(page: Page, server: Server) -> None:
    opened(page, server).get_by_role("link", name="Playground").click()
    expect(page).to_have_url(f"{server.url}/")


@pytest.mark.parametrize("view", ["desktop", "phone"])
def test_the_operators_page_is_accessible(page: Page, server: Server, view: str) -> None:
    page.goto(f"{server.url}/operator")
    expect(page.locator("#shown")).to_be_visible()
    assert not violations(page)
