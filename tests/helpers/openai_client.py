"""The openai package, and what its replies hold."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import openai
from PIL import Image


def client_of(url: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", **{"api_key": "none", "max_retries": 0, **options})


def file_of(image: Any) -> bytes:
    """Of a reply's entry, or of a stream's event."""
    return base64.b64decode(image.b64_json, validate=True)


def pixels_of(image: Any) -> np.ndarray:
    return decoded(file_of(image))


def decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as opened:
        return np.asarray(opened).astype(int)


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()
