"""Prompts, presets, settings and keys of the playground, in a real Chromium."""

from __future__ import annotations

from browsers import in_each_view, made, needs_chromium, opened, value
from playground_server import Server
from playwright.sync_api import Page, expect

pytestmark = [needs_chromium, in_each_view]


def settings(page: Page) -> None:
    page.evaluate("document.getElementById('settings').open = true")


def test_arrow_up_brings_back_prompts_and_favourites_come_first(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    for prompt in ("a boat", "a tree"):
        made(page, server, prompt)
    page.fill("#prompt", "")
    page.focus("#prompt")
    page.keyboard.press("ArrowUp")
    assert value(page, "prompt") == "a tree"
    page.keyboard.press("ArrowUp")
    assert value(page, "prompt") == "a boat"
    page.keyboard.press("ArrowDown")
    assert value(page, "prompt") == "a tree"
    page.click("#open-prompts")
    page.click("[aria-label='Favourite: a boat']")
    page.keyboard.press("Escape")
    page.click("#open-prompts")
    expect(page.locator(".prompts .prompt")).to_have_text(["a boat", "a tree"])
    page.click("[aria-label='Forget: a tree']")
    expect(page.locator(".prompts .prompt")).to_have_text(["a boat"])


def test_settings_survive_a_reload_until_they_are_reset(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    settings(page)
    page.fill("#prompt", "a boat")
    page.fill("#num_inference_steps", "7")
    page.select_option("#priority", "high")
    opened(page, server.url)
    assert value(page, "prompt") == "a boat"
    assert (value(page, "num_inference_steps"), value(page, "priority")) == ("7", "high")
    settings(page)
    page.click("#reset")
    opened(page, server.url)
    assert (value(page, "num_inference_steps"), value(page, "priority")) == ("20", "normal")


def test_a_preset_brings_settings_back_by_name(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    settings(page)
    page.fill("#num_inference_steps", "5")
    page.click("#preset-save")
    page.fill("#preset-name", "quick")
    page.keyboard.press("Enter")
    page.click("#reset")
    assert value(page, "num_inference_steps") == "20"
    page.reload()
    expect(page.locator("#make")).to_be_enabled()
    settings(page)
    page.select_option("#presets", "quick")
    assert value(page, "num_inference_steps") == "5"
    made(page, server, "a boat", num_inference_steps=5)


def test_keys_act_outside_of_fields_only(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    page.focus("#prompt")
    page.keyboard.type("what?x")
    assert value(page, "prompt") == "what?x"
    expect(page.locator("#keys")).to_be_hidden()
    page.focus("#make")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.focus("#make")
    page.keyboard.press("x")
    expect(page.locator("#grid-panel")).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#prompt")).to_be_focused()
