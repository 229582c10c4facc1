"""Encodes videos in the formats of output nodes."""

from __future__ import annotations

import io
from dataclasses import replace

from multimodal_gen.client.request_handle import Output
from multimodal_gen.entrypoints.http.comfyui.graph.values import VideoFormat
from multimodal_gen.postprocess.files import encode_file
from multimodal_gen.postprocess.images import to_pil
from multimodal_gen.postprocess.metadata import Recipe


def encode_video(output: Output, format: VideoFormat, recipe: Recipe | None = None) -> bytes:
    """Encode the frames of a result, and its sound where the format has some."""
    if format.suffix != ".webp":
        return encode_file(replace(output, fps=format.fps), format.suffix, recipe)
    first, *others = (to_pil(frame) for frame in output.pixels)
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
