"""`POST /v1/images/edits` and `/variations`: images from images."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from multimodal_gen.entrypoints.http.media.pictures import decode_images, file_of
from multimodal_gen.entrypoints.http.openai.image_maker import ImageMaker
from multimodal_gen.entrypoints.http.openai.images import ANSWERS
from multimodal_gen.entrypoints.http.openai.schema import EditsRequest, VariationsRequest
from multimodal_gen.entrypoints.http.transport import forms
from multimodal_gen.entrypoints.python.decoding import decode_mask, decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import Pixels, named_images

if TYPE_CHECKING:
    import numpy as np

_WITHOUT_MASK = ("image-to-image", "image-edit")
_FROM_PICTURES = (*_WITHOUT_MASK, "inpainting")


def edit_routes(maker: ImageMaker, max_input_pixels: int) -> APIRouter:
    """Create the routes for input images of at most `max_input_pixels`."""
    routes = APIRouter()

    @routes.post(
        "/v1/images/edits",
        response_class=Response,
        responses=ANSWERS,
        openapi_extra=forms.body_schema(EditsRequest, "multipart/form-data", "application/json"),
    )
    async def edit(request: Request) -> Response:
        """Edit an image as the prompt says: overall by `strength`, inside a `mask`, or by
        instruction, depending on the model; some take several images, up to
        `limits.max_images`."""
        body = await forms.parse_body(request, EditsRequest)
        model = _checked(await maker.model(body.model), _FROM_PICTURES)
        pictures = await asyncio.to_thread(_opened, body, model, max_input_pixels)
        return await maker.answer(request, body, "image_edit", model, pictures)

    @routes.post(
        "/v1/images/variations",
        response_class=Response,
        responses=ANSWERS,
        openapi_extra=forms.body_schema(
            VariationsRequest, "multipart/form-data", "application/json"
        ),
    )
    async def vary(request: Request) -> Response:
        """Generate images similar to the given one: image-to-image, with or without a prompt."""
        body = await forms.parse_body(request, VariationsRequest)
        model = _checked(await maker.model(body.model), _WITHOUT_MASK)
        if isinstance(body.image, list) and len(body.image) != 1:
            raise InvalidRequest("image", f"{len(body.image)} images", "must be one image")
        (image,) = await asyncio.to_thread(
            decode_images, body.image, "image", model, max_input_pixels
        )
        return await maker.answer(request, body, "image_edit", model, {"image": image})

    return routes


def _checked(model: ModelInfo, tasks: tuple[str, ...]) -> ModelInfo:
    """Return `model`. Raises InvalidRequest if it supports none of `tasks`."""
    if not any(task in tasks for task in model.tasks):
        allowed = (
            f"{model.name} only supports {', '.join(model.tasks)}; this needs {' or '.join(tasks)}"
        )
        raise InvalidRequest("image", "an image", allowed)
    return model


def _opened(body: EditsRequest, model: ModelInfo, max_pixels: int) -> Pixels:
    """Decode the images of an edit; a mask and a markup are of the first."""
    image, *others = decode_images(body.image, "image", model, max_pixels)
    if body.markup is not None:
        if body.mask is not None:
            raise InvalidRequest("markup", "a picture", "can't be combined with a mask")
        file = file_of(body.markup, "markup")
        markup = decode_picture(file, "markup", "RGBA", max_pixels=max_pixels)
        _check_size("markup", markup, image)
        image = _marked(image, markup)
    images = named_images([image, *others])
    if body.mask is None:
        return {**images, **_own_mask(body, model, max_pixels)}
    mask = decode_mask(file_of(body.mask, "mask"), "mask", max_pixels=max_pixels)
    _check_size("mask", mask, image)
    return {**images, "mask": mask}


def _check_size(field: str, given: np.ndarray[Any, Any], image: np.ndarray[Any, Any]) -> None:
    if given.shape[:2] != image.shape[:2]:
        allowed = f"must have the size of the image, {image.shape[1]}x{image.shape[0]}"
        raise InvalidRequest(field, f"{given.shape[1]}x{given.shape[0]}", allowed)


def _marked(image: np.ndarray[Any, Any], markup: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The image with the markup drawn over it, [H, W, 3] uint8."""
    import numpy as np
    from PIL import Image

    picture, marks = Image.fromarray(image), Image.fromarray(markup)
    picture.paste(marks, mask=marks)
    return np.array(picture)


def _own_mask(body: EditsRequest, model: ModelInfo, max_pixels: int) -> Pixels:
    """For a model that requires a mask: the image's own transparency, if it has any."""
    import numpy as np

    if any(task in model.tasks for task in _WITHOUT_MASK):
        return {}
    first = body.image[0] if isinstance(body.image, list) else body.image
    file = file_of(first, "image")
    alpha = decode_picture(file, "image", "RGBA", max_pixels=max_pixels)[..., 3]
    return {"mask": np.ascontiguousarray(255 - alpha)} if alpha.min() < 255 else {}
