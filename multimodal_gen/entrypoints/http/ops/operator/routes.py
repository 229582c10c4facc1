"""`/operator`: a page for who runs the server, and the state that it shows."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from multimodal_gen.entrypoints.http.ops.operator.server_state import ServerState
from multimodal_gen.entrypoints.http.ops.pages import page_headers, page_of
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.keys import operator_only


def operator_routes(state: ServerState, *, has_keys: bool) -> APIRouter:
    """Create the page, which anybody may load, and its state. A server without any keys, which
    only this machine can reach, shows the state to everyone there."""
    routes = APIRouter()
    html = page_of("operator")
    headers = page_headers(html)

    @routes.get("/operator", response_class=HTMLResponse)
    async def operator(request: Request) -> Response:
        """Return the operator's page. It asks for the administrator key."""
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(html, headers=headers, media_type="text/html; charset=utf-8")

    @routes.get(
        "/operator/status",
        dependencies=[Depends(operator_only)] if has_keys else [],
        responses=documented(401, 403),
    )
    async def status() -> dict[str, Any]:
        """Return the state of the queue, models, engines and their memory, what each key used, the
        last failures, and the end of the server's log. Needs the administrator key, unless the
        server has no keys at all."""
        return await state.now()

    return routes
