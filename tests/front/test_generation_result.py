"""What a result says of pictures and of videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from multimodal_gen import GenerationResult, SamplingParams
from multimodal_gen.client.request_handle import Output
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.postprocess.metadata import read_parameters


def result(frames: int, outputs: int = 1, fps: int | None = None) -> GenerationResult:
    made = (
        Output(
            id=f"{j}",
            pixels=np.full((frames, 16, 24, 3), 50 * j, np.uint8),
            seed=7 + j,
            fps=fps,
            timings={"denoise": 1.0 + j, "total": 2.0},
            batch_sizes=[1 + j],
        )
        for j in range(outputs)
    )
    params = SamplingParams(prompt="a", seed=7, fps=fps, num_outputs_per_prompt=outputs)
    return GenerationResult(tuple(made), params, "model")


def test_of_pictures_there_is_an_image_an_output_and_no_frames() -> None:
    two = result(1, outputs=2)
    assert [image.getpixel((0, 0)) for image in two.images] == [(0, 0, 0), (50, 50, 50)]
    assert (two.frames, two.fps, two.seeds) == (None, None, [7, 8])


def test_of_a_video_there_are_its_frames() -> None:
    video = result(5, fps=8)
    assert video.frames is not None
    assert video.frames.shape == (5, 16, 24, 3)
    assert (len(video.images), video.images[0].size, video.fps) == (5, (24, 16), 8)


def test_of_several_outputs_timings_are_the_longest_and_batch_sizes_the_first() -> None:
    assert result(1, outputs=3).timings == {"denoise": 3.0, "total": 2.0}
    assert result(1, outputs=3).batch_sizes == [1]


A, B = RequestWarning("no_effect", "lora", "a"), RequestWarning("no_effect", "lora", "b")


def test_a_warning_of_all_outputs_is_in_the_result_once() -> None:
    warned = [replace(output, warnings=(A,)) for output in result(1, outputs=2).outputs]
    warned.append(replace(warned[0], warnings=(B, A)))
    assert GenerationResult(tuple(warned), SamplingParams(prompt="a"), "model").warnings == (
        A,
        B,
    )


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif"])
def test_a_video_is_saved_with_how_it_was_made(name: str, tmp_path: Path) -> None:
    paths = result(5, outputs=2, fps=8).save(tmp_path / name)
    assert [path.stem for path in paths] == ["clip-0", "clip-1"]
    recipe = read_parameters(paths[1])
    assert (recipe.params.seed, recipe.params.num_outputs_per_prompt) == (8, 1)


def test_a_folder_gets_videos_as_mp4(tmp_path: Path) -> None:
    assert result(2, fps=8).save(tmp_path) == [tmp_path / "00000.mp4"]


def test_a_video_is_not_saved_as_a_picture(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="a video must end in"):
        result(2, fps=8).save(tmp_path / "a.png")
