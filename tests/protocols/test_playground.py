"""The page at `/`, in a real Chromium."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsers import Console, StartServer, drop, made, make, needs_chromium, opened, png, value
from http_serving import app_over, serving
from playground_server import FRAMES, HEIGHT, SEVERAL, VIDEOS, WIDTH, Server
from playwright.sync_api import (
    FilePayload,
    Page,
    expect,
)
from safetensors.torch import save_file
from sounds import chirp

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import EngineDied, OutOfMemory
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.postprocess.images import ImageFormat, encode_image
from multimodal_gen.postprocess.metadata import Recipe, read_parameters
from multimodal_gen.postprocess.video import encode_mp4

PREVIEW, PICTURE = "#well img[alt^='Preview']", "#well button.frame img"
AWKWARD = 'it\'s "a" $HOME \\ heart `id`\nwith ünïcode'

pytestmark = needs_chromium


def test_the_first_picture_takes_one_key(page: Page, engine: EngineProcess) -> None:
    engine.wait_ready(90)
    with serving(app_over(engine.client)) as url:
        page.goto(url)
        page.keyboard.press("Enter")
        expect(page.locator(PICTURE)).to_be_visible(timeout=30_000)
        expect(page.locator(PICTURE)).to_have_js_property("naturalWidth", 96)
        expect(page.locator("#gallery li")).to_have_count(1)
        page.close()


def test_the_form_has_the_models_defaults_and_limits(page: Page, server: Server) -> None:
    opened(page, server.url)
    assert (value(page, "width"), value(page, "num_inference_steps")) == ("96", "20")
    assert page.get_attribute("#height", "step") == "16"
    assert page.get_attribute("#n", "max") == "10"
    assert page.locator("#scheduler option").all_inner_texts() == ["flow_euler", "unipc"]
    for hidden in ("num_frames", "fps", "flow_shift", "lora"):
        expect(page.locator(f"#{hidden}")).to_be_hidden()


def test_only_what_differs_from_the_defaults_is_asked_for(page: Page, server: Server) -> None:
    opened(page, server.url)
    page.select_option("#scheduler", "unipc")
    page.select_option("#noise_schedule", "beta")
    make(page, server, "a rocket", width=128, seed=7, negative_prompt="blue", guidance_scale=2.5)
    (req,) = server.engine.alive.values()
    asked = req.params
    assert (asked.width, asked.height, asked.seed) == (128, 96, 7)
    assert (asked.negative_prompt, asked.guidance_scale) == ("blue", 2.5)
    assert (asked.scheduler, asked.noise_schedule) == ("unipc", "beta")


def test_a_picture_is_seen_while_it_is_made(page: Page, server: Server) -> None:
    opened(page, server.url)
    make(page, server, "a rocket")
    server.preview("a rocket", 5, gray=90)
    expect(page.locator(PREVIEW)).to_be_visible()
    expect(page.locator("#caption")).to_have_text("Step 5 of 20 · 2 s left")
    expect(page.locator("#bar")).to_have_attribute("aria-valuenow", "25")
    first = page.get_attribute(PREVIEW, "src")
    server.preview("a rocket", 10, gray=200)
    expect(page.locator(PREVIEW)).not_to_have_attribute("src", str(first))
    server.finish("a rocket")
    expect(page.locator(PICTURE)).to_be_visible()
    expect(page.locator("#bar")).to_be_hidden()
    expect(page.locator("#live")).to_have_text("Done: a rocket")


def test_cancelling_ends_the_work(page: Page, server: Server) -> None:
    opened(page, server.url)
    make(page, server, "a rocket")
    make(page, server, "a pizza")
    expect(page.locator("#waiting li")).to_have_count(1)
    expect(page.locator("#counts")).to_have_text("2 of yours, 0 of others")
    page.get_by_role("button", name="Cancel: a pizza").click()
    expect(page.locator("#queue")).to_be_hidden()
    assert server.has("a pizza", 0)
    page.get_by_role("button", name="Cancel", exact=True).click()
    assert server.has("a rocket", 0)
    expect(page.locator("#gallery li")).to_have_count(0)


def test_the_gallery_survives_a_reload_and_a_new_server(
    page: Page, start_server: StartServer
) -> None:
    server = start_server()
    opened(page, server.url)
    made(page, server, "a red heart", seed=3)
    page.reload()
    expect(page.locator("#gallery li")).to_have_count(1)
    page.goto("about:blank")
    server.stop()
    server.start()
    opened(page, server.url)
    picture = page.locator("#gallery img")
    expect(picture).to_have_js_property("naturalWidth", WIDTH)
    assert page.evaluate("document.querySelectorAll('#gallery li').length") == 1


def test_work_goes_on_over_a_reload(page: Page, server: Server) -> None:
    opened(page, server.url)
    make(page, server, "a rocket")
    server.preview("a rocket", 5, gray=90)
    page.reload()
    expect(page.locator(PREVIEW)).to_be_visible()
    expect(page.locator("#caption")).to_contain_text("Step 5 of 20")


def test_what_is_deleted_is_gone(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a red heart")
    made(page, server, "a rocket")
    for picture in (*page.locator("#gallery img").all(), page.locator(PICTURE)):
        expect(picture).to_have_js_property("naturalWidth", WIDTH)  # not still asked for
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete: a rocket").click()
    expect(page.locator("#gallery li")).to_have_count(1)
    page.reload()
    expect(page.locator("#gallery li")).to_have_count(1)
    expect(page.locator("#gallery p")).to_have_text("a red heart")


def test_a_picture_is_downloaded_by_its_prompts_name(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a red heart", seed=5)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: a red heart").click()
    assert download.value.suggested_filename == "a-red-heart-5.png"
    assert read_parameters(download.value.path()).params.seed == 5


def test_several_pictures_are_looked_at_by_keyboard(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a rocket", n=3, seed=10)
    page.locator("#gallery button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("10")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#facts")).to_contain_text("11")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    assert page.evaluate("document.activeElement.closest('#gallery') !== null")


def test_everything_is_reached_by_tab_and_seen_to_be(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a red heart")
    page.focus("#prompt")
    reached: list[Any] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        script = """() => {
            const on = document.activeElement;
            const style = getComputedStyle(on);
            return [on.id || on.getAttribute("aria-label"), on === document.body
                || style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 1];
        }"""
        reached.append(page.evaluate(script))
    assert all(seen for _, seen in reached)
    names = {name for name, _ in reached}
    assert {"make", "seed", "dice", "n", "image", "copy-curl", "Delete: a red heart"} <= names


def test_same_again_keeps_the_seed_and_the_dice_forgets_it(page: Page, server: Server) -> None:
    opened(page, server.url)
    expect(page.locator("#again")).to_be_disabled()
    made(page, server, "a rocket", seed=11)
    page.fill("#seed", "")
    page.click("#again")
    assert value(page, "seed") == "11"
    page.click("#dice")
    assert value(page, "seed") == ""


def test_the_settings_of_a_picture_in_the_gallery_come_back(page: Page, server: Server) -> None:
    opened(page, server.url)
    made(page, server, "a rocket", seed=10, n=2, num_inference_steps=33)
    page.reload()
    expect(page.locator("#make")).to_be_enabled()
    page.get_by_role("button", name="Reuse settings: a rocket").last.click()
    assert (value(page, "prompt"), value(page, "seed")) == ("a rocket", "11")
    assert (value(page, "num_inference_steps"), value(page, "n")) == ("33", "1")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_dropped_picture_brings_its_settings_back(
    page: Page, server: Server, kind: ImageFormat
) -> None:
    opened(page, server.url)
    params = SamplingParams(
        prompt=AWKWARD + ' {"}', width=64, height=112, num_inference_steps=9, seed=2**40
    )
    pixels = np.zeros((112, 64, 3), np.uint8)
    file = encode_image(pixels, kind, Recipe(params, "owner/other"))
    drop(page, "#gallery-title", file, f"it.{kind}", f"image/{kind}")
    expect(page.locator("#prompt")).to_have_value(params.prompt)
    assert (value(page, "width"), value(page, "height")) == ("64", "112")
    assert (value(page, "seed"), value(page, "num_inference_steps")) == (str(2**40), "9")
    expect(page.locator("#toast")).to_contain_text("owner/other")


def test_a_picture_of_automatic1111_brings_its_settings_back(
    page: Page, server: Server, tmp_path: Path
) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    opened(page, server.url)
    info = PngInfo()
    text = "a cät, sitting\nNegative prompt: blurry\nSteps: 12, Sampler: UniPC, CFG scale: 5.5, "
    info.add_itxt("parameters", text + "Seed: 77, Size: 48x64, Model: foo", zip=True)
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    drop(page, "main", path.read_bytes(), "a.png", "image/png")
    expect(page.locator("#prompt")).to_have_value("a cät, sitting")
    assert (value(page, "negative_prompt"), value(page, "seed")) == ("blurry", "77")
    assert (value(page, "scheduler"), value(page, "guidance_scale")) == ("unipc", "5.5")
    assert (value(page, "width"), value(page, "height")) == ("48", "64")


def test_a_picture_and_a_mask_go_along(page: Page, server: Server) -> None:
    opened(page, server.url)
    drop(page, "#image-pick", png(), "in.png", "image/png")
    page.set_input_files("#mask", {"name": "m.png", "mimeType": "image/png", "buffer": png(255)})
    expect(page.locator("#mask-pick img")).to_be_visible()
    assert value(page, "width") == ""
    make(page, server, "a blue one", strength=0.75)
    (req,) = server.engine.alive.values()
    assert (set(req.pictures), req.params.strength) == ({"image", "mask"}, 0.75)
    assert req.params.keep_unmasked
    assert [each.shape for each in server.engine.pictures[req.id]] == [(32, 32, 3), (32, 32)]


def files(*sizes: int) -> list[FilePayload]:
    return [{"name": f"{n}.png", "mimeType": "image/png", "buffer": png(n, n)} for n in sizes]


def test_several_pictures_are_shown_removed_and_go_along(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(model=SEVERAL)
    opened(page, server.url)
    page.set_input_files("#image", files(32, 33))
    page.set_input_files("#image", files(34, 35))
    expect(page.locator("#toast")).to_have_text("The maximum is 3 images.")
    expect(page.locator("#more-images img")).to_have_count(2)
    page.get_by_role("button", name="Remove image 2").click()
    expect(page.locator("#more-images img")).to_have_count(1)
    make(page, server, "both of them")
    (req,) = server.engine.alive.values()
    assert [*req.pictures] == ["image", "image_2"]
    assert [each.shape[1] for each in server.engine.pictures[req.id]] == [32, 34]
    page.click("#copy-curl")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert {"image[]=@picture.png", "image[]=@picture-2.png"} <= {*words}
    page.get_by_role("button", name="Remove the image").click()
    expect(page.locator("#image-pick img")).to_be_visible()
    expect(page.locator("#more-images img")).to_have_count(0)


def test_a_last_frame_and_a_video_go_along(page: Page, start_server: StartServer) -> None:
    server = start_server(model=FRAMES)
    opened(page, server.url)
    page.set_input_files("#last_image", files(33))
    page.fill("#prompt", "from one to the other")
    page.click("#make")
    expect(page.locator("#wrong-image")).to_have_text("An image is required.")
    page.set_input_files("#image", files(32))
    clip = encode_mp4(np.zeros((5, 32, 48, 3), np.uint8), 8)
    page.set_input_files("#video", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": clip})
    make(page, server, "from one to the other")
    (req,) = server.engine.alive.values()
    assert [*req.pictures] == ["image", "last_image", "video"]
    assert server.engine.pictures[req.id][2].shape == (5, 32, 48, 3)


def test_a_mask_and_a_strength_are_of_the_video(page: Page, start_server: StartServer) -> None:
    server = start_server(model=FRAMES)
    opened(page, server.url)
    page.set_input_files("#mask", files(34))
    page.fill("#prompt", "only there")
    page.click("#make")
    expect(page.locator("#wrong-video")).to_have_text("A video is required.")
    clip = encode_mp4(np.zeros((5, 32, 48, 3), np.uint8), 8)
    page.set_input_files("#video", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": clip})
    page.fill("#strength", "0.6")
    make(page, server, "only there")
    (req,) = server.engine.alive.values()
    assert [*req.pictures] == ["video", "mask"]
    assert req.params.strength == 0.6


def test_loras_go_along(page: Page, start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "paper.safetensors").touch()
    metadata = {"modelspec.trigger_phrase": "in ink"}
    save_file({"x": torch.zeros(1)}, tmp_path / "loras" / "ink.safetensors", metadata)
    server = start_server(lora_dir=str(tmp_path / "loras"))
    opened(page, server.url)
    for _ in range(2):
        page.click("#add-lora")
    page.locator("#loras input").last.fill("0.5")
    expect(page.locator("#loras .hint").first).to_have_text("in ink")
    make(page, server, "a rocket")
    (req,) = server.engine.alive.values()
    assert [(lora.name, lora.scale) for lora in req.params.lora] == [("ink", 1), ("paper", 0.5)]


def test_controls_go_along_with_their_pictures(
    page: Page, start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "controls").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "controls" / "canny.safetensors")
    server = start_server(control_dir=str(tmp_path / "controls"))
    opened(page, server.url)
    page.click("#add-control")
    page.set_input_files("#controls input[type=file]", files(32))
    page.locator("#controls input[type=number]").fill("0.5")
    make(page, server, "a rocket")
    (req,) = server.engine.alive.values()
    assert [(each.name, each.scale, each.image) for each in req.params.control] == [
        ("canny", 0.5, None)
    ]
    assert [*req.pictures] == ["control_1"]


def test_a_wrong_field_is_pointed_at(page: Page, server: Server, console: Console) -> None:
    console.expected = ("400",)
    opened(page, server.url)
    page.fill("#width", "100")
    page.focus("#prompt")
    page.keyboard.press("Enter")
    expect(page.locator("#width")).to_be_focused()
    expect(page.locator("#width")).to_have_attribute("aria-invalid", "true")
    page.fill("#width", "96")
    expect(page.locator("#width")).not_to_have_attribute("aria-invalid", "true")
    page.fill("#width", "8176")
    page.fill("#height", "8176")
    page.keyboard.press("Enter")
    expect(page.locator("#wrong-width")).to_contain_text("at most")
    page.fill("#prompt", "x" * 32_001)
    page.click("#reset")
    page.fill("#prompt", "x" * 32_001)
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#wrong-prompt")).to_contain_text("at most 32000 characters")


def test_a_full_queue_is_told_in_words(
    page: Page, start_server: StartServer, console: Console
) -> None:
    console.expected = ("429",)
    server = start_server(max_queue_size=1)
    opened(page, server.url)
    make(page, server, "a rocket")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#error")).to_contain_text("The queue is full")


def test_what_fails_is_told_in_words(page: Page, server: Server) -> None:
    opened(page, server.url)
    make(page, server, "a rocket")
    server.engine.fail("a rocket", OutOfMemory("width=96: does not fit"))
    expect(page.locator("#error")).to_contain_text("width=96: does not fit")
    expect(page.locator("#gallery .why")).to_contain_text("width=96: does not fit")


def test_the_page_connects_again_by_itself(
    page: Page, start_server: StartServer, console: Console
) -> None:
    server = start_server()
    console.expected = (
        "ERR_CONNECTION_",  # REFUSED, RESET or CLOSED
        "ERR_INCOMPLETE_CHUNKED",
        "ERR_EMPTY_RESPONSE",
        "503",
    )
    opened(page, server.url)
    make(page, server, "a rocket")
    server.stop()
    expect(page.locator("#server-notice")).to_be_visible()
    server.start()
    expect(page.locator("#state")).to_have_text("Ready", timeout=20_000)
    expect(page.locator("#server-notice")).to_be_hidden()
    assert server.has("a rocket")
    server.finish("a rocket")
    expect(page.locator(PICTURE)).to_be_visible()


def test_the_page_says_how_far_the_model_is_loaded(page: Page, start_server: StartServer) -> None:
    server = start_server()
    progress = LoadingProgress(
        component="text_encoder", loaded_bytes=1_200_000_000, total_bytes=33_700_000_000
    )
    for tell, what in (
        (next(server.service.fleet.engines).engine_lost, EngineDied("rank 0 was killed")),
        (next(server.service.fleet.engines).engine_loading, progress),
    ):
        server._loop.call_soon_threadsafe(tell, what)
    page.goto(server.url)
    expect(page.locator("#server-notice")).to_contain_text("text encoder: 1.2 of 33.7 GB")


def test_a_key_is_asked_for_and_kept(page: Page, start_server: StartServer) -> None:
    server = start_server(api_key="open-sesame")
    page.goto(server.url)
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-label")).to_contain_text("does not accept that key")
    page.keyboard.type("open-sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#make")).to_be_enabled()
    made(page, server)
    page.reload()
    expect(page.locator("#gallery li")).to_have_count(1)
    expect(page.locator("#key-form")).to_be_hidden()
    page.click("#copy-curl")
    expect(page.locator("#toast")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "open-sesame" not in copied
    assert "Bearer $API_KEY" in copied


def test_videos_play(page: Page, start_server: StartServer) -> None:
    server = start_server(model=VIDEOS)
    opened(page, server.url)
    expect(page.locator("#n")).to_be_hidden()
    make(page, server, "a rocket", num_frames=5)
    (req,) = server.engine.alive.values()
    assert (req.params.num_frames, req.params.fps) == (5, 8)
    server.finish("a rocket", frames=5)
    expect(page.locator("#well video")).to_have_js_property("videoHeight", HEIGHT)
    expect(page.locator("#gallery img")).to_have_js_property("complete", True)
    page.locator("#gallery button").first.click()
    expect(page.locator("#viewer video")).to_be_visible()


def test_a_video_with_sound_waits_to_be_played_and_is_not_muted(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(model=VIDEOS)
    opened(page, server.url)
    server.engine.sound = chirp(1, 16_000)
    make(page, server, "a bell", num_frames=5)
    server.finish("a bell", frames=5)
    video = page.locator("#well video")
    expect(video).to_have_js_property("readyState", 4)
    expect(video).to_have_js_property("muted", False)
    expect(video).to_have_js_property("paused", True)
    expect(video).to_have_js_property("controls", True)


def test_the_curl_line_is_quoted_for_a_shell(page: Page, server: Server) -> None:
    opened(page, server.url)
    page.fill("#prompt", AWKWARD)
    page.fill("#seed", "7")
    page.click("#copy-curl")
    expect(page.locator("#toast")).to_have_text("Copied.")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert f"{server.url}/v1/images/generations" in words
    body = json.loads(words[words.index("--data-raw") + 1])
    assert body == {"prompt": AWKWARD, "seed": 7, "response_format": "file"}


def test_the_curl_line_of_a_picture_is_a_form(page: Page, server: Server) -> None:
    opened(page, server.url)
    drop(page, "#image-pick", png(), "in.png", "image/png")
    page.fill("#prompt", AWKWARD)
    page.click("#copy-curl")
    expect(page.locator("#toast")).to_have_text("Copied.")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert f"prompt={AWKWARD}" in words
    assert words[words.index("-F") + 1] == "image=@picture.png"


def test_the_python_program_makes_the_picture(
    page: Page, engine: EngineProcess, tmp_path: Path
) -> None:
    engine.wait_ready(90)
    with serving(app_over(engine.client)) as url:
        opened(page, url)
        drop(page, "#image-pick", png(), "in.png", "image/png")
        for name, text in {"prompt": AWKWARD, "num_inference_steps": "2", "seed": "5"}.items():
            page.fill(f"#{name}", text)
        page.click("#copy-python")
        expect(page.locator("#toast")).to_have_text("Copied.")
        program = page.evaluate("navigator.clipboard.readText()")
        page.close()
        (tmp_path / "picture.png").write_bytes(png())
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
    recipe = read_parameters(tmp_path / "out.png").params
    assert (recipe.prompt, recipe.seed, recipe.num_inference_steps) == (AWKWARD, 5, 2)


@pytest.mark.parametrize("width", [360, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(page: Page, server: Server, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    opened(page, server.url)
    expect(page.locator("#width")).to_be_hidden()
    page.click("summary")
    expect(page.locator("#width")).to_be_visible()
    made(page, server, "averylongwordthatneverends" * 10, seed=4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(channel) for channel in re.findall(r"\d+", background)]
    assert (sum(channels) < 200) == (scheme == "dark")
