"""Pictures and videos given to calls from Python, in any form. No engine is real here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal_gen import SamplingParams
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.entrypoints.python.inputs import take_inputs
from multimodal_gen.entrypoints.python.keywords import prompt_calls
from multimodal_gen.entrypoints.python.pictures import open_pictures
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.postprocess.video import encode_mp4

RNG = np.random.default_rng(7)
COLOR = RNG.integers(0, 256, (12, 16, 3), np.uint8)
GREY = COLOR[..., 0]
OPAQUE = np.dstack([COLOR, np.full((12, 16), 255, np.uint8)])


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "text": str,
    "bytes": lambda path: path.read_bytes(),
    "PIL": Image.open,
    "PIL with alpha": lambda _: Image.fromarray(OPAQUE),
    "uint8": lambda _: COLOR,
    "uint8 with alpha": lambda _: OPAQUE,
    "float64": lambda _: COLOR / 255,
    "float32": lambda _: (COLOR / 255).astype(np.float32),
    "not contiguous": lambda _: np.asfortranarray(COLOR),
    "list": lambda path: [path],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_any_form_has_the_same_pixels(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(COLOR))
    params, pixels = take_inputs({"image": FORMS[form](path), "seed": 7})
    assert params == {"image_path": None, "seed": 7}
    assert pixels["image"].dtype == np.uint8
    assert np.array_equal(pixels["image"], COLOR)


@pytest.mark.parametrize("grey", [GREY, GREY[..., None], GREY / 255, Image.fromarray(GREY)])
def test_a_grey_picture_becomes_one_of_three_channels(grey: Any) -> None:
    assert np.array_equal(take_inputs({"image": grey})[1]["image"], np.dstack([GREY] * 3))


@pytest.mark.parametrize("mask", [GREY > 99, (GREY > 99) * 1.0, (GREY > 99) * np.uint8(255)])
def test_a_mask_of_true_or_one_is_white(mask: Any) -> None:
    white = take_inputs({"mask": mask})[1]["mask"]
    assert (white.shape, set(np.unique(white))) == ((12, 16), {0, 255})
    assert np.array_equal(white == 255, GREY > 99)


def test_transparent_parts_of_a_mask_are_repainted() -> None:
    opaque = np.dstack([COLOR, np.where(GREY > 99, 0, 255).astype(np.uint8)])
    assert np.array_equal(take_inputs({"mask": opaque})[1]["mask"] == 255, GREY > 99)


def test_a_picture_is_turned_upright_and_left_as_it_is() -> None:
    turned = Image.fromarray(COLOR)
    turned.getexif()[0x0112] = 6
    assert take_inputs({"image": turned})[1]["image"].shape == (16, 12, 3)
    assert turned.size == (16, 12)


def test_several_images_are_numbered_in_their_order() -> None:
    _, pixels = take_inputs({"images": [COLOR, Image.fromarray(COLOR[::-1]), png(GREY)]})
    assert [*pixels] == ["image", "image_2", "image_3"]
    assert np.array_equal(pixels["image_2"], COLOR[::-1])


@pytest.mark.parametrize("form", ["array", "floats", "frames", "bytes", "path"])
def test_a_video_of_any_form_has_its_frames(form: str, tmp_path: Path) -> None:
    video = np.stack([np.full((16, 16, 3), shade, np.uint8) for shade in (10, 120, 240)])
    file = encode_mp4(video, 8)
    (tmp_path / "a.mp4").write_bytes(file)
    given = {
        "array": video,
        "floats": video / 255,
        "frames": [Image.fromarray(frame) for frame in video],
        "bytes": file,
        "path": tmp_path / "a.mp4",
    }
    frames = take_inputs({"video": given[form]})[1]["video"]
    assert frames.shape == video.shape
    assert np.abs(frames.astype(int) - video).max() <= 4  # MP4 is not exact


@pytest.mark.parametrize("form", [COLOR, Image.fromarray(COLOR), png(COLOR)])
@pytest.mark.parametrize("of", [dict, ControlChoice])
def test_a_control_takes_its_picture_in_any_form(of: Any, form: Any) -> None:
    controls = ["first=a.png", of(name="second", image=form, scale=0.5)]
    (call,) = prompt_calls(["a"], {"control": controls})
    assert [(each.name, each.image) for each in call.params.control] == [
        ("first", "a.png"),
        ("second", None),
    ]
    assert [*call.given] == ["control_2"]
    assert np.array_equal(call.given["control_2"], COLOR)


def test_paths_are_taken_wherever_text_names_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(COLOR))
    params = SamplingParams(
        prompt="a",
        image_path=[path, str(path)],
        mask_path=path,
        last_image_path=path,
        control={"name": "edges", "image": path},
    )
    assert params.image_path == (str(path), str(path))
    _, pixels = open_pictures(params)
    assert {*pixels} == {"image", "image_2", "mask", "last_image", "control_1"}
    args = EngineArgs(lora_dir=tmp_path, control_dir=tmp_path, base_model_path=path)
    assert (args.lora_dir, args.control_dir, args.base_model_path) == (
        str(tmp_path),
        str(tmp_path),
        str(path),
    )


def test_a_keyword_overrides_the_picture_of_its_prompt() -> None:
    (call,) = prompt_calls([SamplingParams(prompt="a", image_path="a.png")], {"image": COLOR})
    assert call.params.image_path is None
    assert [*call.given] == ["image"]


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"seed": np.int64(7), "strength": np.float32(0.5), "sigmas": np.array([1.0, 0.5])}
    (call,) = prompt_calls(["a"], given)
    assert (call.params.seed, call.params.strength) == (7, 0.5)
    assert call.params.sigmas == (1.0, 0.5)
    assert type(call.params.seed) is int


def test_no_picture_is_as_if_it_was_not_given() -> None:
    given = dict.fromkeys(("image", "images", "mask", "last_image", "video"))
    (call,) = prompt_calls([SamplingParams(prompt="a", image_path="a.png")], given)
    assert call.params.image_path == ("a.png",)
    assert not call.given


def test_errors_name_inputs_by_the_keywords_that_gave_them() -> None:
    def named(given: dict[str, Any], *error: str) -> str:
        (call,) = prompt_calls(["a"], given)
        with pytest.raises(InvalidRequest) as caught, call.naming_inputs():
            raise InvalidRequest(*error)
        return str(caught.value)

    missing = "last_image_path", "a picture", "requires a first frame in image_path"
    assert named({}, *missing) == "last_image='a picture': requires a first frame in image"
    by_path = {"last_image_path": "a.png"}
    assert named(by_path, *missing) == (
        "last_image_path='a picture': requires a first frame in image"
    )
    file = "image_path", "in image_path/image_path.png", "is damaged"
    assert named({"images": [COLOR]}, *file) == "images='in image_path/image_path.png': is damaged"


def test_a_picture_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="image='9000x9000': must have at most"):
        take_inputs({"image": Image.new("1", (9000, 9000))})
