"""Safely decodes untrusted videos: from clients and from files that users name."""

from __future__ import annotations

import io
import math
from itertools import islice
from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.python.decoding import (
    MAX_INPUT_PIXELS,
    PictureMemory,
    counted,
)
from multimodal_gen.errors import InvalidRequest, QueueFull
from multimodal_gen.messages.pictures import MAX_VIDEO_BYTES

if TYPE_CHECKING:
    import av
    import numpy as np

MAX_VIDEO_FRAMES = 1024
"""Maximum frames of an input video, unless fewer of them are asked for."""
DECODER_BYTES = 64
"""Memory per pixel of a frame while a video is decoded: the decoder keeps up to 16 frames."""
_STARTS = (
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"GIF8", "gif"),
    (8, b"AVI ", "avi"),
    *((4, kind, "mov") for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
)
"""Place and text that tell a format, and its name in FFmpeg, which is told it: of those that it
finds by itself, some open other files."""
_CODECS = "h264,hevc,av1,libdav1d,vp8,vp9,mpeg4,mjpeg,gif,prores,rawvideo,png"
_READ = "can't be read as a video (MP4, MOV, WebM, MKV, AVI, GIF)"


def decode_video(
    data: bytes, field: str, *, frames: int | None = None, max_pixels: int = MAX_INPUT_PIXELS
) -> np.ndarray[Any, Any]:
    """uint8 [F, H, W, 3]: all frames, or the first `frames` of them, turned upright.

    The size and number of frames are checked before pixels are decoded; a video of more bytes than
    the engine accepts is shrunk. Raises InvalidRequest, QueueFull.
    """
    return counted(lambda memory: _decoded(data, field, frames, max_pixels, memory))


def _decoded(
    data: bytes, field: str, frames: int | None, max_pixels: int, memory: PictureMemory | None
) -> np.ndarray[Any, Any]:
    import av

    shown = f"{len(data)} bytes"
    kind = next((name for at, start, name in _STARTS if data.startswith(start, at)), None)
    if kind is None:
        raise InvalidRequest(field, shown, _READ)
    options = {"codec_whitelist": _CODECS, "max_pixels": str(max_pixels)}
    try:
        with av.open(io.BytesIO(data), "r", format=kind, options=options) as file:
            stream = file.streams.video[0]
            size = stream.codec_context.width, stream.codec_context.height
            _check_size(field, size, max_pixels)
            count = _count(file, stream, field, frames)
            if memory is not None:
                memory.take(DECODER_BYTES * math.prod(size) + min(_bytes(size, count), _MOST))
            return _pixels(file, stream, size, count)
    except (InvalidRequest, QueueFull):
        raise
    except Exception:
        # As for images: of any type, for crafted files.
        raise InvalidRequest(field, shown, _READ) from None


_MOST = MAX_VIDEO_BYTES


def _bytes(size: tuple[int, int], count: int) -> int:
    return 3 * math.prod(size) * count


def _check_size(field: str, size: tuple[int, int], max_pixels: int) -> None:
    if math.prod(size) > max_pixels:
        allowed = f"frames must have at most {max_pixels} pixels"
        raise InvalidRequest(field, f"{size[0]}x{size[1]}", allowed)


def _count(file: Any, stream: av.VideoStream, field: str, frames: int | None) -> int:
    """Number of frames to decode: containers may be wrong about theirs, so packets are counted."""
    most = MAX_VIDEO_FRAMES if frames is None else min(frames, MAX_VIDEO_FRAMES)
    packets = (packet for packet in file.demux(stream) if packet.size)
    found = sum(1 for _ in islice(packets, MAX_VIDEO_FRAMES + 1))
    if found > MAX_VIDEO_FRAMES and frames is None:
        allowed = f"must have at most {most} frames; num_frames says how many of them are taken"
        raise InvalidRequest(field, f"more than {most} frames", allowed)
    file.seek(0, stream=stream)
    return min(found, most)


def _pixels(
    file: Any, stream: av.VideoStream, size: tuple[int, int], count: int
) -> np.ndarray[Any, Any]:
    """The first `count` frames, at most, of a file whose frames are all resized to `size`."""
    import numpy as np

    scale = min(1.0, math.sqrt(_MOST / max(1, _bytes(size, count))))
    width, height = (max(1, int(side * scale)) for side in size)
    pixels: np.ndarray[Any, Any] | None = None
    done = 0
    for frame in islice(file.decode(stream), count):
        shown = frame.to_ndarray(format="rgb24", width=width, height=height)
        shown = np.rot90(shown, round(frame.rotation / 90))
        if pixels is None:
            pixels = np.empty((count, *shown.shape), np.uint8)
        pixels[done] = shown
        done += 1
    if pixels is None:
        raise ValueError
    return pixels[:done]
