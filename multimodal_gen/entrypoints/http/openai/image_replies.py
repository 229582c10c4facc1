"""Formats generated images for the client."""

from __future__ import annotations

import base64
import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import Response
from pydantic import BaseModel, ConfigDict

from multimodal_gen.client.request_handle import Output, longest_timings, warnings_of
from multimodal_gen.entrypoints.http.openai.schema import ImageFields
from multimodal_gen.entrypoints.http.transport.warnings import warning_headers
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import as_plain
from multimodal_gen.postprocess.images import QUALITY, ImageFormat, encode_image, to_pil
from multimodal_gen.postprocess.metadata import Recipe
from multimodal_gen.serving.usage import RequestUsage

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Encoding:
    """Format and quality of image files."""

    format: ImageFormat
    quality: int
    model: str

    @classmethod
    def of(cls, body: ImageFields, model: str) -> Encoding:
        given = body.output_compression
        # Pillow's quality 0 gives files that some programs can't read.
        return cls(body.output_format or "png", QUALITY if given is None else max(1, given), model)

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"

    def encode(self, req: Req, output: Output) -> bytes:
        """File of an output, with its recipe."""
        recipe = Recipe.of(req, output, self.model)
        return encode_image(output.pixels[0], self.format, recipe, self.quality)

    def encode_preview(self, req: Req, pixels: np.ndarray[Any, Any]) -> bytes:
        """File of a preview, scaled to the size of the output."""
        import numpy as np

        size = (req.params.width or 1, req.params.height or 1)
        return encode_image(np.asarray(to_pil(pixels).resize(size)), self.format, None, QUALITY)


class Picture(BaseModel):
    """One image of an ImagesReply."""

    model_config = ConfigDict(extra="allow")

    b64_json: str | None = None
    url: str | None = None
    seed: int
    revised_prompt: str | None = None
    """The prompt that was used, if it was enhanced."""
    evaluations: dict[str, int] | None = None
    """Numbers of evaluations that were computed, and that were extrapolated."""


class ImagesReply(BaseModel):
    """OpenAI's ImagesResponse, plus id, seeds, timings and warnings."""

    model_config = ConfigDict(extra="allow")

    created: int
    data: list[Picture]
    background: str
    output_format: str
    quality: str | None = None
    """Only if the request named one."""
    size: str
    usage: dict[str, Any]
    """Tokens of the prompt and of input images; as output, one token per 16 x 16 pixels; and
    `megapixel_steps`, megapixels times computed evaluations."""


@dataclass(frozen=True)
class FinishedImage:
    """An output and its file."""

    req: Req
    output: Output
    file: bytes


def common(body: ImageFields, encoding: Encoding, req: Req) -> dict[str, Any]:
    """Fields shared by a reply and the events of a stream."""
    fields = {
        "background": "opaque",
        "output_format": encoding.format,
        "size": f"{req.params.width}x{req.params.height}",
    }
    if identifier := body.safety_identifier or body.user:
        fields["safety_identifier"] = identifier
    return fields


def output_fields(output: Output) -> dict[str, Any]:
    """Fields besides the image itself."""
    fields = {"id": output.id, "seed": output.seed, "timings": output.timings}
    told = {
        "revised_prompt": output.revised_prompt,
        "prompt_notes": output.prompt_notes,
        "evaluations": msgspec.to_builtins(output.evaluations),
    }
    return {**fields, **{name: value for name, value in told.items() if value}}


def size_of_result(output: Output) -> str:
    """WIDTHxHEIGHT, which differs from the request's if it was upscaled."""
    height, width = output.pixels.shape[1:3]
    return f"{width}x{height}"


def in_base64(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")


def reply(
    body: ImageFields,
    encoding: Encoding,
    made: Sequence[FinishedImage],
    request_id: str,
    place: Callable[[bytes], Mapping[str, Any]],
) -> Response:
    """OpenAI's ImagesResponse; `place` is where a file goes: into the reply, or behind a URL."""
    outputs = [each.output for each in made]
    content: dict[str, Any] = {
        "created": int(time.time()),
        "data": [{**place(each.file), **output_fields(each.output)} for each in made],
        **common(body, encoding, made[0].req),
        "size": size_of_result(outputs[0]),
        "usage": RequestUsage.of([each.req for each in made], outputs).described(),
        "id": request_id,
        "seeds": [output.seed for output in outputs],
        "timings": longest_timings(outputs),
    }
    if (quality := quality_of(body)) != "auto":  # not a value of this field, unlike in events
        content["quality"] = quality
    if warnings := [*body.warnings(), *warnings_of(outputs)]:
        content["warnings"] = as_plain(warnings)
    return Response(msgspec.json.encode(content), media_type="application/json")


def raw(body: ImageFields, encoding: Encoding, made: Sequence[FinishedImage]) -> Response:
    """Return the image file, or a zip of several."""
    headers = {"x-seeds": ",".join(str(each.output.seed) for each in made)}
    headers |= warning_headers([*body.warnings(), *warnings_of([each.output for each in made])])
    if len(made) == 1:
        return Response(made[0].file, media_type=encoding.media_type, headers=headers)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:  # stored, because images are already compressed
        for index, each in enumerate(made):
            archive.writestr(f"{index}.{encoding.format}", each.file)
    return Response(out.getvalue(), media_type="application/zip", headers=headers)


def quality_of(body: ImageFields) -> str:
    """Quality in OpenAI's current terms."""
    given = body.quality or "auto"
    return {"standard": "medium", "hd": "high"}.get(given, given)
