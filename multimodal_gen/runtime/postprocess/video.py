"""Frames to MP4 and GIF."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from multimodal_gen.runtime.postprocess.images import to_pil

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from multimodal_gen.runtime.postprocess.metadata import Recipe


def encode_mp4(frames: NDArray[np.uint8], fps: float, recipe: Recipe | None = None) -> bytes:
    """H.264 in 4:2:0, which every player shows, of uint8 [F, H, W, 3].

    4:2:0 needs even sides: an odd one is one pixel longer in the file, its last line repeated.
    """
    import imageio.v3
    import numpy as np

    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    out = io.BytesIO()
    with imageio.v3.imopen(out, "w", plugin="pyav", extension=".mp4") as file:
        file.init_video_stream("libx264", fps=float(fps), pixel_format="yuv420p")
        if recipe is not None:
            file.container_metadata["comment"] = recipe.to_json()
        for frame in even:
            file.write_frame(frame)
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
