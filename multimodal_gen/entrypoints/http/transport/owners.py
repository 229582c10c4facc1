"""The owner of a request."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import Scope

from multimodal_gen.serving.owner import Owner


def owner_of(connection: HTTPConnection) -> Owner:
    """Owner by API key; anonymous if keys are not required."""
    owner = getattr(connection.state, "owner", None)
    return owner if isinstance(owner, Owner) else Owner()


def owner_name(scope: Scope) -> str:
    """Name of the owner of a request; empty before its key was checked."""
    owner = scope.get("state", {}).get("owner")
    return owner.name if isinstance(owner, Owner) else ""
