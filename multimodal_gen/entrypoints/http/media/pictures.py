"""Decodes images in request bodies: files, data URLs, base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.http.openai.picture_fields import PictureLink, PictureSource
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import check_number, control_names

if TYPE_CHECKING:
    import numpy as np

_DATA_URL = re.compile(r"data:[^,]{0,200},", re.ASCII | re.IGNORECASE)
_PIECE = 2**20
"""Characters decoded at once."""


def file_of(given: PictureSource, field: str) -> bytes:
    """Get the file of an image in a body. Raises InvalidRequest."""
    text = given.image_url if isinstance(given, PictureLink) else given
    return text if isinstance(text, bytes) else bytes_of(text, field)


def decode_images(
    given: PictureSource | list[PictureSource], field: str, model: ModelInfo, max_pixels: int
) -> list[np.ndarray[Any, Any]]:
    """Decode one image or several, [H, W, 3] each. Raises InvalidRequest, for more than the model
    takes before any is decoded."""
    listed = given if isinstance(given, list) else [given]
    check_number(len(listed), model, field)
    return [decode_picture(file_of(each, field), field, max_pixels=max_pixels) for each in listed]


def control_pictures(
    given: Sequence[PictureSource], model: ModelInfo, max_pixels: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Decode the images of controls, in their order. Raises InvalidRequest, for more than the model
    takes before any is decoded."""
    if len(given) > (most := model.limits.max_controls):
        raise InvalidRequest("control", f"{len(given)} controls", f"must be at most {most}")
    files = (file_of(each, "control") for each in given)
    decoded = (decode_picture(file, "control", max_pixels=max_pixels) for file in files)
    return dict(zip(control_names(len(given)), decoded, strict=True))


def bytes_of(text: str, field: str) -> bytes:
    """Decode a data URL or bare base64. Raises InvalidRequest."""
    if (header := _DATA_URL.match(text)) is not None:
        text = text[header.end() :]
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://", text):
        raise InvalidRequest(field, text, "URLs are not fetched: send the image itself")
    try:
        return _decoded(text)
    except (binascii.Error, ValueError):
        allowed = "must be a file, a data URL or base64"
        raise InvalidRequest(field, text, allowed) from None


def _decoded(text: str) -> bytes:
    """Decode base64 in pieces: other threads have to wait while one is decoded."""
    decoded, rest = [], ""
    for start in range(0, len(text) or 1, _PIECE):
        piece = rest + "".join(text[start : start + _PIECE].split())
        end = len(piece) if start + _PIECE >= len(text) else len(piece) // 4 * 4
        decoded.append(base64.b64decode(piece[:end], validate=True))
        rest = piece[end:]
    return b"".join(decoded)
