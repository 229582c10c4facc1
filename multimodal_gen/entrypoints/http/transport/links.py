"""Replaces links to images in a body by the images, if the operator allows their hosts."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import BaseModel

from multimodal_gen.entrypoints.http.openai.parameter_fields import types_in
from multimodal_gen.entrypoints.http.openai.picture_fields import PictureLink
from multimodal_gen.entrypoints.http.transport.fetch import MediaFetcher

_SCHEMES = ("http://", "https://")


async def follow_links(request: Request, body: BaseModel, prefix: str = "") -> None:
    """Replace URLs by files, in image fields of `body` and of objects that it lists; `prefix` goes
    before their names. Raises InvalidRequest."""
    fetcher: MediaFetcher = request.app.state.media
    for name, field in type(body).model_fields.items():
        value = getattr(body, name)
        if PictureLink not in types_in(field.annotation):
            for each in value if isinstance(value, list) else ():
                if isinstance(each, BaseModel):
                    await follow_links(request, each, f"{name}.")
        elif isinstance(value, list):
            setattr(body, name, [await _file(fetcher, each, prefix + name) for each in value])
        else:
            setattr(body, name, await _file(fetcher, value, prefix + name))


async def _file(fetcher: MediaFetcher, value: Any, field: str) -> Any:
    url = value.image_url if isinstance(value, PictureLink) else value
    if isinstance(url, str) and url[:8].lower().startswith(_SCHEMES):
        return await fetcher.fetch(url, field)
    return value
