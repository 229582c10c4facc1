"""The playground's editor: what is painted on a picture and added around it, in a real Chromium."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from browsers import StartServer, in_each_view, made, make, needs_chromium, opened, value
from playground_server import FRAMES, SEVERAL, Server
from playwright.sync_api import Page, expect

from multimodal_gen.postprocess.images import encode_image
from multimodal_gen.postprocess.video import encode_mp4

pytestmark = [needs_chromium, in_each_view]

Pixels = np.ndarray[Any, Any]
PICTURE = np.zeros((48, 64, 3), np.uint8)  # its edges differ: red, green, blue, white
PICTURE[:] = (90, 90, 90)
PICTURE[:, :2], PICTURE[:, -2:] = (255, 0, 0), (0, 255, 0)
PICTURE[:2, 2:-2], PICTURE[-2:, 2:-2] = (0, 0, 255), (255, 255, 255)


def form(page: Page, server: Server) -> None:
    opened(page, server.url)
    page.evaluate("document.getElementById('settings').open = true")


def edited(page: Page, server: Server) -> None:
    """Open the editor on that picture."""
    form(page, server)
    file = encode_image(PICTURE, "png")
    page.set_input_files("#image", {"name": "a.png", "mimeType": "image/png", "buffer": file})
    page.click("#edit-image")
    expect(page.locator("#board")).to_be_focused()
    shown(page)


def shown(page: Page) -> None:
    """Wait until the board shows what was done."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the picture is in the window."""
    left, top = page.evaluate("([x, y]) => toBoard(x, y)", [x, y])
    box = page.locator("#board").bounding_box()
    assert box is not None
    return box["x"] + left, box["y"] + top


def stroke(page: Page, *points: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, *point), steps=4)
    page.mouse.up()


def brush(page: Page, size: int) -> None:
    page.locator("#brush-size").fill(str(size))


def sent(page: Page, server: Server) -> tuple[Pixels, Pixels]:
    """Use what was made, and return the picture and the mask that the engine gets."""
    page.click("#edit-use")
    expect(page.locator("#editor")).to_be_hidden()
    make(page, server, "a rocket")
    (req,) = server.engine.alive.values()
    assert [*req.pictures] == ["image", "mask"]
    assert req.params.keep_unmasked
    image, mask = server.engine.pictures[req.id]
    assert image.shape[:2] == mask.shape
    return image, mask


def test_what_is_painted_is_white_in_a_mask_of_the_pictures_size(
    page: Page, server: Server
) -> None:
    edited(page, server)
    brush(page, 8)
    stroke(page, (20, 24), (44, 24))
    expect(page.locator("#painting-told")).to_contain_text("of the picture is painted")
    image, mask = sent(page, server)
    assert (image == PICTURE).all()
    assert (mask[21:27, 20:44] == 255).all()
    assert not mask[:19].any()
    assert not mask[29:].any()
    assert not mask[:, 50:].any()
    expect(page.locator("#used")).to_contain_text("Input image, painted")


def test_strokes_are_erased_undone_redone_inverted_and_cleared(page: Page, server: Server) -> None:
    edited(page, server)
    expect(page.locator("#undo")).to_be_disabled()
    brush(page, 12)
    stroke(page, (16, 24), (48, 24))
    page.click("#editor-tools [data-tool=eraser]")
    stroke(page, (48, 24), (50, 24))
    page.click("#undo")
    page.click("#undo")
    expect(page.locator("#painting-told")).to_contain_text("Nothing is painted yet")
    page.click("#redo")
    page.click("#redo")
    expect(page.locator("#redo")).to_be_disabled()
    page.click("#invert")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+Z")
    _, mask = sent(page, server)
    assert mask[24, 20] == 0
    assert mask[24, 48] == mask[5, 5] == 255
    page.locator("#used button").first.click()
    page.click("#clear")
    expect(page.locator("#painting-told")).to_contain_text("Nothing is painted yet")
    page.click("#edit-use")
    expect(page.locator("#used")).not_to_contain_text("painted")


def test_a_mask_is_painted_by_keyboard_alone(page: Page, server: Server) -> None:
    edited(page, server)
    page.keyboard.press(" ")
    page.keyboard.press("Control+z")
    expect(page.locator("#painting-told")).to_contain_text("Nothing is painted yet")
    for _ in range(3):
        page.keyboard.press("[")
    size = page.evaluate("brushSize()")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press(" ")
    expect(page.locator("#live")).to_have_text("The pen is down.")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("r")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("a rocket")
    page.keyboard.press("Enter")
    assert server.has("a rocket")
    (req,) = server.engine.alive.values()
    _, mask = server.engine.pictures[req.id]
    assert size < 6
    assert (mask[24, 30:38] > 0).all()  # two pixels an arrow, from the middle
    assert (mask[19:21, 38:40] == 255).all()  # the rectangle
    assert not mask[:17].any()
    assert not mask[30:].any()


def test_a_rectangle_is_dragged(page: Page, server: Server) -> None:
    edited(page, server)
    page.click("#editor-tools [data-tool=box]")
    stroke(page, (40, 40), (0, 20))
    _, mask = sent(page, server)
    assert (mask[22:38, 2:38] == 255).all()
    assert not mask[:18].any()
    assert not mask[:, 43:].any()


def test_a_picture_is_extended_with_the_colours_of_its_edges(page: Page, server: Server) -> None:
    edited(page, server)
    page.keyboard.press("x")
    for label in page.locator("#extend-options label").all():
        assert label.evaluate("each => each.scrollWidth <= each.clientWidth")
    page.fill("#extend-left", "10")  # to 16, so that the width is a multiple
    page.fill("#extend-bottom", "16")
    page.keyboard.press("Enter")
    expect(page.locator("#painting-told")).to_contain_text("left 16 px, bottom 16 px")
    expect(page.locator("#extend-left")).to_have_value("16")
    image, mask = sent(page, server)
    assert image.shape == (64, 80, 3)
    assert (image[:48, 16:] == PICTURE).all()
    assert (image[:48, :16] == (255, 0, 0)).all()
    assert (image[48:, 20:76] == (255, 255, 255)).all()
    assert (mask[:, :16] == 255).all()
    assert (mask[48:] == 255).all()
    assert not mask[:40, 24:].any()
    (req,) = server.engine.alive.values()
    ratio = req.params.width / req.params.height
    assert (req.params.width % 16, req.params.height % 16) == (0, 0)
    assert ratio == pytest.approx(80 / 64, abs=0.05)
    assert value(page, "width") == str(req.params.width)


def test_a_side_is_dragged_and_taken_back(page: Page, server: Server) -> None:
    edited(page, server)
    page.click("#editor-tools [data-tool=extend]")
    shown(page)
    stroke(page, (64, 24), (96, 24))
    expect(page.locator("#extend-right")).to_have_value("32")
    expect(page.locator("#painting-size")).to_have_text("96 × 48")
    page.focus("#board")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#painting-size")).to_have_text("80 × 64")
    page.click("#undo")
    page.click("#undo")
    page.click("#undo")
    expect(page.locator("#painting-size")).to_have_text("64 × 48")
    expect(page.locator("#extend-right")).to_have_value("0")
    page.evaluate("model.limits.largest_side = 96")
    page.focus("#board")
    page.keyboard.press("ArrowDown")
    told = "will be 96 × 96. The picture becomes smaller in it"
    expect(page.locator("#painting-told")).to_contain_text(told)


def touch(page: Page, kind: str, *events: tuple[str, int, float, float]) -> None:
    """Events of fingers or pens, with ids and places in the window, pressed a little."""
    script = """([pointerType, events]) => {
        board.setPointerCapture = () => {};
        for (const [name, pointerId, clientX, clientY] of events) {
            const given = {pointerType, pointerId, clientX, clientY, pressure: 0.2, buttons: 1};
            board.dispatchEvent(new PointerEvent(`pointer${name}`, given));
        }
    }"""
    page.evaluate(script, [kind, [[*event] for event in events]])


def test_two_fingers_move_the_view_and_paint_nothing(page: Page, server: Server) -> None:
    edited(page, server)
    before = page.evaluate("view.scale")
    apart = [("down", 7, 150, 400), ("move", 7, 160, 400), ("down", 8, 200, 400)]
    together = [("move", 8, 240, 400), ("up", 7, 160, 400), ("move", 8, 250, 450)]
    touch(page, "touch", *apart, *together, ("up", 8, 250, 450))
    assert page.evaluate("view.scale") == pytest.approx(2 * before)
    assert page.evaluate("painting.acts.length") == 0
    page.click("#zoom-fit")
    shown(page)
    assert page.evaluate("view.scale") == pytest.approx(before)


def test_a_pen_paints_as_wide_as_it_is_pressed(page: Page, server: Server) -> None:
    edited(page, server)
    brush(page, 16)
    touch(page, "pen", ("down", 7, *at(page, 32, 24)), ("up", 7, *at(page, 32, 24)))
    _, mask = sent(page, server)
    assert mask[24, 32] == 255
    assert not mask[:20].any()


def test_results_are_edited_from_the_gallery_and_the_viewer(page: Page, server: Server) -> None:
    form(page, server)
    made(page, server, "a red heart", seed=77)
    page.reload()
    page.get_by_role("button", name="Edit: a red heart").click()
    expect(page.locator("#editor")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#editor")).to_be_hidden()
    page.locator("#gallery button").first.click()
    page.locator("#viewer").get_by_role("button", name="Edit").click()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#board")).to_be_focused()
    stroke(page, (48, 48), (60, 48))
    image, mask = sent(page, server)
    assert (image == 77).all()
    assert mask[48, 50] == 255


def test_an_input_is_dropped_where_it_is_shown(page: Page, server: Server) -> None:
    edited(page, server)
    stroke(page, (20, 24), (44, 24))
    page.click("#edit-use")
    page.get_by_role("button", name="Do without: Input image").click()
    expect(page.locator("#used")).to_be_hidden()
    expect(page.locator("#prompt")).to_be_focused()
    make(page, server, "a rocket")
    (req,) = server.engine.alive.values()
    assert not req.pictures


def test_another_input_picture_drops_the_mask_that_was_painted(page: Page, server: Server) -> None:
    edited(page, server)
    stroke(page, (20, 24), (44, 24))
    page.click("#edit-use")
    expect(page.locator("#used")).to_contain_text("painted")
    other = encode_image(np.zeros((32, 32, 3), np.uint8), "png")
    page.set_input_files("#image", {"name": "b.png", "mimeType": "image/png", "buffer": other})
    expect(page.locator("#used")).not_to_contain_text("painted")


def test_the_first_frame_of_a_video_is_painted_on(page: Page, start_server: StartServer) -> None:
    server = start_server(model=FRAMES)
    form(page, server)
    clip = encode_mp4(np.full((5, 32, 48, 3), 200, np.uint8), 8)
    page.set_input_files("#video", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": clip})
    page.click("#edit-video")
    expect(page.locator("#board")).to_be_focused()
    expect(page.locator("#extend-tool")).to_be_hidden()
    shown(page)
    stroke(page, (24, 16), (30, 16))
    page.click("#edit-use")
    expect(page.locator("#used")).to_contain_text("Input video, painted")
    make(page, server, "only there")
    (req,) = server.engine.alive.values()
    assert [*req.pictures] == ["video", "mask"]
    mask = server.engine.pictures[req.id][1]
    assert mask.shape == (32, 48)
    assert mask[16, 26] == 255
    assert mask[2, 2] == 0


def test_models_that_repaint_nothing_have_no_editor(page: Page, start_server: StartServer) -> None:
    server = start_server(model=SEVERAL)
    opened(page, server.url)
    made(page, server, "a red heart")
    expect(page.get_by_role("button", name="Reuse settings: a red heart")).to_be_visible()
    expect(page.get_by_role("button", name="Edit: a red heart")).to_have_count(0)


def test_a_dot_on_a_large_picture_is_not_lost(page: Page, server: Server) -> None:
    form(page, server)
    file = encode_image(np.zeros((1024, 1536, 3), np.uint8), "png")
    page.set_input_files("#image", {"name": "a.png", "mimeType": "image/png", "buffer": file})
    page.click("#edit-image")
    expect(page.locator("#board")).to_be_focused()
    brush(page, 1)
    page.focus("#board")
    page.keyboard.press(" ")
    page.keyboard.press(" ")
    expect(page.locator("#painting-told")).to_contain_text("1% of the picture")
    _, mask = sent(page, server)
    assert 0 < (mask > 0).sum() < 20
