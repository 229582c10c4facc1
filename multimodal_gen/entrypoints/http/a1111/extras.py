"""`/sdapi/v1/extra-…`: enlarges images."""

from __future__ import annotations

import asyncio
import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from multimodal_gen.entrypoints.http.a1111.ignored import without_effect
from multimodal_gen.entrypoints.http.a1111.schema import Body
from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.http.openai.image_replies import in_base64
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.postprocess.upscale import UPSCALERS, TargetSize, upscale

if TYPE_CHECKING:
    from PIL.Image import Image


_LARGEST = 100_000
Visibility = Annotated[float, Field(ge=0, le=1)]


class Extras(Body):
    """Common fields of both routes. Faces are not restored."""

    model_config = ConfigDict(extra="allow")

    resize_mode: Literal[0, 1] | None = None
    """0: by `upscaling_resize`; 1: to at least `upscaling_resize_w` x `upscaling_resize_h`."""
    show_extras_results: bool | None = None
    gfpgan_visibility: Visibility | None = None
    codeformer_visibility: Visibility | None = None
    upscaling_resize: float | None = None
    upscaling_resize_w: int | None = None
    upscaling_resize_h: int | None = None
    upscaling_crop: bool | None = None
    upscaler_1: str | None = None
    upscaler_2: str | None = None
    extras_upscaler_2_visibility: Visibility | None = None

    def target(self) -> TargetSize:
        """Return the size of the result. Raises InvalidRequest."""
        factor = _positive("upscaling_resize", self.upscaling_resize, 2)
        width = _positive("upscaling_resize_w", self.upscaling_resize_w, 512)
        height = _positive("upscaling_resize_h", self.upscaling_resize_h, 512)
        if not self.resize_mode:
            return TargetSize(factor)
        return TargetSize(factor, int(width), int(height), self.upscaling_crop is not False)


class SingleImage(Extras):
    """Body of `POST /extra-single-image`."""

    image: str


class NamedImage(Body):
    data: str
    name: str | None = None


class SeveralImages(Extras):
    """Body of `POST /extra-batch-images`."""

    imageList: list[NamedImage]


class SingleResult(BaseModel):
    """The image as a PNG in base64, and notes on what has no effect."""

    html_info: str
    image: str | None


class SeveralResults(BaseModel):
    html_info: str
    images: list[str]


def add_extras(routes: APIRouter, max_pixels: int) -> None:
    """Add the routes that enlarge images, to at most `max_pixels` in sum; one request at a time."""
    turn = asyncio.Semaphore(1)

    async def results(body: Extras, images: Sequence[str], field: str) -> list[str]:
        async with turn:
            made = await asyncio.to_thread(_made, body, images, field, max_pixels)
        return [] if body.show_extras_results is False else made

    @routes.post("/extra-single-image")
    async def extra_single_image(body: SingleImage) -> SingleResult:
        """Enlarge an image by Lanczos or nearest-neighbor interpolation."""
        made = await results(body, [body.image], "image")
        return SingleResult(html_info=_notes(body), image=next(iter(made), None))

    @routes.post("/extra-batch-images")
    async def extra_batch_images(body: SeveralImages) -> SeveralResults:
        """Enlarge several images by Lanczos or nearest-neighbor interpolation."""
        made = await results(body, [each.data for each in body.imageList], "imageList")
        return SeveralResults(html_info=_notes(body), images=made)


def _made(body: Extras, images: Sequence[str], field: str, max_pixels: int) -> list[str]:
    target, free = body.target(), max_pixels
    made = []
    for text in images:
        image = _decoded(bytes_of(text, field), field, max_pixels)
        size = image.size if _known(body.upscaler_1) == "None" else target.of(image)
        free -= math.prod(size)
        if free < 0:
            allowed = f"all results must have at most {max_pixels} pixels in sum"
            raise InvalidRequest("upscaling_resize", f"{size[0]}x{size[1]}", allowed)
        made.append(in_base64(_png(_enlarged(body, image, target))))
    return made


def _enlarged(body: Extras, image: Image, target: TargetSize) -> Image:
    """A second upscaler is mixed into the result of the first, as in the web UI."""
    from PIL import Image

    first, second = _known(body.upscaler_1), _known(body.upscaler_2)
    result = upscale(image, first, target)
    share = body.extras_upscaler_2_visibility or 0
    if first == "None" or second == "None" or share == 0:
        return result
    return Image.blend(result, upscale(image, second, target), share)


def _decoded(file: bytes, field: str, max_pixels: int) -> Image:
    from PIL import Image

    image = Image.fromarray(decode_picture(file, field, "RGBA", max_pixels=max_pixels))
    return image.convert("RGB") if image.getchannel("A").getextrema() == (255, 255) else image


def _png(image: Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


def _positive(name: str, given: float | None, default: float) -> float:
    value = default if given is None else given
    if not 0 < value <= _LARGEST:
        raise InvalidRequest(name, value, f"must be more than 0 and at most {_LARGEST}")
    return value


def _known(upscaler: str | None) -> str:
    """Models for upscaling are not supported; Lanczos comes nearest."""
    if upscaler is None:
        return "None"
    return upscaler if upscaler in UPSCALERS else "Lanczos"


def _notes(body: Extras) -> str:
    """HTML with a paragraph per field without effect."""
    upscalers = {"upscaler_1": body.upscaler_1, "upscaler_2": body.upscaler_2}
    notes = [
        f"{name}={upscaler[:60]!r}: Lanczos is used instead; known are {', '.join(UPSCALERS)}"
        for name, upscaler in upscalers.items()
        if upscaler is not None and upscaler not in UPSCALERS
    ]
    faces = {name: getattr(body, name) for name in ("gfpgan_visibility", "codeformer_visibility")}
    notes += map(str, without_effect({**faces, **(body.model_extra or {})}))
    return "".join(f"<p>{html.escape(note)}</p>" for note in notes)
