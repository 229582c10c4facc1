"""The playground's grid of images over settings, in a real Chromium."""

from __future__ import annotations

import io

import pytest
from browsers import in_each_view, needs_chromium, opened
from PIL import Image
from playground_server import Server
from playwright.sync_api import Page, expect

pytestmark = [needs_chromium, in_each_view]


def grid(page: Page, server: Server, x: tuple[str, str], y: tuple[str, str]) -> None:
    opened(page, server.url)
    page.fill("#prompt", "a red heart")
    page.click("#tab-grid-panel")
    for axis, (name, values) in (("x", x), ("y", y)):
        page.select_option(f"#grid-{axis}", name)
        page.fill(f"#grid-{axis}-values", values)


def sent(page: Page, server: Server) -> None:
    """Two seeds of two prompts."""
    grid(page, server, ("seed", "3-4"), ("prompt", "red, blue"))
    page.click("#grid-make")
    assert server.has("a red heart", 2)
    assert server.has("a blue heart", 2)


def finish(server: Server) -> None:
    for prompt in ("a red heart", "a blue heart"):
        server.finish(prompt)


def test_a_grid_is_counted_sent_at_once_and_saved_as_one_picture(
    page: Page, server: Server, view: str
) -> None:
    grid(page, server, ("seed", "3-4"), ("prompt", "red, blue"))
    expect(page.locator("#grid-count")).to_contain_text("2 × 2 = 4 images")
    page.click("#grid-make")
    assert server.has("a red heart", 2)
    assert server.has("a blue heart", 2)
    seeds = sorted(req.params.seed or 0 for req in server.engine.alive.values())
    assert seeds == [3, 3, 4, 4]
    finish(server)
    expect(page.locator("#grid-state")).to_contain_text("4 images in")
    expect(page.locator(".cell button img")).to_have_count(4)
    with page.expect_download() as download:
        page.click("#grid-save")
    with Image.open(io.BytesIO(download.value.path().read_bytes())) as picture:
        assert picture.width > 2 * 96
    page.click("#grid-table [aria-label^='View: Seed 4, Words of the prompt blue']")
    expect(page.locator("#facts")).to_contain_text("a blue heart")


@pytest.mark.parametrize(
    ("values", "told"),
    [("1-x", "is not a number"), ("0.5", "is not a whole number"), ("1-300", "too many")],
)
def test_values_that_can_not_be_are_told_before_anything_is_sent(
    page: Page, server: Server, view: str, values: str, told: str
) -> None:
    opened(page, server.url)
    page.click("#tab-grid-panel")
    page.fill("#grid-x-values", values)
    expect(page.locator("#grid-count")).to_contain_text(told)
    expect(page.locator("#grid-make")).to_be_disabled()
    assert server.engine.prompts == []


def test_a_grid_goes_on_after_a_reload(page: Page, server: Server, view: str) -> None:
    sent(page, server)
    expect(page.locator("#grid-state")).to_have_text("0 of 4 images")
    page.reload()
    page.click("#tab-grid-panel")
    expect(page.locator(".cell")).to_have_count(4)
    finish(server)
    expect(page.locator(".cell button img")).to_have_count(4)
    assert server.engine.prompts == []


def test_a_grid_is_cancelled_as_a_whole(page: Page, server: Server, view: str) -> None:
    sent(page, server)
    page.click("#grid-cancel")
    expect(page.locator(".inside[data-state=cancelled]")).to_have_count(4)
    assert server.has("a red heart", 0)
    assert server.has("a blue heart", 0)
    page.click("#grid-retry")
    assert server.has("a blue heart", 2)


def test_previews_of_cells_and_of_the_queue_are_live(page: Page, server: Server, view: str) -> None:
    grid(page, server, ("prompt", "red, blue"), ("seed", "5"))
    page.click("#grid-make")
    assert server.has("a red heart")
    assert server.has("a blue heart")
    for prompt in ("a red heart", "a blue heart"):
        server.preview(prompt, 4, 90)
    expect(page.locator(".cell img")).to_have_count(2)
    expect(page.locator("#waiting img.thumb:visible")).to_have_count(1)
    finish(server)
