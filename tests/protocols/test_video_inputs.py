"""Videos of unknown make are opened with care."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.bodies.room import Hold, Room
from multimodal_gen.entrypoints.python import video_decoding
from multimodal_gen.entrypoints.python.decoding import picture_memory
from multimodal_gen.entrypoints.python.pictures import open_pictures
from multimodal_gen.entrypoints.python.video_decoding import decode_video
from multimodal_gen.errors import InvalidRequest, QueueFull
from multimodal_gen.postprocess.video import encode_gif, encode_mp4

HEIGHT, WIDTH = 32, 48
FRAMES = np.zeros((7, HEIGHT, WIDTH, 3), np.uint8)
FRAMES[:] = (np.arange(7) * 30 + 20)[:, None, None, None]
FRAMES[:, :16, :16] = (250, 10, 10)
MP4 = encode_mp4(FRAMES, 8)


def container(format: str, codec: str, frames: np.ndarray[Any, Any] = FRAMES) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=format) as file:
        stream: Any = file.add_stream(codec, 8)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize(
    "file",
    [
        MP4,
        encode_gif(FRAMES, 8),
        container("matroska", "libx264"),
        container("webm", "libvpx-vp9"),
        container("avi", "mpeg4"),
        container("mov", "libx264"),
    ],
    ids=["mp4", "gif", "mkv", "webm", "avi", "mov"],
)
def test_the_frames_of_every_container_are_read_in_their_order(file: bytes) -> None:
    pixels = decode_video(file, "video_path")
    assert (pixels.shape, pixels.dtype) == (FRAMES.shape, np.uint8)
    assert np.abs(pixels[:, 24:, 24:].astype(int) - FRAMES[:, 24:, 24:]).max() < 16
    assert (pixels[:, 4, 4, 0] > 200).all()
    assert (pixels[:, 4, 4, 1] < 60).all()


@pytest.mark.parametrize(("asked", "read"), [(1, 1), (3, 3), (7, 7), (9, 7)])
def test_only_the_frames_asked_for_are_decoded(asked: int, read: int) -> None:
    assert len(decode_video(MP4, "video_path", frames=asked)) == read


def test_a_video_is_turned_upright() -> None:
    at = MP4.index(b"tkhd") + 44  # the matrix, of numbers with 16 bits after the point
    quarter = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30], ">i4")
    turned = MP4[:at] + quarter.tobytes() + MP4[at + 36 :]
    pixels = decode_video(turned, "video_path")
    assert pixels.shape == (7, WIDTH, HEIGHT, 3)
    assert pixels[0, 4, -4, 0] > 200  # what was at the top left, clockwise


def test_more_frames_than_are_taken_are_refused_before_any_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(video_decoding, "MAX_VIDEO_FRAMES", 6)
    monkeypatch.setattr(video_decoding, "_pixels", pytest.fail)
    with pytest.raises(InvalidRequest, match=r"video_path='more than 6 frames'.*num_frames"):
        decode_video(MP4, "video_path")


def test_a_size_is_refused_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoding, "_pixels", pytest.fail)
    with pytest.raises(InvalidRequest, match="video_path='48x32': frames must have at most 1000"):
        decode_video(MP4, "video_path", max_pixels=1000)


def test_a_video_too_large_for_the_engine_is_shrunk_in_its_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(video_decoding, "_MOST", FRAMES.nbytes // 4)
    assert decode_video(MP4, "video_path").shape == (7, HEIGHT // 2, WIDTH // 2, 3)


def test_its_memory_counts_until_it_is_freed() -> None:
    room = Room(10 * FRAMES.nbytes, 10 * FRAMES.nbytes, "videos")
    token = picture_memory.set(lambda: Hold(room, "me"))
    try:
        pixels = decode_video(MP4, "video_path")
        assert room.held == FRAMES.nbytes
        with pytest.raises(QueueFull):
            decode_video(container("mov", "libx264", np.zeros((9, 96, 96, 3), np.uint8)), "v")
        del pixels
        assert room.held == 0
    finally:
        picture_memory.reset(token)


BYTES = st.lists(st.tuples(st.integers(0, 1500), st.binary(max_size=6)), min_size=1, max_size=4)
LIST = b"ffconcat version 1.0\nfile a.mp4\n"
PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MP4[:60],
        MP4[:-200],
        PLAYLIST,
        b"ffconcat version 1.0\nfile a.mp4\n",
        b"GIF89a",
        b"ftyp",
    ],
    ids=["empty", "start", "cut", "playlist", "list", "gif", "word"],
)
def test_what_is_no_video_is_refused_in_our_own_words(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_video(data, "video_path")
    assert caught.value.message.startswith(f"video_path='{len(data)} bytes': can't be read as a")


def test_a_playlist_that_looks_like_a_video_opens_no_file() -> None:
    for start in (b"\x00\x00\x00\x18ftypmp42", b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI ", b"GIF89a"):
        with pytest.raises(InvalidRequest, match="can't be read as a video"):
            decode_video(start + b"\n" + PLAYLIST, "video_path")


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 1500), st.binary(max_size=6)), min_size=1, max_size=4)
)
def test_no_broken_file_does_more_than_be_refused(cuts: list[tuple[int, bytes]]) -> None:
    file = MP4
    for place, bytes_ in cuts:
        file = file[:place] + bytes_ + file[place + len(bytes_) :]
    with contextlib.suppress(InvalidRequest):
        assert len(decode_video(file, "video_path")) <= 7


def test_a_video_file_is_opened_beside_images(tmp_path: Path) -> None:
    video, image = tmp_path / "a.mp4", tmp_path / "a.png"
    video.write_bytes(MP4)
    Image.new("RGB", (7, 5)).save(image)
    asked = SamplingParams(image_path=str(image), video_path=str(video), num_frames=5)
    params, pixels = open_pictures(asked)
    assert params == SamplingParams(num_frames=5)
    assert {name: each.shape for name, each in pixels.items()} == {
        "image": (5, 7, 3),
        "video": (5, HEIGHT, WIDTH, 3),
    }
    with pytest.raises(InvalidRequest, match="video_path="):
        open_pictures(SamplingParams(video_path=str(image)))
