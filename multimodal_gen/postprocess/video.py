"""Encodes frames as MP4 and GIF, and makes a video's thumbnail and spritesheet."""

from __future__ import annotations

import io
import math
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from multimodal_gen.postprocess.images import QUALITY, to_pil
from multimodal_gen.postprocess.sound import Sound, SoundTrack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from multimodal_gen.postprocess.metadata import Recipe

THUMBNAIL_SIDE = 512
SPRITES = 16
SPRITE_SIDE = 256
_X264 = {"x264-params": "cpu-independent=1"}
"""Without it, equal frames don't always give equal files."""


def encode_mp4(
    frames: NDArray[np.uint8],
    fps: float,
    recipe: Recipe | None = None,
    sound: Sound | None = None,
) -> bytes:
    """Encode uint8 [F, H, W, 3] as H.264 in 4:2:0 and AAC, which every player supports.

    4:2:0 needs even sides: an odd side is extended by repeating its last line of pixels. The sound
    lasts as long as the frames: it is cut, or silence follows it.
    """
    import av
    import numpy as np

    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        rate = Fraction(fps).limit_denominator(1001)
        stream = file.add_stream("libx264", rate, _X264)
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if recipe is not None:
            file.metadata["comment"] = recipe.to_json()
        track = None if sound is None else SoundTrack(file, sound)
        for number, pixels in enumerate(even, start=1):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            if track is not None:
                track.write_until(number / rate)
        file.mux(stream.encode())
        if track is not None:
            track.finish()
    return out.getvalue()


def encode_gif(frames: NDArray[np.uint8], fps: float, recipe: Recipe | None = None) -> bytes:
    """Encode uint8 [F, H, W, 3] as a looping GIF, which has no sound and rounds frame durations to
    10 ms."""
    pictures = [to_pil(frame) for frame in frames]
    out = io.BytesIO()
    comment = recipe.to_json().encode() if recipe is not None else b""
    pictures[0].save(
        out,
        "gif",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        comment=comment,
    )
    return out.getvalue()


def encode_thumbnail(frames: NDArray[np.uint8]) -> bytes:
    """WebP of the middle frame of uint8 [F, H, W, 3], at most THUMBNAIL_SIDE pixels per side."""
    picture = to_pil(frames[len(frames) // 2])
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    picture.save(out, "webp", quality=QUALITY)
    return out.getvalue()


def encode_spritesheet(frames: NDArray[np.uint8]) -> bytes:
    """JPEG of up to SPRITES frames of uint8 [F, H, W, 3], evenly spaced in time.

    They are laid out in rows from the top left, with as many columns as rows or one more; each is
    at most SPRITE_SIDE pixels per side.
    """
    from PIL import Image

    count = min(SPRITES, len(frames))
    sprites = [to_pil(frames[index * len(frames) // count]) for index in range(count)]
    for sprite in sprites:
        sprite.thumbnail((SPRITE_SIDE, SPRITE_SIDE))
    width, height = sprites[0].size
    columns = math.ceil(math.sqrt(count))
    sheet = Image.new("RGB", (columns * width, math.ceil(count / columns) * height))
    for index, sprite in enumerate(sprites):
        row, column = divmod(index, columns)
        sheet.paste(sprite, (column * width, row * height))
    out = io.BytesIO()
    sheet.save(out, "jpeg", quality=QUALITY)
    return out.getvalue()


def read_frame(video: bytes, index: Literal[0, -1]) -> NDArray[np.uint8]:
    """First or last frame, uint8 [H, W, 3], of a video file, which was encoded here."""
    import av

    with av.open(io.BytesIO(video), "r") as file:
        frames = file.decode(video=0)
        frame = next(frames) if index == 0 else deque(frames, maxlen=1).pop()
        return frame.to_ndarray(format="rgb24").astype("uint8", copy=False)
