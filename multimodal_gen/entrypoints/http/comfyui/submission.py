"""Turns the body of `POST /prompt` into a prompt with running tasks."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.bodies.json_body import Body
from multimodal_gen.entrypoints.http.bodies.reading import json_of
from multimodal_gen.entrypoints.http.comfyui.errors import (
    InvalidInput,
    InvalidPrompt,
    failed,
    unusable,
)
from multimodal_gen.entrypoints.http.comfyui.files import Files, Place
from multimodal_gen.entrypoints.http.comfyui.graph.definition import NodeDefinitions
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Graph, Node
from multimodal_gen.entrypoints.http.comfyui.graph.graph_translation import (
    GraphTranslator,
    Sampling,
)
from multimodal_gen.entrypoints.http.comfyui.graph.named_model import named_model
from multimodal_gen.entrypoints.http.comfyui.graph.node_definitions import definitions_for
from multimodal_gen.entrypoints.http.comfyui.graph.pictures import PictureLoader
from multimodal_gen.entrypoints.http.comfyui.graph.unsupported import why_no_prompt
from multimodal_gen.entrypoints.http.comfyui.graph.values import Enlarging
from multimodal_gen.entrypoints.http.comfyui.part_planning import PartPlanner
from multimodal_gen.entrypoints.http.comfyui.prompts import Prompt, Prompts
from multimodal_gen.entrypoints.http.comfyui.result_cache import ResultCache, digest_of
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service

_MAX_ID = 128
_SECRETS = frozenset({"api_key_comfy_org", "auth_token_comfy_org"})
"""Parts of `extra_data` that are neither needed here nor shown to clients."""
_PREVIEW_METHODS = ("auto", "latent2rgb", "taesd")
"""Values of `extra_data.preview_method` that ask for previews; all give the same ones."""

NodeErrors = dict[str, Any]


class PromptSubmitter:
    """Reads graphs, and starts their tasks."""

    def __init__(
        self,
        service: Service,
        args: ServerArgs,
        files: Files,
        prompts: Prompts,
        cache: ResultCache,
    ) -> None:
        self._service = service
        self._args = args
        self._files = files
        self._prompts = prompts
        self._cache = cache

    def models(self) -> list[str]:
        """Names of the served models. Raises EngineNotReady."""
        self._service.info_of(self._service.fleet.default)
        return [model.name for model in self._service.fleet.models]

    def loras(self) -> list[str]:
        """Names of the LoRAs of all models."""
        found = (model.loras() for model in self._service.fleet.models)
        return [*dict.fromkeys(name for names in found for name in names)]

    def controls(self) -> list[str]:
        """Names of the controls of all models."""
        found = (model.controls() for model in self._service.fleet.models)
        return [*dict.fromkeys(name for names in found for name in names)]

    def upscalers(self) -> list[str]:
        """Names of the models that enlarge results, of all models."""
        found = (model.upscalers() for model in self._service.fleet.models)
        return [*dict.fromkeys(name for names in found for name in names)]

    def node_definitions(self, owner: Owner, model: ModelInfo | None = None) -> NodeDefinitions:
        """Node definitions for an owner, and for the default model if there is no other. Raises
        EngineNotReady."""
        return definitions_for(
            model or self._service.model,
            uploads=self._files.uploads(owner),
            loras=[f"{name}.safetensors" for name in self.loras()],
            controls=[f"{name}.safetensors" for name in self.controls()],
            served=self.models(),
            upscalers=[f"{name}.safetensors" for name in self.upscalers()],
        )

    async def submit(self, given: Mapping[str, Any], owner: Owner) -> tuple[Prompt, NodeErrors]:
        """The prompt of a body, and the errors of outputs that are left out.

        Raises InvalidPrompt, and the errors of its requests.
        """
        if "prompt" not in given:
            raise InvalidPrompt("no_prompt", "No prompt provided", why_no_prompt(given))
        prompt_id, client_id, extra = _fields(given)
        model = await self._service.known(named_model(given["prompt"], self.models()))
        graph = Graph.of(given["prompt"], self.node_definitions(owner, model), _targets(given))
        samplings, node_errors = self._translate(graph, model)
        loaded = [await self._check(graph, each, model, owner) for each in samplings]
        if self._prompts.knows(owner, prompt_id):
            message = "prompt_id is in use: it must be unique"
            raise InvalidPrompt("invalid_prompt_id", message, prompt_id)
        number, previews = self._number(given), client_id is not None and _wants_previews(extra)
        plan = PartPlanner(graph, self._service, model.name, self._cache, owner)
        parts = plan.start(samplings, loaded, previews)
        prompt = Prompt(
            id=prompt_id,
            number=number,
            owner=owner,
            model=model.name,
            client_id=client_id,
            graph=given["prompt"],
            extra_data={**extra, "create_time": int(time.time() * 1000)},
            parts=parts,
            outputs=[output for each in samplings for output in each.outputs],
            warnings=list(dict.fromkeys(w for each in samplings for w in each.warnings)),
            cached=plan.cached,
            cached_nodes=plan.cached_nodes,
        )
        return prompt, node_errors

    def _translate(self, graph: Graph, model: ModelInfo) -> tuple[list[Sampling], NodeErrors]:
        """One sampling per sampler, and way to enlarge its result. Raises InvalidPrompt if no
        output is valid."""
        served = self._service.served(model.name)
        translator = GraphTranslator(graph, model, served.loras(), served.controls())
        samplings: dict[tuple[str, Enlarging | None], Sampling] = {}
        node_errors: NodeErrors = {}
        for output in graph.outputs:
            _, problems = graph.order(output)
            try:
                if not problems:
                    saved = translator.result_of(output)
                    key = saved.sampled.node, saved.sampled.enlarging
                    if key not in samplings:
                        samplings[key] = translator.translate(saved.sampled)
                    samplings[key].outputs[output.id] = saved
                    samplings[key].warnings += translator.idle(output)
            except InvalidInput as error:
                problems.append(error)
            for each in problems:
                _blame(node_errors, graph, each, output)
        if not samplings:
            raise failed(node_errors)
        return list(samplings.values()), node_errors

    async def _check(
        self, graph: Graph, sampling: Sampling, model: ModelInfo, owner: Owner
    ) -> tuple[Pixels, bytes]:
        """Input images of a request, checked against the model, and their digest. Raises
        InvalidPrompt."""
        most = self._args.max_input_pixels

        def read(name: str) -> bytes | None:
            return self._files.read(owner, Place.of(name))

        loader = PictureLoader(read, model.size_multiple, most)
        try:
            pictures = await asyncio.to_thread(loader.load, sampling.pictures, sampling.mask)
            if sampling.sized_by:
                height, width = pictures[sampling.sized_by].shape[:2]
                sampling.params = sampling.params.updated(width=width, height=height)
            self._service.resolve(sampling.params, pictures, model=model.name)
        except InvalidRequest as error:
            raise _refused(graph, sampling, sampling.blamed(error)) from error
        except InvalidInput as error:
            raise _refused(graph, sampling, error) from error
        return pictures, await asyncio.to_thread(digest_of, pictures)

    def _number(self, given: Mapping[str, Any]) -> float:
        number = given.get("number")
        if isinstance(number, int | float) and not isinstance(number, bool):
            return number
        return -self._prompts.next_number() if given.get("front") else self._prompts.next_number()


async def object_of(request: Request, body: Body) -> dict[str, Any]:
    """Parse JSON regardless of the content type. Raises InvalidPrompt."""
    try:
        found = await json_of(request, body)
    except InvalidRequest as error:
        raise unusable(error) from None
    except RequestValidationError:
        found = None
    if not isinstance(found, dict):
        raise InvalidPrompt("invalid_json", "The body must be a JSON object")
    return found


def _fields(given: Mapping[str, Any]) -> tuple[str, str | None, dict[str, Any]]:
    prompt_id = given.get("prompt_id") or str(uuid.uuid4())
    client_id = given.get("client_id")
    extra = given.get("extra_data") or {}
    for name, value in (("prompt_id", prompt_id), ("client_id", client_id or "")):
        if not isinstance(value, str) or len(value) > _MAX_ID:
            message = f"{name} must be a string of at most {_MAX_ID} characters"
            raise InvalidPrompt(f"invalid_{name}", message)
    if not isinstance(extra, dict):
        raise InvalidPrompt("invalid_extra_data", "extra_data must be an object")
    kept = {name: value for name, value in extra.items() if name not in _SECRETS}
    return prompt_id, client_id or None, kept


def _targets(given: Mapping[str, Any]) -> list[str] | None:
    """Ids of the only outputs to produce; None: all."""
    targets = given.get("partial_execution_targets")
    if targets is None:
        return None
    if not isinstance(targets, list) or not all(isinstance(each, str) for each in targets):
        message = "partial_execution_targets must be a list of node ids"
        raise InvalidPrompt("invalid_partial_execution_targets", message)
    return targets


def _wants_previews(extra: Mapping[str, Any]) -> bool:
    # ComfyUI's own default is none: clients take any picture on the socket for a result.
    return extra.get("preview_method") in _PREVIEW_METHODS


def _blame(node_errors: NodeErrors, graph: Graph, error: InvalidInput, output: Node) -> None:
    entry = node_errors.setdefault(
        error.node,
        {
            "errors": [],
            "dependent_outputs": [],
            "class_type": graph.nodes[error.node].kind.name,
        },
    )
    if error.problem not in entry["errors"]:
        entry["errors"].append(error.problem)
    if output.id not in entry["dependent_outputs"]:
        entry["dependent_outputs"].append(output.id)


def _refused(graph: Graph, sampling: Sampling, error: InvalidInput) -> InvalidPrompt:
    node_errors: NodeErrors = {}
    for output in sampling.outputs:
        _blame(node_errors, graph, error, graph.nodes[output])
    return failed(node_errors)
