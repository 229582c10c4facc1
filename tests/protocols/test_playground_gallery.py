"""The gallery: days, stars, search, selection, deletion, comparison and more of a result."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import (
    Browser,
    StartServer,
    in_each_view,
    made,
    needs_chromium,
    violations,
)
from browsers import opened as opened_page
from http_serving import eventually
from many_results import multiply
from playground_server import VIDEOS, Server
from playwright.sync_api import Locator, Page, expect

pytestmark = needs_chromium
TILES = "#gallery li"
MANY = 2000


def opened(page: Page, url: str) -> None:
    opened_page(page, url)
    page.evaluate("$('settings').open = true")


def tile(page: Page, prompt: str) -> Locator:
    return page.locator(TILES, has_text=prompt)


def shown(page: Page) -> list[str]:
    return page.locator("#gallery p").all_inner_texts()


def star(page: Page, prompt: str) -> None:
    button = tile(page, prompt).get_by_role("button", name=f"Star: {prompt}")
    before = button.get_attribute("aria-pressed")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false" if before == "true" else "true")


def moved_back(server: Server, prompt: str, days: float) -> None:
    """As if it had been made some days ago."""
    with contextlib.closing(sqlite3.connect(server._folder / "jobs.sqlite")) as db:
        given = (time.time() - days * 86400, prompt)
        db.execute("UPDATE jobs SET created_at = ? WHERE words = ?", given)
        db.commit()


@in_each_view
def test_yesterdays_picture_is_found(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    for prompt, days in {"a house": 400, "a tree": 1, "a red heart": 0}.items():
        made(page, server, prompt)
        moved_back(server, prompt, days)
    page.reload()
    expect(page.locator("#gallery h3")).to_have_count(3)
    assert page.locator("#gallery h3").all_inner_texts()[:2] == ["Today", "Yesterday"]
    assert page.locator("#gallery section").nth(1).locator("p").inner_text() == "a tree"
    page.select_option("#finder-when", "yesterday")
    expect(page.locator(TILES)).to_have_count(1)
    assert shown(page) == ["a tree"]
    assert not violations(page)
    page.click("#finder-clear")
    expect(page.locator(TILES)).to_have_count(3)


@in_each_view
def test_prompts_are_searched(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    for prompt in ("a red heart", "a red car", "a blue car"):
        made(page, server, prompt)
    page.fill("#finder-words", "CAR red")
    expect(page.locator(TILES)).to_have_count(1)
    assert shown(page) == ["a red car"]
    page.fill("#finder-words", "nothing like it")
    expect(page.locator(TILES)).to_have_count(0)
    expect(page.locator("#gallery-hint")).to_have_text("Nothing found.")
    page.fill("#finder-words", "")
    expect(page.locator(TILES)).to_have_count(3)
    page.select_option("#finder-order", "asc")
    expect(page.locator("#gallery p").first).to_have_text("a red heart")


def test_what_is_made_while_a_search_is_shown_is_in_it_if_it_fits(
    page: Page, server: Server
) -> None:
    opened(page, server.url)
    made(page, server, "a red car")
    page.fill("#finder-words", "car")
    expect(page.locator("#finder-clear")).to_be_visible()
    made(page, server, "a blue car")
    page.fill("#prompt", "a tree")
    page.keyboard.press("Control+Enter")
    assert server.has("a tree")
    server.finish("a tree")
    expect(page.locator("#caption")).to_contain_text("a tree")
    assert shown(page) == ["a blue car", "a red car"]


@in_each_view
def test_stars_are_kept_by_the_server_and_seen_in_every_window(
    page: Page, server: Server, browser: Browser, view: str
) -> None:
    opened(page, server.url)
    made(page, server, "a red heart")
    made(page, server, "a tree")
    other = page.context.new_page()
    opened(other, server.url)
    star(page, "a red heart")
    starred = tile(other, "a red heart").locator(".star")
    expect(starred).to_have_attribute("aria-pressed", "true")
    other.click("#finder-starred")
    expect(other.locator(TILES)).to_have_count(1)
    assert shown(other) == ["a red heart"]
    page.reload()
    expect(tile(page, "a red heart").locator(".star")).to_have_attribute("aria-pressed", "true")
    tile(page, "a red heart").locator(".look").click()
    page.locator("#viewer .star").click()
    expect(page.locator("#viewer .star")).to_have_attribute("aria-pressed", "false")
    expect(other.locator(TILES)).to_have_count(0)


@in_each_view
def test_one_of_several_is_deleted_everywhere(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    made(page, server, "a rocket", n=3, seed=10)
    other = page.context.new_page()
    opened(other, server.url)
    expect(other.locator(TILES)).to_have_count(3)
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(".look").nth(1).click()
    page.locator("#viewer-acts").get_by_role("button", name="Delete").click()
    for each in (page, other):
        expect(each.locator(TILES)).to_have_count(2)
        expect(each.locator("#well img")).to_have_count(2)
    assert page.evaluate("document.activeElement.closest('.tile') !== null")
    page.locator(".look").nth(1).click()
    expect(page.locator("#facts")).to_contain_text("12")


@in_each_view
def test_several_are_starred_downloaded_and_deleted(
    page: Page, server: Server, view: str, tmp_path: Path
) -> None:
    opened(page, server.url)
    for prompt in ("a house", "a tree", "a car"):
        made(page, server, prompt, seed=5)
    page.click("#select")
    expect(page.locator("#selection-download")).to_be_disabled()
    for prompt in ("a house", "a car"):
        look = tile(page, prompt).locator(".look")
        look.tap() if view in ("phone", "light phone") else look.click()
    expect(page.locator("#selection-count")).to_have_text("2 selected")
    assert not violations(page)
    page.click("#selection-star")
    for prompt in ("a house", "a car"):
        expect(tile(page, prompt).locator(".star")).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as download:
        page.click("#selection-download")
    assert download.value.suggested_filename.endswith(".zip")
    download.value.save_as(tmp_path / "it.zip")
    assert zipfile.ZipFile(tmp_path / "it.zip").namelist() == ["a-car-5.png", "a-house-5.png"]
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#selection-delete")
    expect(page.locator(TILES)).to_have_count(1)
    assert shown(page) == ["a tree"]
    page.click("#selection-done")
    expect(page.locator("#selection")).to_be_hidden()


def test_a_range_is_selected_with_shift(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a rocket", n=6)
    ticks = page.locator(".tick")
    page.locator(".tile").nth(1).hover()
    ticks.nth(1).click()
    ticks.nth(4).click(modifiers=["Shift"])
    expect(page.locator("#selection-count")).to_have_text("4 selected")
    page.locator(".look").nth(5).click(modifiers=["Control"])
    expect(page.locator("#selection-count")).to_have_text("5 selected")
    page.click("#selection-all")
    expect(page.locator("#selection-count")).to_have_text("6 selected")


@in_each_view
def test_the_gallery_works_by_keyboard_alone(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    made(page, server, "a rocket", n=5, seed=20)
    page.locator(".look").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#selection-count")).to_have_text("3 selected")
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator("#facts")).to_contain_text("24")
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    page.keyboard.press("Delete")
    expect(page.locator(TILES)).to_have_count(4)
    assert asked == ["Permanently delete this image?"]
    page.keyboard.press("Control+a")
    expect(page.locator("#selection-count")).to_have_text("4 selected")


def test_tab_reaches_one_tile_and_then_leaves_the_gallery(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a rocket", n=8)
    page.locator(".look").nth(3).focus()
    inside = "document.activeElement.closest('.tile')?.matches(':nth-child(4)')"
    for _ in range(5):
        assert page.evaluate(inside)
        page.keyboard.press("Tab")
    for _ in range(4):
        page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('.tile')")


def pair(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a red heart", seed=1)
    made(page, server, "a red heart", seed=2, num_inference_steps=30)
    page.click("#select")
    for look in page.locator(".look").all()[:2]:
        look.click()
    page.click("#selection-compare")
    expect(page.locator("#compare")).to_be_visible()


@in_each_view
def test_two_results_are_compared(page: Page, server: Server, view: str) -> None:
    pair(page, server)
    frame = page.locator("#compare .over")
    place = page.get_by_role("slider", name="Divider")
    expect(place).to_be_focused()

    def at() -> float:
        return float(frame.evaluate("each => parseFloat(each.style.getPropertyValue('--at'))"))

    page.keyboard.press("ArrowLeft")
    assert at() == 48
    box = frame.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2
    if view in ("phone", "light phone"):
        page.touchscreen.tap(x, y)
    else:
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(x, y, steps=4)
        page.mouse.up()
    assert at() == pytest.approx(25, abs=1.5)
    rows = page.locator("#compare tbody tr").all_inner_texts()
    assert {row.split("\t")[0].strip(): row.split("\t")[1:] for row in rows} == {
        "Seed": ["2", "1"],
        "Steps": ["30", "20"],
    }
    assert not violations(page)
    page.get_by_role("button", name="Swap", exact=True).click()
    expect(page.locator("#compare tbody tr").first).to_have_text("Seed12")
    page.get_by_role("button", name="Side by side").click()
    expect(page.locator("#compare figure")).to_have_count(2)
    assert not violations(page)
    page.keyboard.press("Escape")
    expect(page.locator("#compare")).to_be_hidden()


def test_a_second_result_is_chosen_from_the_viewer(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a rocket", n=2, seed=7)
    page.locator(".look").first.click()
    page.get_by_role("button", name="Compare…").click()
    page.locator(".look").last.click()
    page.click("#selection-compare")
    expect(page.locator("#compare td").first).to_have_text("7")


def test_videos_are_compared_side_by_side(page: Page, start_server: StartServer) -> None:
    server = start_server(model=VIDEOS)
    opened(page, server.url)
    for prompt in ("a rocket", "a tree"):
        page.fill("#prompt", prompt)
        page.keyboard.press("Control+Enter")
        assert server.has(prompt)
        server.finish(prompt, frames=5)
    expect(page.locator(TILES)).to_have_count(2)
    page.click("#select")
    for look in page.locator(".look").all():
        look.click()
    page.click("#selection-compare")
    expect(page.locator("#compare video")).to_have_count(2)
    expect(page.locator("#compare .over")).to_have_count(0)


@in_each_view
def test_variations_have_the_same_settings_and_other_seeds(
    page: Page, server: Server, view: str
) -> None:
    opened(page, server.url)
    made(page, server, "a red heart", seed=9, num_inference_steps=33, negative_prompt="blue")
    page.fill("#prompt", "what I write next")
    page.fill("#num_inference_steps", "12")
    page.locator(".look").first.click()
    page.locator("#viewer").get_by_role("button", name="Variations").click()
    assert server.has("a red heart", 4)
    asked = [req.params for req in server.engine.alive.values()]
    assert {(each.num_inference_steps, each.negative_prompt) for each in asked} == {(33, "blue")}
    assert 9 not in {each.seed for each in asked}
    assert page.input_value("#prompt") == "what I write next"
    server.finish("a red heart")
    expect(page.locator("#well img")).to_have_count(4)


@in_each_view
def test_more_like_a_picture_starts_from_it(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    made(page, server, "a red heart", seed=9)
    page.locator(".look").first.click()
    page.locator("#viewer").get_by_role("button", name="More like this").click()
    assert server.has("a red heart", 4)
    req = next(iter(server.engine.alive.values()))
    assert req.params.strength == pytest.approx(0.75)
    assert [*req.pictures] == ["image"]
    server.finish("a red heart")
    expect(page.locator(TILES)).to_have_count(5)
    page.locator(".look").first.click()
    # Its input is not kept: only what starts from the result itself can be made again.
    expect(page.locator("#viewer").get_by_role("button", name="Variations")).to_have_count(0)


@in_each_view
def test_what_goes_next_is_said_in_time(page: Page, server: Server, view: str) -> None:
    opened(page, server.url)
    for prompt in ("a house", "a tree", "a car"):
        made(page, server, prompt)
    expect(page.locator("#gallery-hint")).to_contain_text("of 20 GB used")
    expect(page.locator("#space-notice")).to_be_hidden()
    star(page, "a house")
    results: Any = server.jobs.results
    results._quota = server.jobs.shelf.use(server_owner()).used
    page.reload()
    expect(page.locator("#space-notice")).to_contain_text("100% full")
    expect(tile(page, "a tree").locator(".goes")).to_be_visible()
    expect(page.locator(".goes")).to_have_count(1)
    assert not violations(page)
    page.locator("#space-notice button").click()
    expect(page.locator("#gallery p").first).to_have_text("a house")
    results._quota = 20 * 10**9


def server_owner() -> Any:
    from multimodal_gen.serving.owner import Owner

    return Owner()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with thousands of results."""
    folder = tmp_path_factory.mktemp("many")
    server = Server(folder)
    import httpx2

    body = {"prompt": "a red heart", "run_in_background": True}
    httpx2.post(f"{server.url}/v1/images/generations", json=body)
    assert server.has("a red heart")
    server.finish("a red heart")
    jobs = f"{server.url}/v1/jobs"
    assert eventually(lambda: httpx2.get(jobs).json()["data"][0]["status"] == "completed")
    server.stop()
    multiply(folder, MANY)
    server.start()
    yield server
    server.stop()


SCROLL = """async () => {
    const long = [];
    new PerformanceObserver((list) => {
        for (const each of list.getEntries()) long.push(Math.round(each.duration));
    }).observe({ type: "longtask" });
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    let most = 0, still = 0;
    while (still < 60) {
        const before = scrollY;
        scrollBy(0, innerHeight / 2);
        await frame();
        most = Math.max(most, document.querySelectorAll("#gallery li").length);
        still = scrollY === before && !asking ? still + 1 : 0;
    }
    await frame();
    return { long, most, last: shelf.items.length };
}"""


@contextlib.contextmanager
def traced(page: Page) -> Iterator[list[float]]:
    """Milliseconds of processor time of each task of the page's main thread: unlike the observer's
    durations, they don't depend on what else the machine does."""
    tasks: list[float] = []
    session = page.context.new_cdp_session(page)
    config = {"includedCategories": ["toplevel"]}
    session.send("Tracing.start", {"transferMode": "ReturnAsStream", "traceConfig": config})
    yield tasks
    ended: list[Any] = []
    session.on("Tracing.tracingComplete", lambda event: ended.append(event))
    session.send("Tracing.end")
    assert eventually(lambda: page.wait_for_timeout(50) or bool(ended), 30)
    text, part = "", {"eof": False}
    while not part["eof"]:
        part = session.send("IO.read", {"handle": ended[0]["stream"]})
        text += part["data"]
    events = json.loads(text)["traceEvents"]
    main = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    tasks += [each.get("tdur", 0) / 1000 for each in events if (each["pid"], each["tid"]) in main]


@pytest.mark.parametrize("view", ["desktop", pytest.param("phone", marks=pytest.mark.slow)])
def test_thousands_of_results_scroll_without_jank(page: Page, crowded: Server, view: str) -> None:
    opened(page, crowded.url)
    expect(page.locator(TILES).first).to_be_visible()
    with traced(page) as tasks:
        seen = page.evaluate(SCROLL)
    assert seen["last"] == MANY
    assert seen["most"] < 200
    assert len(tasks) > 500
    # No long task, but for those in which the page waited for a processor.
    assert not seen["long"] or max(tasks) < 50
    page.evaluate("$('gallery').scrollIntoView()")
    expect(page.locator(".look").first).to_be_in_viewport()


def test_arrows_go_through_what_is_not_in_the_page_yet(page: Page, crowded: Server) -> None:
    opened(page, crowded.url)
    page.locator(".look").first.focus()
    for _ in range(60):
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.closest('.tile') !== null")
    place = page.evaluate("itemAt(shelf.current) / shelf.columns")
    assert place > 30
    expect(page.locator(":focus")).to_be_in_viewport()
