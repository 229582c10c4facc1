"""Images in request bodies."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class PictureLink(BaseModel):
    """An image in JSON."""

    model_config = ConfigDict(strict=True, extra="forbid")

    image_url: str
    """A data URL, or an http(s) URL of a host that the operator allows."""


PictureSource = bytes | str | PictureLink
"""A file in a form; in JSON a data URL or base64."""
