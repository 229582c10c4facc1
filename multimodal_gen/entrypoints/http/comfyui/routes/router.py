"""ComfyUI's routes, each with and without the prefix /api."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.comfyui.errors import as_comfyui
from multimodal_gen.entrypoints.http.comfyui.execution import Executor
from multimodal_gen.entrypoints.http.comfyui.files import Files
from multimodal_gen.entrypoints.http.comfyui.prompts import Prompts
from multimodal_gen.entrypoints.http.comfyui.result_cache import ResultCache
from multimodal_gen.entrypoints.http.comfyui.routes.channels import Channels
from multimodal_gen.entrypoints.http.comfyui.routes.files import add_file_routes
from multimodal_gen.entrypoints.http.comfyui.routes.info import add_editor_routes, add_info_routes
from multimodal_gen.entrypoints.http.comfyui.routes.jobs import add_job_routes
from multimodal_gen.entrypoints.http.comfyui.routes.prompts import (
    add_history_routes,
    add_prompt_routes,
    add_queue_routes,
)
from multimodal_gen.entrypoints.http.comfyui.routes.sockets import Sockets
from multimodal_gen.entrypoints.http.comfyui.submission import PromptSubmitter
from multimodal_gen.entrypoints.http.transport.error_shapes import routes_that_err_as
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service


def comfyui_routes(service: Service, jobs: Jobs, args: ServerArgs) -> APIRouter:
    """Create all routes. Prompts, their history and file names are lost when the server stops."""
    prompts, channels, files = Prompts(), Channels(), Files(jobs.results)
    cache = ResultCache(files)
    executor = Executor(prompts, channels, files, cache)
    submitter = PromptSubmitter(service, args, files, prompts, cache)
    features = {"supports_preview_metadata": True, "max_upload_size": args.max_body_bytes}
    sockets = Sockets(channels, prompts, executor, features)

    routes = APIRouter(route_class=routes_that_err_as(as_comfyui))
    add_prompt_routes(routes, submitter, executor)
    add_queue_routes(routes, prompts, cache)
    add_history_routes(routes, prompts)
    add_file_routes(routes, files, args.max_input_pixels)
    add_info_routes(routes, service, submitter, features)
    add_editor_routes(routes)

    @routes.websocket("/ws")
    async def follow(socket: WebSocket) -> None:
        await sockets.serve(socket)

    both = APIRouter(route_class=routes_that_err_as(as_comfyui))
    add_job_routes(both, prompts)
    both.include_router(routes)
    both.include_router(routes, prefix="/api", include_in_schema=False)
    return both
