"""Routes that clients call before they send a prompt."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from multimodal_gen.entrypoints.http.comfyui.errors import json_response
from multimodal_gen.entrypoints.http.comfyui.graph.node_definitions import NodeDefinitions
from multimodal_gen.entrypoints.http.comfyui.routes.schema import refusals
from multimodal_gen.entrypoints.http.comfyui.routes.system import system_stats
from multimodal_gen.entrypoints.http.comfyui.submission import PromptSubmitter
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.serving.service import Service


def add_info_routes(
    routes: APIRouter, service: Service, submitter: PromptSubmitter, features: dict[str, Any]
) -> None:
    async def node_definitions(request: Request) -> NodeDefinitions:
        return await asyncio.to_thread(submitter.node_definitions, owner_of(request))

    @routes.get("/object_info", responses=refusals(503))
    async def object_info(request: Request) -> Response:
        """Return the definitions of all supported nodes."""
        nodes = await node_definitions(request)
        return json_response({name: node.to_json() for name, node in nodes.items()})

    @routes.get("/object_info/{node_class}", responses=refusals(503))
    async def object_info_of(node_class: str, request: Request) -> Response:
        """Return the definition of one node; empty if it is unknown."""
        node = (await node_definitions(request)).get(node_class)
        return json_response({} if node is None else {node_class: node.to_json()})

    @routes.get("/system_stats", responses=refusals(503))
    async def stats() -> dict[str, Any]:
        """Return device, memory (bytes) and versions."""
        return system_stats(service.model)

    @routes.get("/features", responses=refusals())
    async def feature_flags() -> dict[str, Any]:
        """Return the newer protocol features that this server supports."""
        return features

    @routes.get("/embeddings", responses=refusals())
    async def embeddings() -> list[str]:
        """Return an empty list: prompts can't load textual inversions."""
        return []

    @routes.get("/models", responses=refusals())
    async def folders() -> list[str]:
        """List the types of model files that graphs may name."""
        return ["checkpoints", "loras"]

    @routes.get("/models/{model}", responses=refusals(404, 503))
    async def models(model: str) -> list[str]:
        """List the served model, or its available LoRAs.

        The parameter is a folder; Hugging Face's `POST` to the same path determines its name.
        """
        if model == "checkpoints":
            return [service.model.name]
        if model == "loras":
            return [f"{name}.safetensors" for name in await asyncio.to_thread(submitter.loras)]
        raise HTTPException(404, "no such folder")
