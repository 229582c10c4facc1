"""Runs one prompt, and reports it with ComfyUI's events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from multimodal_gen.client.request_handle import Output, warnings_of
from multimodal_gen.entrypoints.http.comfyui.files import Files
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Node
from multimodal_gen.entrypoints.http.comfyui.prompts import Part, Prompt, Prompts
from multimodal_gen.entrypoints.http.comfyui.result_cache import ResultCache
from multimodal_gen.entrypoints.http.comfyui.routes.channels import JPEG, PNG, Channel, Channels
from multimodal_gen.entrypoints.http.comfyui.videos import encode_video
from multimodal_gen.entrypoints.http.transport.errors import log_and_envelope
from multimodal_gen.errors import Cancelled, MultimodalGenError
from multimodal_gen.messages.request_warning import RequestWarning, as_plain
from multimodal_gen.postprocess.files import sound_warnings
from multimodal_gen.postprocess.images import encode_image
from multimodal_gen.postprocess.metadata import Recipe
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Moved, Previewed

log = logging.getLogger(__name__)
_ANSWER_S = 1.0


class Executor:
    """Follows prompts, notifies their clients, and stores results."""

    def __init__(
        self, prompts: Prompts, channels: Channels, files: Files, cache: ResultCache
    ) -> None:
        self._prompts = prompts
        self._channels = channels
        self._files = files
        self._cache = cache
        self._running: set[asyncio.Task[None]] = set()

    def start(self, prompt: Prompt) -> None:
        """Queue the prompt, and follow its tasks to their end."""
        self._prompts.add(prompt)
        self.tell_status(prompt.owner)
        running = asyncio.create_task(self._run(prompt))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def status(self, owner: Owner) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": len(self._prompts.queue(owner))}}

    def tell_status(self, owner: Owner) -> None:
        for channel in self._channels.all_of(owner):
            channel.tell("status", {"status": self.status(owner)})

    async def _run(self, prompt: Prompt) -> None:
        try:
            if not prompt.parts:
                await _answered(prompt)
                self._begin(prompt)
            for part in prompt.parts:
                await self._sample(prompt, part)
                await self._finish(prompt, part)
            made = (w for part in prompt.parts for w in _result_warnings(part))
            warnings = as_plain([*prompt.warnings, *made])
            self._stop(prompt, "finished")
            self._note(prompt, "execution_success", **({"warnings": warnings} if warnings else {}))
        except Cancelled:
            self._note(prompt, "execution_interrupted", **_at(prompt))
        except MultimodalGenError as error:
            self._stop(prompt, "error")
            self._note(prompt, "execution_error", **_at(prompt), **_why(error))
        except Exception:
            log.exception("a prompt failed")
            bug = MultimodalGenError("a prompt failed")
            self._note(prompt, "execution_error", **_at(prompt), **_why(bug))
        finally:
            prompt.cancel()
            self._prompts.end(prompt)
            self.tell_status(prompt.owner)
            self._tell(prompt, "executing", node=None)

    def _begin(self, prompt: Prompt) -> None:
        """Report the start, and the results that need not be made again."""
        self._note(prompt, "execution_start")
        self._note(prompt, "execution_cached", nodes=prompt.cached_nodes)
        for node in prompt.cached_nodes:
            prompt.progress.skip(node)
        if prompt.cached_nodes:
            self._tell_progress(prompt)
        for node, result in prompt.cached.items():
            self._add(prompt, node, result)

    async def _sample(self, prompt: Prompt, part: Part) -> None:
        """Wait for all its outputs. Raises the task's error."""
        node, step = part.sampling.sampler, 0
        async for event in part.task.events():
            if part.task.status != "queued" and prompt.node != node.id:
                if prompt.node is None:
                    self._begin(prompt)
                self._pass(prompt, part.before)
            if isinstance(event, Moved) and event.progress.step != step:
                step, total = event.progress.step, event.progress.total
                content = {"value": step, "max": total, "node": node.id}
                prompt.progress.advance(step, total)
                self._tell_progress(prompt)
                self._tell(prompt, "progress", passing=step < total, **content)
            elif isinstance(event, Previewed) and self._channel(prompt) is not None:
                file = await asyncio.to_thread(encode_image, event.pixels, "jpeg")
                if (channel := self._channel(prompt)) is not None:
                    channel.show(file, JPEG, prompt.id, node.id)

    async def _finish(self, prompt: Prompt, part: Part) -> None:
        outputs = await part.task.wait()
        made = [
            (output, Recipe.of(req, output, prompt.model))
            for req, output in zip(part.task.requests, outputs, strict=True)
        ]
        for node in part.after:
            self._pass(prompt, [node])
            if not node.kind.is_output:
                continue
            if node.kind.name == "SaveImageWebsocket":
                await self._send(prompt, node, outputs)
                continue
            result = await asyncio.to_thread(self._keep, prompt, node, part, made)
            self._cache.keep(part.keys[node.id], result)
            self._add(prompt, node.id, result)

    def _add(self, prompt: Prompt, node: str, result: dict[str, Any]) -> None:
        prompt.results[node] = result
        self._tell(prompt, "executed", node=node, display_node=node, output=result)

    async def _send(self, prompt: Prompt, node: Node, outputs: list[Output]) -> None:
        frames = [frame for output in outputs for frame in output.pixels]
        for number, frame in enumerate(frames):
            file = await asyncio.to_thread(encode_image, frame, "png")
            self._tell(prompt, "progress", value=number, max=len(frames), node=node.id)
            if (channel := self._channel(prompt)) is not None:
                channel.show(file, PNG, prompt.id, node.id, passing=False)

    def _keep(
        self, prompt: Prompt, node: Node, part: Part, made: list[tuple[Output, Recipe]]
    ) -> dict[str, Any]:
        """Encode and save the input of an output node; returns the node's event data."""
        folder = "temp" if node.kind.name == "PreviewImage" else "output"
        prefix = str(node.inputs.get("filename_prefix", "ComfyUI_temp"))
        saved = part.sampling.outputs[node.id]
        if saved.video is not None:
            files = [encode_video(output, saved.video, recipe) for output, recipe in made]
        else:
            text = _workflow(prompt)
            files = [
                encode_image(frame, "png", recipe, text=text)
                for output, recipe in made
                for frame in output.pixels
            ]
        suffix = ".png" if saved.video is None else saved.video.suffix
        places = [self._files.save(prompt.owner, folder, prefix, suffix, file) for file in files]
        result: dict[str, Any] = {saved.key: [place.to_json() for place in places]}
        if saved.video is not None:
            result["animated"] = [True]
        return result

    # -- messages to the client

    def _pass(self, prompt: Prompt, nodes: Iterable[Node]) -> None:
        for node in nodes:
            prompt.node = node.id
            prompt.progress.start(node.id)
            self._tell(prompt, "executing", node=node.id, display_node=node.id)
            self._tell_progress(prompt)

    def _stop(self, prompt: Prompt, state: Literal["finished", "error"]) -> None:
        prompt.progress.stop(state)
        self._tell_progress(prompt)

    def _tell_progress(self, prompt: Prompt) -> None:
        if (channel := self._channel(prompt)) is not None:
            channel.tell("progress_state", prompt.progress.to_json(), passing=True)

    def _note(self, prompt: Prompt, type: str, **data: Any) -> None:
        """Send an event that the history keeps."""
        content = {"prompt_id": prompt.id, **data, "timestamp": int(time.time() * 1000)}
        prompt.messages.append([type, content])
        self._tell(prompt, type, **content)

    def _tell(self, prompt: Prompt, type: str, *, passing: bool = False, **data: Any) -> None:
        if (channel := self._channel(prompt)) is not None:
            channel.tell(type, {**data, "prompt_id": prompt.id}, passing=passing)

    def _channel(self, prompt: Prompt) -> Channel | None:
        return self._channels.of(prompt.owner, prompt.client_id)


async def _answered(prompt: Prompt) -> None:
    """Wait for the reply to the client, which looks for events of an id that it knows."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(prompt.answered.wait(), _ANSWER_S)


def _workflow(prompt: Prompt) -> dict[str, str]:
    """Metadata with which ComfyUI's page opens an image."""
    text = {"prompt": json.dumps(prompt.graph)}
    info = prompt.extra_data.get("extra_pnginfo")
    if isinstance(info, dict) and "workflow" in info:
        text["workflow"] = json.dumps(info["workflow"])
    return text


def _result_warnings(part: Part) -> Iterator[RequestWarning]:
    """Warnings of the engine, and about files that don't have all of the result."""
    yield from map(part.sampling.located, warnings_of(part.task.made))
    if any(output.audio is not None for output in part.task.made):
        videos = (saved.video for saved in part.sampling.outputs.values() if saved.video)
        for suffix in dict.fromkeys(video.suffix for video in videos):
            yield from sound_warnings(suffix)


def _at(prompt: Prompt) -> dict[str, Any]:
    """Node at which it ended."""
    kinds = {
        node.id: node.kind.name for part in prompt.parts for node in (*part.before, *part.after)
    }
    node = prompt.node or next((part.sampling.sampler.id for part in prompt.parts), "")
    return {"node_id": node, "node_type": kinds.get(node), "executed": list(prompt.results)}


def _why(error: MultimodalGenError) -> dict[str, Any]:
    _, content = log_and_envelope(error)
    return {
        "exception_message": content["message"],
        "exception_type": content["code"],
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }
