"""The playground's inputs: pictures and videos, LoRAs, controls, upscaling and the model, in a real
Chromium."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from browsers import (
    Console,
    StartServer,
    drop,
    in_each_view,
    made,
    make,
    needs_chromium,
    opened,
    png,
    value,
    violations,
)
from playground_server import FRAMES, PICTURES, SEVERAL, WIDTH, Server
from playwright.sync_api import FilePayload, Page, Route, expect
from safetensors.torch import save_file

from multimodal_gen.postprocess.video import encode_mp4

pytestmark = [needs_chromium, in_each_view]


def form(page: Page, server: Server) -> None:
    opened(page, server.url)
    page.evaluate("document.getElementById('settings').open = true")


def files(*sizes: int) -> list[FilePayload]:
    return [{"name": f"{n}.png", "mimeType": "image/png", "buffer": png(n, n)} for n in sizes]


def sent_widths(page: Page, server: Server) -> list[int]:
    make(page, server, "all of them")
    (req,) = server.engine.alive.values()
    return [each.shape[1] for each in server.engine.pictures[req.id]]


def test_pictures_are_moved_forward_by_button(page: Page, start_server: StartServer) -> None:
    server = start_server(model=SEVERAL)
    form(page, server)
    page.set_input_files("#image", files(32, 33, 34))
    page.get_by_role("button", name="Move image 3 forward").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Move image 2 forward")).to_be_focused()
    page.keyboard.press("Enter")
    assert sent_widths(page, server) == [34, 32, 33]


def test_pictures_are_dragged_to_another_place(page: Page, start_server: StartServer) -> None:
    server = start_server(model=SEVERAL)
    form(page, server)
    page.set_input_files("#image", files(32, 33, 34))
    expect(page.locator("#used > div")).to_have_count(3)
    page.locator("#image-pick img").drag_to(page.locator("#more-images .pick").last)
    assert sent_widths(page, server) == [33, 34, 32]


def test_inputs_and_their_size_survive_a_reload_and_end_with_a_reset(
    page: Page, server: Server
) -> None:
    form(page, server)
    page.set_input_files("#image", files(32))
    page.click("#edit-image")
    expect(page.locator("#board")).to_be_focused()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.click("#edit-use")
    expect(page.locator("#used")).to_contain_text("Input image, painted")
    size = value(page, "width"), value(page, "height")
    kept(page, "given.mask")
    page.reload()
    expect(page.locator("#used")).to_contain_text("Input image, painted")
    expect(page.locator("#width")).to_have_value(size[0])
    assert sent_widths(page, server) == [48, 48]
    page.evaluate("document.getElementById('settings').open = true")
    page.click("#reset")
    kept(page, "null")
    page.reload()
    expect(page.locator("#make")).to_be_enabled()
    page.evaluate("saved")
    expect(page.locator("#used")).to_be_hidden()


def kept(page: Page, mask: str) -> None:
    """Wait until the browser has stored a mask."""
    script = """async () => {
        for (;;) {
            const store = (await drafts).transaction("inputs").objectStore("inputs");
            const found = await new Promise((done) => {
                store.get("now").onsuccess = (event) => done(event.target.result);
            });
            if (found && found.mask === (MASK)) return;
        }
    }"""
    page.evaluate(script.replace("MASK", mask))


def test_a_video_is_shown_by_its_first_frame(page: Page, start_server: StartServer) -> None:
    form(page, start_server(model=FRAMES))
    clip = encode_mp4(np.full((5, 32, 48, 3), 200, np.uint8), 8)
    drop(page, "#video-pick", clip, "a.mp4", "video/mp4")
    expect(page.locator("#video-pick img")).to_have_js_property("naturalWidth", 48)
    expect(page.locator("#used img")).to_have_js_property("naturalWidth", 48)


def test_results_are_dropped_on_inputs(page: Page, server: Server) -> None:
    form(page, server)
    made(page, server, "a red heart", seed=9)
    script = """() => {
        const dropped = new DataTransfer();
        dropped.setData("text/uri-list", document.querySelector("#gallery img").src);
        return dropped;
    }"""
    for event in ("dragover", "drop"):
        given = {"dataTransfer": page.evaluate_handle(script)}
        page.dispatch_event("#image-pick", event, given)
    expect(page.locator("#image-pick img")).to_have_js_property("naturalWidth", WIDTH)


def test_a_video_that_was_made_becomes_the_input(page: Page, start_server: StartServer) -> None:
    server = start_server(model=FRAMES)
    form(page, server)
    make(page, server, "a rocket", num_frames=5)
    server.finish("a rocket", frames=5)
    page.locator("#gallery button").first.click()
    page.locator("#viewer").get_by_role("button", name="Use as input").click()
    expect(page.locator("#used")).to_contain_text("Input video")


@pytest.fixture
def with_loras(page: Page, start_server: StartServer, tmp_path: Path) -> Server:
    folder = tmp_path / "loras"
    folder.mkdir()
    thumbnail = "data:image/png;base64," + base64.b64encode(png(50)).decode()
    for name, metadata in {
        "ink": {"modelspec.trigger_phrase": "in ink", "modelspec.architecture": "flux-1-dev"},
        "paper": {"modelspec.trigger_phrase": "cut paper", "modelspec.thumbnail": thumbnail},
    }.items():
        save_file({"x": torch.zeros(1)}, folder / f"{name}.safetensors", metadata)
    server = start_server(lora_dir=str(folder))
    form(page, server)
    return server


def test_trigger_words_go_into_the_prompt(page: Page, with_loras: Server) -> None:
    page.fill("#prompt", "a fox, ")
    page.click("#add-lora")
    expect(page.locator("#loras .hint")).to_contain_text("flux-1-dev")
    for _ in range(2):
        page.get_by_role("button", name="in ink").click()
    assert value(page, "prompt") == "a fox, in ink"
    expect(page.locator("#toast")).to_have_text("The prompt already says it.")
    page.locator("#loras select").select_option("paper")
    expect(page.locator("#loras img")).to_have_js_property("naturalWidth", 32)
    page.get_by_role("button", name="cut paper").click()
    assert value(page, "prompt") == "a fox, in ink, cut paper"


def test_loras_are_searched_and_switched_in_a_list(page: Page, with_loras: Server) -> None:
    page.click("#browse-loras")
    expect(page.locator("#lora-cards button")).to_have_count(2)
    assert not violations(page)
    page.keyboard.type("cut")
    expect(page.locator("#lora-cards button")).to_have_count(1)
    expect(page.locator("#lora-cards img")).to_have_js_property("naturalWidth", 32)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#lora-cards [aria-pressed=true]")).to_contain_text("paper")
    page.keyboard.press("Escape")
    expect(page.locator("#loras select")).to_have_value("paper")
    page.click("#browse-loras")
    page.locator("#lora-cards [aria-pressed=true]").click()
    page.click("#lora-close")
    expect(page.locator("#loras select")).to_have_count(0)


def test_a_controls_picture_is_dropped_and_shown_and_its_mode_goes_along(
    page: Page, start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "controls").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "controls" / "union.safetensors")
    server = start_server(control_dir=str(tmp_path / "controls"))
    form(page, server)
    page.click("#add-control")
    drop(page, "#controls .pick", png(), "edges.png", "image/png")
    expect(page.locator("#controls img")).to_have_js_property("naturalWidth", 32)
    page.get_by_label("Mode of the control").fill("canny")
    modes = page.locator("#control-modes option").evaluate_all("all => all.map((o) => o.value)")
    assert {"canny", "depth", "openpose"} <= {*modes}
    make(page, server, "a rocket")
    (req,) = server.engine.alive.values()
    assert [(each.name, each.mode) for each in req.params.control] == [("union", "canny")]


def test_the_size_of_an_upscaled_result_is_told(page: Page, start_server: StartServer) -> None:
    model = msgspec.structs.replace(
        PICTURES, parameters=("upscale",), upscale_ways=("second-pass",)
    )
    form(page, start_server(model=model))
    page.fill("#upscale_factor", "1.5")
    expect(page.locator("#upscale-told")).to_have_text("The result will be 144 × 144.")
    page.fill("#upscale_factor", "")
    expect(page.locator("#upscale-told")).to_be_hidden()


def other_model(page: Page, **changes: Any) -> Callable[[Route], None]:
    """Serve a second model, which differs from the first in that."""

    def answer(route: Route) -> None:
        info = {**route.fetch(url=route.request.url.split("?")[0]).json(), "models": ["a", "b"]}
        is_other = route.request.url.endswith("=b")
        route.fulfill(json={**info, "name": "a", **({"name": "b", **changes} if is_other else {})})

    page.route("**/model_info*", answer)
    return answer


def test_another_model_keeps_the_prompt_and_what_fits(page: Page, server: Server) -> None:
    other_model(page, schedulers=["unipc"], size_multiple=32, tasks=["text-to-image"])
    form(page, server)
    page.set_input_files("#image", files(32))
    for name, text in {"prompt": "a fox", "seed": "7", "width": "112", "height": "128"}.items():
        page.fill(f"#{name}", text)
    page.select_option("#scheduler", "unipc")
    page.select_option("#noise_schedule", "beta")
    page.select_option("#models", "b")
    expect(page.locator("#toast")).to_have_text(
        "b is used now. It does not take: Size, Input image"
    )
    assert (value(page, "prompt"), value(page, "seed")) == ("a fox", "7")
    assert (value(page, "width"), value(page, "height")) == ("96", "128")
    assert (value(page, "scheduler"), value(page, "noise_schedule")) == ("unipc", "beta")
    expect(page.locator("#used")).to_be_hidden()
    page.select_option("#models", "a")
    expect(page.locator("#toast")).to_have_text("a is used now, with your prompt and settings.")
    assert (value(page, "seed"), value(page, "height")) == ("7", "128")


def test_the_model_survives_a_reload_unless_it_is_gone(
    page: Page, server: Server, console: Console
) -> None:
    serve = other_model(page)
    form(page, server)
    page.select_option("#models", "b")
    expect(page.locator("#toast")).to_contain_text("b is used now")
    page.reload()
    expect(page.locator("#models")).to_have_value("b")
    console.expected = ("404",)
    page.unroute("**/model_info*", serve)
    page.reload()
    expect(page.locator("#make")).to_be_enabled()
    expect(page.locator("#error")).to_be_hidden()


def test_sizes_that_follow_the_picture_still_do_with_another_model(
    page: Page, server: Server
) -> None:
    other_model(page)
    form(page, server)
    page.set_input_files("#image", files(32))
    page.select_option("#models", "b")
    expect(page.locator("#toast")).to_have_text("b is used now, with your prompt and settings.")
    expect(page.locator("#used")).to_contain_text("Input image")
    page.get_by_role("button", name="Do without: Input image").click()
    assert (value(page, "width"), value(page, "height")) == ("96", "96")


def test_a_model_that_cant_be_loaded_changes_nothing(
    page: Page, server: Server, console: Console
) -> None:
    console.expected = ("503",)
    serve = other_model(page)
    form(page, server)
    page.fill("#seed", "7")
    error = {"error": {"message": "b can't be loaded"}}
    page.unroute("**/model_info*", serve)
    page.route("**/model_info*", lambda route: route.fulfill(status=503, json=error))
    page.select_option("#models", "b")
    expect(page.locator("#error")).to_contain_text("b can't be loaded")
    expect(page.locator("#models")).to_have_value("a")
    expect(page.locator("#make")).to_be_enabled()
    assert value(page, "seed") == "7"
