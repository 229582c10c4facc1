"""The files of a job that is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multimodal_gen.client.request_handle import Output
from multimodal_gen.postprocess.files import encode_file
from multimodal_gen.postprocess.images import QUALITY
from multimodal_gen.postprocess.metadata import Recipe
from multimodal_gen.postprocess.video import encode_spritesheet, encode_thumbnail
from multimodal_gen.serving.records import JobRecord

Render = Callable[[JobRecord, Sequence[Output]], dict[str, bytes]]
"""Names of files, which begin with the job's id, and their bytes. May take long."""

_SUFFIXES = {"video": ".mp4", "image": ".png"}


def render(record: JobRecord, outputs: Sequence[Output]) -> dict[str, bytes]:
    """One file an output: ID-INDEX with the suffix in the job's meta, by default .mp4 or .png; and
    of a video a thumbnail and a spritesheet, .webp and .jpg."""
    suffix = record.meta.get("suffix") or _SUFFIXES[record.kind]
    quality = record.meta.get("quality") or QUALITY
    files = {}
    for index, (req, output) in enumerate(zip(record.request.requests, outputs, strict=True)):
        name, recipe = f"{record.id}-{index}", Recipe(req.params, record.model)
        files[name + suffix] = encode_file(output.pixels, suffix, output.fps, recipe, quality)
        if record.kind == "video":
            files[f"{name}.webp"] = encode_thumbnail(output.pixels)
            files[f"{name}.jpg"] = encode_spritesheet(output.pixels)
    return files
