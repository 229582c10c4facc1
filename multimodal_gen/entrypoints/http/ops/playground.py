"""`/`: the playground, and the routes that it needs before it has a key."""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from multimodal_gen.checkpoints.lora.about import LoraAbout
from multimodal_gen.configs.control.modes import FLUX_MODES, UNET_MODES
from multimodal_gen.configs.lora.contracts import contract_of
from multimodal_gen.configs.solvers import SOLVERS, a1111_name
from multimodal_gen.entrypoints.http.ops.docs import sections
from multimodal_gen.entrypoints.http.ops.pages import page_headers, page_of
from multimodal_gen.entrypoints.http.ops.prompt_help import counts_tokens, examples_of
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.key_ring import KeyRing
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service
from multimodal_gen.version import __version__

_BESIDE = {
    "manifest.webmanifest": "application/manifest+json",
    "icon.svg": "image/svg+xml",
    "icon.png": "image/png",
}
"""Files that a browser asks for to install the page as an app, with their types."""


def playground_routes(service: Service, ring: KeyRing) -> APIRouter:
    """Routes for the playground and the data it loads."""
    routes = APIRouter()
    html = page()
    headers = page_headers(html)

    @routes.get("/", response_class=HTMLResponse, tags=[sections.OPERATION])
    async def playground(request: Request) -> Response:
        """Return the playground page."""
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(html, headers=headers, media_type="text/html; charset=utf-8")

    for name, kind in _BESIDE.items():
        _add_file(routes, name, kind)

    @routes.get("/playground/access", tags=[sections.OPERATION])
    async def access(request: Request) -> dict[str, Any]:
        """Return whether this client must send an API key. Needs no key, and never fails."""
        return {
            "needs_key": ring.guards and owner_of(request) == Owner(),
            "phase": service.health().phase,
            "version": __version__,
        }

    @routes.get(
        "/model_info",
        response_model=dict[str, Any],
        responses=documented(401, 404, 500, 503),
        tags=[sections.MODELS],
    )
    async def model_info(model: str | None = None) -> dict[str, Any]:
        """Return the tasks, defaults and limits of a model (default: the first one), the LoRAs that
        it can use and what their files say of themselves, the models that may enlarge its results,
        example prompts, and the names of all models. A model that was never loaded is loaded."""
        known = await service.known(model)
        info: dict[str, Any] = msgspec.to_builtins(known)
        names = [each.name for each in service.fleet.models]
        served = service.served(model)
        about = await asyncio.to_thread(served.about_loras)
        examples = await asyncio.to_thread(examples_of, served)
        told = {lora: described for lora, each in about.items() if (described := _told(lora, each))}
        return {
            **info,
            "loras": [*about],
            "controls": await asyncio.to_thread(served.controls),
            "upscalers": await asyncio.to_thread(served.upscalers),
            "about_loras": told,
            "example_prompts": msgspec.to_builtins(examples.prompts),
            "knows_words": examples.known is not None,
            "counts_tokens": await asyncio.to_thread(counts_tokens, served, known),
            "models": names,
        }

    return routes


def _add_file(routes: APIRouter, name: str, kind: str) -> None:
    content = (resources.files("multimodal_gen") / "assets/playground/app" / name).read_bytes()
    headers = {"cache-control": "max-age=86400", "x-content-type-options": "nosniff"}

    @routes.get(f"/playground/{name}", include_in_schema=False)
    async def file() -> Response:
        return Response(content, headers=headers, media_type=kind)


def _told(name: str, about: LoraAbout) -> dict[str, Any]:
    """Return what is known of a LoRA."""
    contract = contract_of(name, *about.titles)
    found = {
        "base": about.base,
        "trigger_words": about.trigger_words,
        "thumbnail": about.thumbnail,
        "parameters": {} if contract is None else dict(contract.parameters),
    }
    return {key: value for key, value in found.items() if value}


def number_of(text: str) -> str:
    """Return what the page looks a text's translation up by: shorter than the text."""
    number = 5381
    for letter in text:
        number = (number * 33 & 0xFFFFFFFF) ^ ord(letter)
    return f"{number:x}"


def page() -> str:
    """Return the page, with other programs' names of solvers, the modes of controls and other
    languages filled in."""
    solvers: dict[str, list[str]] = {}
    for name in SOLVERS:
        solvers.setdefault(a1111_name(name), []).append(name)
    chinese = resources.files("multimodal_gen") / "assets/playground/chinese.json"
    texts = json.loads(chinese.read_text("utf-8"))
    translations = {"zh": {number_of(text): words for text, words in texts.items()}}
    modes = sorted({*UNET_MODES, *FLUX_MODES})
    constants = {"SAMPLERS": solvers, "TRANSLATIONS": translations, "CONTROL_MODES": modes}
    return page_of(
        "playground",
        {
            name: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for name, value in constants.items()
        },
    )
