"""The files of a job that is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multimodal_gen.runtime.generation import Output
from multimodal_gen.runtime.postprocess.files import encode
from multimodal_gen.runtime.postprocess.metadata import Recipe
from multimodal_gen.runtime.serving.records import JobRecord

Render = Callable[[JobRecord, Sequence[Output]], dict[str, bytes]]
"""Names of files, which begin with the job's id, and their bytes. May take long."""

_SUFFIXES = {"video": ".mp4", "image": ".png"}


def render(record: JobRecord, outputs: Sequence[Output]) -> dict[str, bytes]:
    """One file an output: ID-INDEX with the suffix in the job's meta, by default .mp4 or .png."""
    suffix = record.meta.get("suffix") or _SUFFIXES[record.kind]
    pairs = zip(record.request.requests, outputs, strict=True)
    return {
        f"{record.id}-{index}{suffix}": encode(
            output.pixels, suffix, output.fps, Recipe(req.params, record.model)
        )
        for index, (req, output) in enumerate(pairs)
    }
