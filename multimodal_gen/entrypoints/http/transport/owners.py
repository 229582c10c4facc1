"""The owner of a request."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from multimodal_gen.serving.owner import Owner


def owner_of(connection: HTTPConnection) -> Owner:
    """Owner by API key; anonymous if keys are not required."""
    owner = getattr(connection.state, "owner", None)
    return owner if isinstance(owner, Owner) else Owner()
