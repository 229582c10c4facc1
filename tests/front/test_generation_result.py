"""What a result says of pictures and of videos."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_gen import (
    GenerationResult,
    GenerationResults,
    Progress,
    SamplingParams,
    ServerArgs,
)
from multimodal_gen.client.request_handle import Output
from multimodal_gen.entrypoints.python import notebook
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


class _Shown(HTMLParser):
    """Tags, texts and styles of what a notebook shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sources(self, tag: str) -> list[bytes]:
        found = [attributes["src"] for name, attributes in self.tags if name == tag]
        return [b64decode(source.partition(",")[2]) for source in found if source]


def test_a_notebook_shows_each_picture_with_its_seed_and_settings() -> None:
    shown = _Shown(result(1, outputs=2)._repr_html_())
    images = [Image.open(BytesIO(data)) for data in shown.sources("img")]
    assert [image.getpixel((0, 0)) for image in images] == [(0, 0, 0), (50, 50, 50)]
    assert "seed 7 · 24x16" in shown.text
    assert "seed 8 · 24x16" in shown.text
    assert all(attributes["alt"] == "a" for tag, attributes in shown.tags if tag == "img")


def test_of_one_picture_there_is_a_png_from_which_it_can_be_made_again() -> None:
    png = result(1)._repr_png_()
    assert png is not None
    assert read_parameters(png).params.seed == 7
    both = result(1, outputs=2)._repr_png_()
    assert both is not None
    assert Image.open(BytesIO(both)).size == (48, 16)


def test_a_notebook_plays_a_video_and_its_sound() -> None:
    (video,) = _Shown(result(5, fps=8)._repr_html_()).sources("video")
    assert video[4:8] == b"ftyp"
    assert result(5, fps=8)._repr_png_() is None
    silent = result(5, fps=8)
    loud = replace(silent.outputs[0], audio=np.zeros((1, 800), np.float32), audio_rate=8000)
    alone = replace(loud, pixels=np.zeros((0, 0, 0, 3), np.uint8))
    with_sound = _Shown(replace(silent, outputs=(loud,))._repr_html_())
    assert [tag for tag, _ in with_sound.tags if tag in ("video", "audio")] == ["video"]
    (sound,) = _Shown(replace(silent, outputs=(alone,))._repr_html_()).sources("audio")
    assert sound[:4] == b"RIFF"


def test_a_video_that_is_too_large_for_a_notebook_is_shown_by_its_first_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notebook, "MAX_INLINE_BYTES", 10)
    shown = _Shown(result(5, fps=8)._repr_html_())
    assert [tag for tag, _ in shown.tags if tag in ("video", "img")] == ["img"]
    assert "save it with result.save(path)" in shown.text


def test_a_large_picture_is_shown_smaller() -> None:
    pixels = np.zeros((1, 1500, 3000, 3), np.uint8)
    large = result(1)
    large = replace(large, outputs=(replace(large.outputs[0], pixels=pixels),))
    (data,) = _Shown(large._repr_html_()).sources("img")
    assert Image.open(BytesIO(data)).size == (1024, 512)
    assert len(large._repr_html_()) < 100_000


def test_markup_in_a_prompt_is_shown_as_text() -> None:
    prompt = '"><script>alert(1)</script>&'
    risky = replace(result(1), params=SamplingParams(prompt=prompt))
    warned = replace(risky.outputs[0], warnings=("<b>cut</b>",))
    risky = replace(risky, outputs=(warned,))
    shown = _Shown(GenerationResults([risky, risky])._repr_html_())
    assert {tag for tag, _ in shown.tags} <= {
        "div",
        "figure",
        "img",
        "figcaption",
        "br",
        "small",
        "p",
    }
    assert prompt in shown.text
    assert shown.text.count("<b>cut</b>") == 1
    assert {attributes.get("alt") for tag, attributes in shown.tags if tag == "img"} == {prompt}


def test_a_list_of_results_is_a_grid_of_so_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    results = GenerationResults([result(1, outputs=2), result(1)])
    assert results == [*results]
    assert len(_Shown(results._repr_html_()).sources("img")) == 3
    monkeypatch.setattr(notebook, "MAX_SHOWN", 2)
    shown = _Shown(results._repr_html_())
    assert len(shown.sources("img")) == 2
    assert "… and 1 more" in shown.text
    assert _Shown(GenerationResults()._repr_html_()).tags == [("div", {})]


def test_representations_are_short_and_show_no_pixels() -> None:
    two, video = result(1, outputs=2), result(5, fps=8)
    assert repr(two) == "GenerationResult('a', 24x16, seeds=[7, 8], None steps, 2.0 s)"
    assert repr(video).startswith("GenerationResult('a', 5 frames of 24x16, seed=7")
    assert repr(two.outputs[0]) == "Output(24x16, seed=7)"
    assert repr(two.params) == "SamplingParams(prompt='a', seed=7, num_outputs_per_prompt=2)"
    assert repr(Progress(3, 20, 1.25, "denoise", two.images[0])) == (
        "Progress(denoise: 3 of 20, 1.2 s left, with preview)"
    )
    assert repr(Progress(0, 20, None)) == "Progress(waiting: 0 of 20)"
    assert "secret" not in repr(ServerArgs(api_key="secret", admin_key="secret"))
    assert repr(ServerArgs(port=1)) == "ServerArgs(port=1)"
    long = replace(two, params=SamplingParams(prompt="a\n" * 5000))
    assert len(repr(long)) < 200


def test_results_are_hashable_and_equal_only_themselves() -> None:
    first, second = result(1), result(1)
    assert len({first, second, first}) == 2
    assert len({*first.outputs, *second.outputs}) == 2
    assert len({Progress(1, 2, None, preview=image) for image in first.images}) == 1
    assert hash(first.recipe()) == hash(first.recipe())
    assert first != second
