"""Encodes videos in the formats of output nodes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.http.comfyui.graph.values import VideoFormat
from multimodal_gen.postprocess.files import encode_file
from multimodal_gen.postprocess.images import to_pil
from multimodal_gen.postprocess.metadata import Recipe

if TYPE_CHECKING:
    import numpy as np


def encode_video(
    frames: np.ndarray[Any, Any], format: VideoFormat, recipe: Recipe | None = None
) -> bytes:
    """Encode uint8 [F, H, W, 3]."""
    if format.suffix != ".webp":
        return encode_file(frames, format.suffix, format.fps, recipe)
    first, *others = (to_pil(frame) for frame in frames)
    out = io.BytesIO()
    first.save(
        out,
        "webp",
        save_all=True,
        append_images=others,
        duration=round(1000 / format.fps),
        lossless=format.lossless,
        quality=format.quality,
    )
    return out.getvalue()
