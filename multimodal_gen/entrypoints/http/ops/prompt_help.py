"""Help with prompts for the playground: examples, and the words that a model knows."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from multimodal_gen.checkpoints.prompts.examples import Examples, read_examples
from multimodal_gen.checkpoints.prompts.tokens import CountedPrompt, prompt_counters
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.parsed_route import ParsedRoute
from multimodal_gen.errors import InvalidCheckpoint, NotFound
from multimodal_gen.launch.model_path import BUNDLED_MODEL, locate
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.service import Service

_log = logging.getLogger(__name__)


class CountedText(BaseModel):
    """A prompt whose tokens are to be counted."""

    model_config = ConfigDict(extra="forbid")
    prompt: Annotated[str, Field(max_length=32_000)]
    model: str | None = None
    max_sequence_length: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """By default the model's."""


class TokenCount(BaseModel):
    """Tokens of a prompt."""

    tokens: int | None
    """With those that each text has around it."""
    limit: int | None
    """As many are read."""
    cut: str
    """The end of the prompt that is not read."""


def prompt_help_routes(service: Service) -> APIRouter:
    """Create the routes of the words that a model knows, and of a prompt's tokens."""
    routes = APIRouter(route_class=ParsedRoute)

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

    @routes.post("/count_tokens", responses=documented(400, 401, 404, 503))
    async def count_tokens(asked: CountedText) -> TokenCount:
        """Count the tokens of a prompt as the model's text encoder does that has the least room
        for it, and tell which part it will not read. Returns null where only the engine can tell:
        for families that put prompts into templates, and files that are not on this machine."""
        info = await service.known(asked.model)
        length = asked.max_sequence_length or info.defaults.max_sequence_length
        served = service.served(asked.model)
        counted = await asyncio.to_thread(_counted, served, info, asked.prompt, length)
        if counted is None:
            return TokenCount(tokens=None, limit=None, cut="")
        return TokenCount(tokens=counted.tokens, limit=counted.limit, cut=counted.cut)

    return routes


def _counted(
    model: ServedModel, info: ModelInfo, prompt: str, length: int | None
) -> CountedPrompt | None:
    folder = folder_of(model)
    counters = () if folder is None else prompt_counters(folder, info.family)
    found = [told for count in counters if (told := count(prompt, length))]
    return min(found, key=lambda each: each.limit - each.tokens, default=None)


def counts_tokens(model: ServedModel, info: ModelInfo) -> bool:
    """Return whether `/count_tokens` can tell. Accesses the disk."""
    return (folder := folder_of(model)) is not None and bool(prompt_counters(folder, info.family))


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
