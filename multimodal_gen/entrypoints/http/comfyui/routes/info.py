"""Routes that clients call before they send a prompt."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from multimodal_gen.entrypoints.http.comfyui.errors import json_response
from multimodal_gen.entrypoints.http.comfyui.graph.definition import NodeDefinitions
from multimodal_gen.entrypoints.http.comfyui.routes.schema import refusals
from multimodal_gen.entrypoints.http.comfyui.routes.system import system_stats
from multimodal_gen.entrypoints.http.comfyui.submission import PromptSubmitter
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.serving.service import Service

MODEL_FOLDERS = (
    "checkpoints",
    "clip_vision",
    "controlnet",
    "diffusion_models",
    "loras",
    "upscale_models",
    "text_encoders",
    "vae",
)
"""Types of model files. Those other than `loras` and `controlnet` hold the served models."""


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

    async def files_in(folder: str) -> list[str]:
        if folder not in MODEL_FOLDERS:
            raise HTTPException(404, "no such folder")
        listed = {
            "loras": submitter.loras,
            "controlnet": submitter.controls,
            "upscale_models": submitter.upscalers,
        }.get(folder)
        if listed is not None:
            return [f"{name}.safetensors" for name in await asyncio.to_thread(listed)]
        return submitter.models()

    @routes.get("/models", responses=refusals())
    async def folders() -> list[str]:
        """List the types of model files that graphs may name."""
        return list(MODEL_FOLDERS)

    @routes.get("/models/{model}", responses=refusals(404, 503))
    async def models(model: str) -> list[str]:
        """List the served models, or the available LoRAs.

        The parameter is a folder; Hugging Face's `POST` to the same path determines its name.
        """
        return await files_in(model)

    @routes.get("/experiment/models", responses=refusals())
    async def folders_in_detail() -> list[dict[str, Any]]:
        """List the types of model files, without their paths."""
        return [{"name": folder, "folders": []} for folder in MODEL_FOLDERS]

    @routes.get("/experiment/models/{folder}", responses=refusals(404, 503))
    async def models_in_detail(folder: str) -> list[dict[str, Any]]:
        """List the files of one type."""
        return [{"name": name, "pathIndex": 0} for name in await files_in(folder)]


def add_editor_routes(routes: APIRouter) -> None:
    """Routes that clients share with ComfyUI's editor. There is none here, so nothing is stored."""

    @routes.get("/extensions", responses=refusals())
    async def extensions() -> list[str]:
        """Return an empty list: there are no extensions."""
        return []

    @routes.get("/users", responses=refusals())
    async def users() -> dict[str, Any]:
        """Return where users are stored; clients don't choose one."""
        return {"storage": "server", "migrated": True}

    @routes.get("/settings", responses=refusals())
    async def settings() -> dict[str, Any]:
        """Return the editor's settings: none."""
        return {}

    @routes.get("/settings/{name}", responses=refusals())
    async def setting(name: str) -> None:
        """Return null: no setting is stored."""
