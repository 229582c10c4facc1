"""AUTOMATIC1111's API under `/sdapi/v1`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.a1111.catalogue import add_lists, add_settings
from multimodal_gen.entrypoints.http.a1111.chosen_models import ChosenModels
from multimodal_gen.entrypoints.http.a1111.extras import add_extras
from multimodal_gen.entrypoints.http.a1111.generation import add_generation
from multimodal_gen.entrypoints.http.a1111.schema import NAMES
from multimodal_gen.entrypoints.http.openai.image_maker import ImageMaker
from multimodal_gen.entrypoints.http.transport.error_shapes import routes_that_err_as
from multimodal_gen.serving.service import Service


class A1111Failure(BaseModel):
    """An error in the web UI's format."""

    error: str
    detail: str
    body: str
    errors: str


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": A1111Failure}
    for status in (400, 401, 403, 404, 408, 413, 429, 499, 500, 503, 507)
}


def a1111_routes(maker: ImageMaker, args: ServerArgs) -> APIRouter:
    """Create all routes below `/sdapi/v1`."""
    routes = APIRouter(
        prefix="/sdapi/v1", route_class=routes_that_err_as(as_a1111, NAMES), responses=_ERRORS
    )
    chosen = ChosenModels(maker.service)
    add_generation(routes, maker, chosen, args.max_input_pixels)
    add_extras(routes, args.max_input_pixels)
    add_lists(routes, maker.service, chosen)
    add_settings(routes, chosen)
    return routes


def controlnet_routes(service: Service) -> APIRouter:
    """Create the lists of the ControlNet extension."""
    routes = APIRouter(prefix="/controlnet")

    @routes.get("/model_list")
    def models() -> dict[str, list[str]]:
        """List the controls, which `alwayson_scripts.controlnet` selects as `model`."""
        return {"model_list": service.served(None).controls()}

    @routes.get("/module_list")
    async def modules() -> dict[str, list[str]]:
        """List the preprocessors: there are none."""
        return {"module_list": ["none"]}

    return routes


def as_a1111(error: dict[str, Any]) -> dict[str, Any]:
    message = error["message"]
    return {"error": error["code"], "detail": message, "body": "", "errors": message}
