"""Who sent a request."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from multimodal_gen.serving.owner import Owner


def owner_of(connection: HTTPConnection) -> Owner:
    """As the API key says; anonymous where none is asked for."""
    owner = getattr(connection.state, "owner", None)
    return owner if isinstance(owner, Owner) else Owner()
