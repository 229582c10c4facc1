"""Who sent a request."""

from __future__ import annotations

from fastapi import Request

from multimodal_gen.runtime.serving.owner import Owner


def owner_of(request: Request) -> Owner:
    """As the API key says; anonymous where none is asked for."""
    owner = getattr(request.state, "owner", None)
    return owner if isinstance(owner, Owner) else Owner()
