"""Pictures of unknown make are opened with care."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_client import encoded
from PIL import Image

from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.python.decoding import decode_mask, decode_picture, is_heic
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES

RED = Image.new("RGB", (6, 4), (200, 10, 20))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_the_format_is_told_by_the_content(format: str) -> None:
    pixels = decode_picture(encoded(RED, format), "image")
    assert (pixels.shape, pixels.dtype) == ((4, 6, 3), np.uint8)
    assert np.abs(pixels.astype(int) - (200, 10, 20)).max() < 12


@pytest.mark.parametrize(
    ("mode", "shape"), [("RGB", (4, 6, 3)), ("L", (4, 6)), ("RGBA", (4, 6, 4))]
)
@pytest.mark.parametrize("kind", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_picture_becomes_the_mode_asked_for(
    kind: str, mode: Any, shape: tuple[int, ...]
) -> None:
    picture = Image.new("L", (6, 4), 255).convert(kind)
    pixels = decode_picture(encoded(picture), "image", mode)
    assert pixels.shape == shape
    assert pixels.flags.c_contiguous


def test_16_bits_are_scaled_to_8() -> None:
    grey = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    assert decode_picture(encoded(grey), "image", "L").tolist() == [[0, 100, 255]]


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encoded(RED, exif=exif), "image").shape == (6, 4, 3)


def test_transparent_is_where_a_mask_changes_the_picture() -> None:
    mask = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    mask.putpixel((1, 0), (0, 0, 0, 0))
    assert decode_mask(encoded(mask), "mask").tolist() == [[0, 255]]


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "1", "P"])
def test_white_is_where_an_opaque_mask_changes_the_picture(kind: str) -> None:
    mask = Image.new("L", (2, 1), 0)
    mask.putpixel((1, 0), 255)
    assert decode_mask(encoded(mask.convert(kind)), "mask").tolist() == [[0, 255]]


@pytest.mark.parametrize("kind", ["1", "P", "RGB"])
def test_a_photo_too_large_for_the_engine_is_shrunk_in_its_shape(kind: str) -> None:
    photo = Image.new(kind, (8000, 4000))
    pixels = decode_picture(encoded(photo, compress_level=1), "image")
    assert pixels.nbytes <= MAX_CLIENT_FRAME_BYTES
    assert abs(pixels.shape[1] / pixels.shape[0] - 2) < 0.001


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9000, 9000), (100_000, 100_000), (2**31 - 1, 1)])
def test_a_size_is_refused_before_pixels_are_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_picture(bomb(*size), "image")
    assert caught.value.field == "image"


def test_the_limit_is_the_operators() -> None:
    with pytest.raises(InvalidRequest, match="at most 23 pixels"):
        decode_picture(encoded(RED), "image", max_pixels=23)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%PDF-1.4", b"%!PS-Adobe", encoded(RED, "TGA")])
def test_what_is_no_picture_is_refused_in_our_own_words(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_picture(data, "mask")
    assert caught.value.field == "mask"
    assert "0x" not in caught.value.message


_FILES = [encoded(RED, format) for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(
    file=st.sampled_from(_FILES),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), min_size=1, max_size=4),
)
def test_no_broken_file_does_more_than_be_refused(
    file: bytes, cuts: list[tuple[int, bytes]]
) -> None:
    for place, bytes_ in cuts:
        file = file[:place] + bytes_ + file[place + len(bytes_) :]
    for decode in (decode_picture, decode_mask):
        with contextlib.suppress(InvalidRequest):
            decode(file, "image")


def test_base64_comes_bare_in_lines_and_as_a_data_url() -> None:
    text = base64.b64encode(encoded(RED)).decode()
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for given_text in (text, lines, "data:image/png;base64," + text, "DATA:;base64," + text):
        assert bytes_of(given_text, "image") == encoded(RED)


@pytest.mark.parametrize(
    "text", ["a", "ä", "file:///etc/passwd", "https://example.com/a.png", "%%"]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bytes_of(text, "image")
    assert caught.value.field == "image"


def test_the_first_of_a_moving_picture_is_taken() -> None:
    out = io.BytesIO()
    RED.save(out, "GIF", save_all=True, append_images=[Image.new("RGB", (6, 4), "blue")])
    assert decode_picture(out.getvalue(), "image")[0, 0, 0] > 150


@pytest.mark.parametrize("size", [0, 1, 3 * 2**18 - 1, 3 * 2**18, 3 * 2**18 + 1])
@pytest.mark.parametrize("line", [76, 10**9])
def test_base64_is_decoded_however_long_it_is_and_wherever_its_lines_end(
    size: int, line: int
) -> None:
    file = bytes(range(256)) * 4096
    text = base64.b64encode(file[:size]).decode()
    lines = (text[start : start + line] for start in range(0, len(text), line))
    assert bytes_of("\r\n".join(lines), "image") == file[:size]


@pytest.mark.parametrize("format", ["TIFF", "AVIF"])
def test_pictures_of_cameras_and_scanners_are_read(format: str) -> None:
    pixels = decode_picture(encoded(Image.new("RGB", (40, 30), "navy"), format), "image")
    assert pixels.shape == (30, 40, 3)
    assert np.abs(pixels.astype(int) - (0, 0, 128)).max() <= 3


@pytest.mark.parametrize("format", ["TIFF", "AVIF"])
def test_their_size_is_checked_before_pixels_are_decoded(format: str) -> None:
    with pytest.raises(InvalidRequest, match=r"40x30.*at most 1000 pixels"):
        decode_picture(encoded(Image.new("RGB", (40, 30)), format), "image", max_pixels=1000)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_kind_of_pixels_in_a_tiff_is_read(mode: str) -> None:
    picture = Image.new("L", (40, 30), 128).convert(mode)
    assert decode_picture(encoded(picture, "TIFF"), "image").shape == (30, 40, 3)


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"


@pytest.mark.parametrize(
    ("start", "heic"),
    [
        (HEIC, True),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", True),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf", False),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomheic"[:16], False),
        (b"", False),
    ],
)
def test_heic_is_told_from_its_relatives(start: bytes, heic: bool) -> None:
    assert is_heic(start + bytes(40)) is heic


def test_without_the_extra_heic_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InvalidRequest, match=r"multimodal-gen\[heic\]"):
        decode_picture(HEIC + bytes(40), "image")


def test_with_the_extra_heic_is_read() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "navy")).save(out)
    pixels = decode_picture(out.getvalue(), "image")
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - (0, 0, 128)).max() <= 5
    with pytest.raises(InvalidRequest, match="64x48"):
        decode_picture(out.getvalue(), "image", max_pixels=1000)
