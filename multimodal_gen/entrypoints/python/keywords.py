"""Reads the keywords of a call: checks their names, and names them in errors as they were typed."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, fields
from typing import Any

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.declarations.similar_names import similar_name
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import SECRETS, URLS, ServerArgs
from multimodal_gen.entrypoints.python.calls import generate_one, stream_one
from multimodal_gen.entrypoints.python.engine_keywords import EngineKeywords
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.entrypoints.python.inputs import PATHS, take_inputs
from multimodal_gen.entrypoints.python.sampling_keywords import SamplingKeywords
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.messages.pictures import Pixels

EventListener = Callable[[int, Progress | GenerationResult], None]
"""Hears of events of the prompts of a call, by their index."""
SAMPLING = tuple(SamplingKeywords.__annotations__)
ENGINE = ("model_path", *EngineKeywords.__annotations__)
_OF_CALLS = {
    "previews": "is a keyword of stream and astream",
    "progress": "is a keyword of generate; astream yields progress",
}
_SIZES = ("size", "resolution", "image_size")
_PROMPT = ("prompt",)
_RESULT = ("output", "output_path", "outputs", "save_path", "filename", "file", "save")
_OF_SERVERS = {
    "the server was started without": "from_pretrained was called without",
    "needs the server's option --prompt-enhancer": "needs from_pretrained(prompt_enhancer=…)",
}
"""What errors say of options, and what they say in Python."""
_IN_TEXT = r"(?<= ){}(?=$|[ ,;:])"


def check_names(given: Mapping[str, Any], own: Collection[str], extra: Collection[str]) -> None:
    """Raise InvalidRequest, with the right name or call, for a keyword that is neither of a call's
    `own` names nor `extra`."""
    for name in given:
        if name not in (*own, *extra):
            raise InvalidRequest(name, _shown(name, given[name]), _right_name(name, own, extra))


def _right_name(name: str, own: Collection[str], extra: Collection[str]) -> str:
    generates = "seed" in own
    if name in SAMPLING or name == "prompt":
        return "is a keyword of generate and stream"
    if name in ENGINE:
        return "is a keyword of DiffusionGenerator.from_pretrained"
    if name in _OF_CALLS:
        return _OF_CALLS[name]
    if generates and name in _SIZES:
        return "unknown; did you mean width and height?"
    if generates and name in _RESULT:
        return "unknown; a result is written with result.save(path)"
    if (nearest := similar_name(name, (*own, *extra, *_PROMPT * generates))) is not None:
        return f"unknown; did you mean {nearest}?"
    if name in {field.name for field in fields(ServerArgs)}:
        return "is an option of `multimodal-gen serve`"
    call = "generate" if generates else "from_pretrained"
    return f"unknown; help(DiffusionGenerator.{call}) lists all keywords"


def _shown(name: str, value: object) -> object:
    return "…" if name in (*SECRETS, *URLS) else value


@dataclass(frozen=True)
class PromptCall:
    """One prompt of a call, with the inputs that it was given."""

    params: SamplingParams
    given: Pixels
    typed: Mapping[str, str]
    """Names of inputs in errors, and the keywords that gave them."""

    async def result(
        self, client: SchedulerClient, report: EventListener | None, index: int
    ) -> GenerationResult:
        """Generate it; `report` hears of its progress under `index`."""
        if report is None:
            with self.naming_inputs():
                return await generate_one(client, self.params, self.given)
        async with aclosing(self.events(client)) as events:
            async for event in events:
                report(index, event)
        assert isinstance(event, GenerationResult)
        return event

    async def events(
        self, client: SchedulerClient, *, previews: bool = False
    ) -> AsyncGenerator[Progress | GenerationResult, None]:
        """Generate it, and yield its progress; leaving the loop cancels."""
        events = stream_one(client, self.params, self.given, previews=previews)
        with self.naming_inputs():
            async with aclosing(events):
                async for event in events:
                    yield event

    @contextmanager
    def naming_inputs(self) -> Iterator[None]:
        """Let errors name inputs by the keywords that gave them."""
        try:
            yield
        except MultimodalGenError as error:
            for name, typed in self.typed.items():
                _rename(error, name, typed)
            for of_servers, here in _OF_SERVERS.items():
                error.message = error.message.replace(of_servers, here)
            raise


def prompt_calls(prompts: list[object], given: Mapping[str, Any]) -> list[PromptCall]:
    """Read the keywords that all prompts of a call share. Raises InvalidRequest."""
    plain = {name: _plain(value) for name, value in given.items()}
    keywords, pixels = take_inputs(plain)
    calls = []
    for prompt in prompts:
        params = _params(prompt, keywords)
        calls.append(PromptCall(params, pixels, _typed(params, given)))
    return calls


def _params(prompt: object, given: Mapping[str, Any]) -> SamplingParams:
    if isinstance(prompt, SamplingParams):
        return prompt.updated(**given)
    if not isinstance(prompt, str):
        raise InvalidRequest("prompt", prompt, "must be text, SamplingParams or a list of these")
    return SamplingParams.from_fields(prompt=prompt, **given)


def _typed(params: SamplingParams, given: Mapping[str, Any]) -> dict[str, str]:
    """The inputs that were not given by path, and their keywords."""
    keywords = {path: name for name, path in reversed(PATHS.items())}
    keywords |= {PATHS[name]: name for name in PATHS if given.get(name) is not None}
    return {
        path: keyword
        for path, keyword in keywords.items()
        if given.get(path) is None and getattr(params, path) is None
    }


def _rename(error: MultimodalGenError, name: str, typed: str) -> None:
    start = f"{name}="
    if error.message.startswith(start):
        error.message = f"{typed}={error.message.removeprefix(start)}"
    error.message = re.sub(_IN_TEXT.format(name), typed, error.message)
    if error.field == name:
        error.field = typed


def _plain(value: Any) -> Any:
    """A NumPy number, or a list of them, as Python's own."""
    return value.tolist() if getattr(value, "ndim", None) in (0, 1) else value
