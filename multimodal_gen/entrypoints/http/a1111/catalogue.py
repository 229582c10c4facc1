"""`/sdapi/v1`: lists of models, samplers and LoRAs, and settings."""

from __future__ import annotations

from typing import Any

import psutil
from fastapi import APIRouter, Request, Response

from multimodal_gen.checkpoints.lora.about import LoraAbout
from multimodal_gen.checkpoints.upscaler.folder import scale_of
from multimodal_gen.configs.lora.contracts import contract_of
from multimodal_gen.configs.solvers import a1111_name, a1111_schedule
from multimodal_gen.entrypoints.http.a1111.chosen_models import CHECKPOINT, ChosenModels
from multimodal_gen.entrypoints.http.a1111.ignored import without_effect
from multimodal_gen.entrypoints.http.a1111.schema import PictureBody
from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.http.media.solvers import components_of_kind
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.entrypoints.http.transport.warnings import warning_headers
from multimodal_gen.postprocess.infotext import parse_infotext
from multimodal_gen.postprocess.metadata import read_infotext
from multimodal_gen.postprocess.upscale import UPSCALERS
from multimodal_gen.serving.service import Service

JsonObject = dict[str, Any]

_EMPTY = (
    "latent-upscale-modes",
    "sd-vae",
    "hypernetworks",
    "face-restorers",
    "realesrgan-models",
    "prompt-styles",
    "script-info",
    "extensions",
)
"""Routes whose lists are always empty."""


def add_lists(routes: APIRouter, service: Service, chosen: ChosenModels) -> None:
    """Add the lists that clients show in menus: models, samplers, LoRAs and others."""

    @routes.get("/sd-models")
    async def sd_models() -> list[JsonObject]:
        """List the served models."""
        service.info_of(service.fleet.default)
        unknown = {"hash": None, "sha256": None, "config": None}
        return [
            {"title": model.name, "model_name": model.name, "filename": model.name, **unknown}
            for model in service.fleet.models
        ]

    @routes.get("/samplers")
    async def samplers(request: Request) -> list[JsonObject]:
        """List the samplers of the chosen model."""
        model = await chosen.info(owner_of(request))
        return [
            {"name": a1111_name(solver), "aliases": list(components_of_kind(solver)), "options": {}}
            for solver in model.schedulers
        ]

    @routes.get("/schedulers")
    async def schedulers(request: Request) -> list[JsonObject]:
        """List `automatic`, which is the model's own schedule, and those that it supports."""
        model = await chosen.info(owner_of(request))
        own = [_schedule(name) for name in model.noise_schedules]
        return [_schedule("automatic", "Automatic"), *own]

    @routes.get("/upscalers")
    def upscalers(request: Request) -> list[JsonObject]:
        """List the upscalers: `None`, interpolations and, for hires. fix, the operator's
        models."""
        unknown = {"model_name": None, "model_path": None, "model_url": None}
        models = service.served(chosen.name_for(owner_of(request))).upscalers()
        return [
            {"name": name, **unknown, "scale": scale_of(name)} for name in (*UPSCALERS, *models)
        ]

    @routes.get("/loras")
    def loras(request: Request) -> list[JsonObject]:
        """List the available LoRAs. A prompt selects one with `<lora:NAME:SCALE>`."""
        found = service.served(chosen.name_for(owner_of(request))).about_loras()
        return [
            {
                "name": name,
                "alias": about.titles[0] if about.titles else name,
                "path": name,
                "metadata": _metadata(name, about),
            }
            for name, about in found.items()
        ]

    @routes.get("/embeddings")
    async def embeddings() -> JsonObject:
        """Return no embeddings: they are not supported."""
        return {"loaded": {}, "skipped": {}}

    @routes.get("/scripts")
    async def scripts() -> dict[str, list[str]]:
        """Return no scripts: they are not supported."""
        return {"txt2img": [], "img2img": []}

    async def nothing() -> list[JsonObject]:
        """Not supported. Returns an empty list."""
        return []

    for name in _EMPTY:
        routes.get(f"/{name}", name=name)(nothing)

    @routes.post("/refresh-checkpoints")
    @routes.post("/refresh-loras")
    @routes.post("/refresh-vae")
    async def refresh() -> None:
        """No effect: the models are fixed, and LoRAs are looked up on use."""


def _schedule(name: str, label: str | None = None) -> JsonObject:
    label = label or a1111_schedule(name)
    known_as = "ddim" if name == "ddim_uniform" else name
    return {
        "name": known_as,
        "label": label,
        "aliases": None if known_as == name else [name],
        "default_rho": 7.0 if name == "karras" else -1.0,
        "need_inner_model": False,
    }


def add_settings(routes: APIRouter, chosen: ChosenModels) -> None:
    """Add the routes for options, flags, memory and image metadata."""

    @routes.get("/options")
    async def options(request: Request) -> JsonObject:
        """Return the options that clients read."""
        return {
            CHECKPOINT: (await chosen.info(owner_of(request))).name,
            "sd_checkpoint_hash": "",
            "sd_vae": "Automatic",
            "samples_format": "png",
            "CLIP_stop_at_last_layers": 1,
            "live_previews_enable": True,
            "outdir_samples": "",
        }

    @routes.post("/options")
    async def set_options(body: JsonObject, request: Request, response: Response) -> None:
        """Choose the model of the client's later requests. Other options have no effect;
        `x-warnings` names those that differ from this server's. Returns 400 for a model that is not
        served."""
        own, wanted = await options(request), body.get(CHECKPOINT)
        if wanted:
            chosen.choose(owner_of(request), wanted)
        own[CHECKPOINT] = wanted
        idle = {name: True for name in body if name not in own or body[name] != own[name]}
        response.headers.update(warning_headers(without_effect(idle)))

    @routes.get("/cmd-flags")
    async def cmd_flags() -> JsonObject:
        """Return the command-line flags that clients read."""
        return {"api": True, "nowebui": True}

    @routes.get("/memory")
    async def memory() -> JsonObject:
        """Return the host's memory, in bytes. For device memory see /metrics."""
        ram = psutil.virtual_memory()
        return {
            "ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total},
            "cuda": {"error": "unavailable"},
        }

    @routes.post("/png-info")
    def png_info(body: PictureBody) -> JsonObject:
        """Read the generation parameters from a PNG, JPEG or WebP."""
        text = read_infotext(bytes_of(body.image, "image"))
        items = {"parameters": text} if text else {}
        return {"info": text, "items": items, "parameters": parse_infotext(text) if text else {}}


def _metadata(name: str, about: LoraAbout) -> JsonObject:
    """Return what a LoRA's file says of itself, and the parameters that it was made for."""
    contract = contract_of(name, *about.titles)
    given = {
        "modelspec.title": about.titles[0] if about.titles else None,
        "modelspec.architecture": about.base,
        "modelspec.trigger_phrase": ", ".join(about.trigger_words),
        "modelspec.thumbnail": about.thumbnail,
        "modelspec.usage_hint": "" if contract is None else str(contract),
    }
    return {key: value for key, value in given.items() if value}
