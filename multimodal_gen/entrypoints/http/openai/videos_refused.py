"""What OpenAI's video API has and no model here can do, answered with the reason."""

from __future__ import annotations

from fastapi import APIRouter, Request

from multimodal_gen.entrypoints.http.openai.video_maker import VideoMaker
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.errors import InvalidRequest, NotFound

_WHY = {
    "edits": "changes no given video: remix one that was made here, or make another",
    "extensions": "goes on from no given video: make a longer one, or start from a picture",
    "characters": "knows no characters: describe them in the prompt, or start from a picture",
}


def refused_video_routes(maker: VideoMaker) -> APIRouter:
    """The routes that refuse."""
    routes = APIRouter()

    async def refuse(request: Request) -> None:
        """Not offered."""
        async for _ in request.stream():  # a client that still sends would miss the answer
            pass
        kind = request.url.path.rpartition("/")[2]
        raise InvalidRequest("model", maker.model().name, _WHY[kind])

    for kind in _WHY:
        routes.post(f"/v1/videos/{kind}", responses=documented(400, 401, 413, 503))(refuse)

    @routes.get("/v1/videos/characters/{character_id}", responses=documented(401, 404))
    async def character(character_id: str) -> None:
        """There are none."""
        raise NotFound(f"no character {character_id[:100]!r}: {_WHY['characters']}")

    return routes
