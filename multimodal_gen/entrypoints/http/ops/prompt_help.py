"""Help with prompts for the playground: examples, and the words that a model knows."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter

from multimodal_gen.checkpoints.prompts.examples import Examples, read_examples
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.errors import InvalidCheckpoint, NotFound
from multimodal_gen.launch.model_path import BUNDLED_MODEL, locate
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.service import Service

_log = logging.getLogger(__name__)


def prompt_help_routes(service: Service) -> APIRouter:
    """Create the route of the words that a model knows."""
    routes = APIRouter()

    @routes.get(
        "/model_info/known_words",
        response_model=dict[str, Any],
        responses=documented(401, 404, 503),
    )
    async def known(model: str | None = None) -> dict[str, Any]:
        """Return all that a model of few words can be asked for, as its checkpoint's
        `examples.json` says: names with their synonyms, colours, and further words."""
        found = (await asyncio.to_thread(examples_of, service.served(model))).known
        if found is None:
            raise NotFound("this model has no list of what it knows")
        return dict(msgspec.to_builtins(found))

    return routes


def examples_of(model: ServedModel) -> Examples:
    """Read the examples of a model whose files are on this machine; others have none."""
    try:
        folder = folder_of(model)
        return Examples() if folder is None else read_examples(folder)
    except InvalidCheckpoint as error:
        _log.warning("model %s: %s", model.name, error.message)
        return Examples()


def folder_of(model: ServedModel) -> Path | None:
    """Folder of a model's checkpoint, if it is on this machine. Accesses the disk."""
    args = model.engines[0].args if model.engines else None
    if args is None:
        return None
    if args.model_path is None:
        return BUNDLED_MODEL
    try:
        found = locate(args.model_path, args.revision)
    except InvalidCheckpoint:
        return None
    return found if found.is_dir() else None
