"""Encodes the files of a finished job."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multimodal_gen.client.request_handle import Output
from multimodal_gen.postprocess.files import encode_file
from multimodal_gen.postprocess.images import QUALITY
from multimodal_gen.postprocess.metadata import Recipe
from multimodal_gen.postprocess.video import encode_spritesheet, encode_thumbnail
from multimodal_gen.serving.records import JobRecord

Render = Callable[[JobRecord, Sequence[Output]], dict[str, bytes]]
"""Returns bytes by file name; names start with the job's id. May take long."""

TILE_SIDE = 256
"""Longest side of an image, in pixels, that needs no thumbnail."""
_SUFFIXES = {"video": ".mp4", "image": ".png"}


def render(record: JobRecord, outputs: Sequence[Output]) -> dict[str, bytes]:
    """Encode one file per output: ID-INDEX with the suffix in the job's meta, by default .mp4 or
    .png. A large image also gets a thumbnail (.thumbnail.webp), and a video a thumbnail (.webp) and
    a spritesheet (.jpg)."""
    suffix = record.meta.get("suffix") or _SUFFIXES[record.kind]
    quality = record.meta.get("quality") or QUALITY
    files = {}
    for index, (req, output) in enumerate(zip(record.request.requests, outputs, strict=True)):
        name, recipe = f"{record.id}-{index}", Recipe.of(req, output, record.model)
        files[name + suffix] = encode_file(output, suffix, recipe, quality)
        if record.kind == "image" and max(output.pixels.shape[1:3]) > TILE_SIDE:
            files[f"{name}.thumbnail.webp"] = encode_thumbnail(output.pixels)
        if record.kind == "video":
            files[f"{name}.webp"] = encode_thumbnail(output.pixels)
            files[f"{name}.jpg"] = encode_spritesheet(output.pixels)
    return files
