"""Parts of OpenAI's video API that are refused, with the reason or what to use instead."""

from __future__ import annotations

from fastapi import APIRouter, Request

from multimodal_gen.entrypoints.http.openai.video_maker import VideoMaker
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.errors import InvalidRequest, NotFound

_WHY = {
    "edits": "is not asked here: send the video as `video` to /v1/videos, to a model for videos",
    "extensions": "can't extend a video: make a longer one, or start from its last frame",
    "characters": "keeps no characters: send their images to /v1/videos with each request",
}


def refused_video_routes(maker: VideoMaker) -> APIRouter:
    """Create the routes that refuse."""
    routes = APIRouter()

    async def refuse(request: Request) -> None:
        """Not supported. Always returns an error."""
        async for _ in request.stream():  # a client that is still sending would miss the response
            pass
        kind = request.url.path.rpartition("/")[2]
        raise InvalidRequest("model", (await maker.model()).name, _WHY[kind])

    for kind in _WHY:
        routes.post(f"/v1/videos/{kind}", responses=documented(400, 401, 413, 503))(refuse)

    @routes.get("/v1/videos/characters/{character_id}", responses=documented(401, 404))
    async def character(character_id: str) -> None:
        """Not supported. Always returns 404."""
        raise NotFound(f"no character {character_id[:100]!r}: {_WHY['characters']}")

    return routes
