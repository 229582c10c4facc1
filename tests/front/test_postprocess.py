"""Pixels become files that say how they were made."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from multimodal_gen.client.request_handle import Output
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.postprocess.files import Destination, write_atomically
from multimodal_gen.postprocess.images import ImageFormat, encode_image
from multimodal_gen.postprocess.metadata import Recipe, read_parameters
from multimodal_gen.postprocess.video import (
    encode_gif,
    encode_mp4,
    encode_spritesheet,
    encode_thumbnail,
    read_frame,
)

RECIPE = Recipe(
    SamplingParams(
        prompt='ein "Herz",\nrot: ❤ 日本',
        negative_prompt="blau, grün",
        width=96,
        height=64,
        num_inference_steps=8,
        guidance_scale=3.5,
        seed=2**62,
        scheduler="euler_a",
        lora=(LoraChoice("style", 0.5),),
    ),
    model="some/model, v2",
)


def picture(height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)


def clip(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.stack([np.roll(picture(height, width), 4 * f, axis=1) for f in range(frames)])


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_picture_gives_back_the_parameters_it_was_made_with(format: ImageFormat) -> None:
    assert read_parameters(encode_image(picture(), format, RECIPE)) == RECIPE


@pytest.mark.parametrize("encode", [encode_mp4, encode_gif])
def test_a_video_gives_back_the_parameters_it_was_made_with(encode: object) -> None:
    assert read_parameters(encode(clip(5, 32, 48), 8, RECIPE)) == RECIPE  # type: ignore[operator]


def test_parameters_are_read_from_a_path_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_image(picture(), "png", RECIPE))
    assert read_parameters(tmp_path / "a.png") == RECIPE


def test_a_picture_of_another_program_is_refused() -> None:
    for data in (encode_image(picture(), "png"), encode_mp4(clip(2, 32, 32), 8), b"garbage"):
        with pytest.raises(InvalidRequest, match=r"must be a|has no parameters"):
            read_parameters(data)


def test_a_png_holds_the_pixels_exactly() -> None:
    with Image.open(io.BytesIO(encode_image(picture(), "png", RECIPE))) as image:
        assert np.array_equal(np.asarray(image), picture())


def test_png_infotext_has_the_form_other_tools_read() -> None:
    with Image.open(io.BytesIO(encode_image(picture(), "png", RECIPE))) as image:
        text = image.info["parameters"]
    prompt = 'ein "Herz",\nrot: ❤ 日本 <lora:style:0.5>\n'
    assert text.startswith(prompt + "Negative prompt: blau, grün\nSteps: 8, ")
    settings = "Sampler: Euler a, CFG scale: 3.5, Seed: 4611686018427387904, Size: 96x64, "
    assert settings + 'Model: "some/model, v2", Version: ' in text


def test_infotext_tells_embedded_guidance_from_true_guidance() -> None:
    flux = SamplingParams(prompt="a", guidance_scale=3.5, true_cfg_scale=2.0)
    assert "CFG scale: 2.0, Distilled CFG Scale: 3.5" in Recipe(flux, "flux").infotext()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_exif_user_comment_is_the_infotext(format: ImageFormat) -> None:
    with Image.open(io.BytesIO(encode_image(picture(), format, RECIPE))) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment == b"UNICODE\0" + RECIPE.infotext().encode("utf-16-be")


def test_without_a_recipe_a_file_says_nothing() -> None:
    for format in get_args(ImageFormat):
        with Image.open(io.BytesIO(encode_image(picture(), format))) as image:
            assert not image.getexif()
            assert "parameters" not in image.info


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_mp4_has_every_frame_in_a_form_that_players_show(size: tuple[int, int]) -> None:
    frames = clip(9, *size)
    with av.open(io.BytesIO(encode_mp4(frames, 12)), "r") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12
        decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    seen = decoded[:, : size[0], : size[1]].astype(float)
    assert decoded.shape[0] == 9
    assert np.abs(seen - frames).mean() < 12


def test_gif_plays_every_frame_for_ever() -> None:
    with GifImageFile(io.BytesIO(encode_gif(clip(4, 32, 32), 10))) as image:
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (4, 100, 0)


def output(pixels: NDArray[np.uint8]) -> Output:
    return Output("", pixels, seed=0, fps=8, timings={}, batch_sizes=[])


def write(path: str | Path, count: int = 1, frames: int = 1) -> list[str]:
    data = clip(frames, 16, 16)
    destination = Destination.of(path, count=count, video=frames > 1)
    return [destination.write(i, output(data), RECIPE).name for i in range(count)]


def test_a_file_is_written_over(tmp_path: Path) -> None:
    target = tmp_path / "new" / "heart.png"
    assert write(target) == write(target) == ["heart.png"]
    assert [p.name for p in target.parent.iterdir()] == ["heart.png"]


def test_several_outputs_of_one_file_name_are_numbered(tmp_path: Path) -> None:
    assert write(tmp_path / "heart.webp", count=2) == ["heart-0.webp", "heart-1.webp"]


def test_a_folder_gets_the_next_free_numbers(tmp_path: Path) -> None:
    assert write(tmp_path, count=2) == ["00000.png", "00001.png"]
    assert write(f"{tmp_path}/new/", count=1) == ["00000.png"]
    (tmp_path / "00007.jpg").touch()
    assert write(tmp_path, frames=3) == ["00008.mp4"]


def test_a_number_taken_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    destination = Destination.of(tmp_path, count=1, video=False)
    (tmp_path / "00000.png").write_text("somebody else's")
    assert destination.write(0, output(clip(1, 16, 16)), None).name == "00001.png"
    assert (tmp_path / "00000.png").read_text() == "somebody else's"


@pytest.mark.parametrize(("name", "video"), [("a.bmp", False), ("a.mp4", False), ("a.png", True)])
def test_a_wrong_suffix_is_refused_before_anything_runs(name: str, video: bool) -> None:
    with pytest.raises(InvalidRequest, match=r"output_path='a\..*must end in \."):
        Destination.of(name, count=1, video=video)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "a.png", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(("frames", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (40, 4, 4)])
def test_a_spritesheet_has_frames_evenly_over_time(frames: int, columns: int, rows: int) -> None:
    levels = np.linspace(0, 255, frames).astype(np.uint8)
    video = np.broadcast_to(levels[:, None, None, None], (frames, 32, 48, 3))
    with Image.open(io.BytesIO(encode_spritesheet(video))) as sheet:
        assert (sheet.format, sheet.size) == ("JPEG", (48 * columns, 32 * rows))
        shown = np.asarray(sheet.convert("L")).astype(int)[16::32, 24::48].ravel()
    count = min(16, frames)
    wanted = [int(levels[index * frames // count]) for index in range(count)]
    assert np.abs(shown[:count] - wanted).max() <= 2
    assert shown[count:].max(initial=0) <= 2


def test_a_thumbnail_is_the_middle_frame_made_small() -> None:
    video = np.stack([np.full((300, 1024, 3), 90 * f, np.uint8) for f in range(3)])
    with Image.open(io.BytesIO(encode_thumbnail(video))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (512, 150))
        assert abs(np.asarray(picture).astype(int) - 90).max() <= 2


@pytest.mark.parametrize("index", [0, -1])
def test_the_first_and_the_last_frame_are_read_from_a_video(index: Literal[0, -1]) -> None:
    frames = clip(3, 32, 48)
    read = read_frame(encode_mp4(frames, 8), index)
    assert read.shape == (32, 48, 3)
    assert np.abs(read.astype(int) - frames[index]).mean() < 8


def test_the_same_frames_give_the_same_video_always() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 64, 96, 3), np.uint8)
    assert len({encode_mp4(noise, 24, RECIPE) for _ in range(25)}) == 1
