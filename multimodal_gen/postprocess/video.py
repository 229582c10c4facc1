"""Frames to MP4 and GIF, and to the stills that stand for a video."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal_gen.postprocess.images import QUALITY, to_pil

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from multimodal_gen.postprocess.metadata import Recipe

THUMBNAIL_SIDE = 512
SPRITES = 16
SPRITE_SIDE = 256
_X264 = {"x264-params": "cpu-independent=1"}
"""Without it the same frames don't always give the same file."""


def encode_mp4(frames: NDArray[np.uint8], fps: float, recipe: Recipe | None = None) -> bytes:
    """H.264 in 4:2:0, which every player shows, of uint8 [F, H, W, 3].

    4:2:0 needs even sides: an odd one is one pixel longer in the file, its last line repeated.
    """
    import av
    import numpy as np

    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("libx264", Fraction(fps).limit_denominator(1001), _X264)
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if recipe is not None:
            file.metadata["comment"] = recipe.to_json()
        for pixels in even:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return out.getvalue()


def encode_gif(frames: NDArray[np.uint8], fps: float, recipe: Recipe | None = None) -> bytes:
    """An endless GIF of uint8 [F, H, W, 3]; GIF rounds a frame's time to 10 ms."""
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
    """The middle one of uint8 [F, H, W, 3] as WebP, of at most THUMBNAIL_SIDE pixels a side."""
    picture = to_pil(frames[len(frames) // 2])
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    picture.save(out, "webp", quality=QUALITY)
    return out.getvalue()


def encode_spritesheet(frames: NDArray[np.uint8]) -> bytes:
    """Up to SPRITES of uint8 [F, H, W, 3], evenly over time, as one JPEG.

    They stand in rows from the top left, as many columns as rows or one more, each of at most
    SPRITE_SIDE pixels a side.
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


def read_first_frame(path: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of the video in `path`, one that was made here."""
    import av

    with av.open(path) as file:
        frame = next(file.decode(video=0))
        return frame.to_ndarray(format="rgb24").astype("uint8", copy=False)
