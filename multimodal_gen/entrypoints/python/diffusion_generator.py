"""The way in from Python."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, Unpack, overload

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import SECRETS, ServerArgs
from multimodal_gen.entrypoints.python.calls import generate_one, run_all, stream_one
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.entrypoints.python.loop_thread import LoopThread
from multimodal_gen.entrypoints.python.sampling_keywords import SamplingKeywords
from multimodal_gen.errors import EngineNotReady, InvalidRequest, MultimodalGenError
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.model_info import ModelInfo

PromptLike = str | SamplingParams
PromptsLike = Sequence[PromptLike]


class DiffusionGenerator:
    """Pictures and videos from one checkpoint, for any number of threads and coroutines.

    Calls in flight share batches. What a call can ask for are the fields of SamplingParams, by
    keyword; a SamplingParams may also stand in a prompt's place, and keywords then override it.
    """

    def __init__(self, client: SchedulerClient, engine: EngineProcess | None = None) -> None:
        """Of a client that is ready; see `from_pretrained` and `connect`."""
        self._client = client
        self._loop = LoopThread("diffusion-generator")
        # Runs at the end of the interpreter too. It must not hold the generator itself.
        self._close = weakref.finalize(self, _close, engine or client, self._loop)

    @classmethod
    def from_pretrained(
        cls, model_path: str | os.PathLike[str] | None = None, **engine_args: Any
    ) -> DiffusionGenerator:
        """Start an engine of a checkpoint and wait until it is loaded.

        `model_path` is a local folder, a single weight file or a hub name; None is the bundled
        model. Keywords are the fields of EngineArgs; the other fields of ServerArgs belong to
        `serve`. Raises InvalidRequest, InvalidCheckpoint, EngineDied.
        """
        path = None if model_path is None else os.fspath(model_path)
        return cls.start(_engine_args(model_path=path, **engine_args))

    @classmethod
    def start(cls, args: EngineArgs) -> DiffusionGenerator:
        """As `from_pretrained`, of arguments that are complete."""
        engine = start_engine(args)
        try:
            return cls(engine.client, engine)
        except BaseException:
            engine.close()
            raise

    @classmethod
    def connect(cls, address: str, timeout: float | None = 60.0) -> DiffusionGenerator:
        """Use an engine that runs already; `address` is the `address` of another generator.

        Closing this generator leaves the engine running. Raises EngineNotReady when it does not
        answer within `timeout` seconds.
        """
        if not address.startswith("ipc://"):
            raise InvalidRequest("address", address, "must begin with ipc://")
        client = SchedulerClient(address)
        try:
            client.wait_ready(timeout)
            return cls(client)
        except TimeoutError as error:
            client.close()
            raise EngineNotReady(f"no engine answers at {address} within {timeout:g} s") from error
        except BaseException:
            client.close()
            raise

    def __enter__(self) -> DiffusionGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine; calls in flight raise. May be called again."""
        self._close()

    @property
    def model(self) -> ModelInfo:
        """What is served: its name, family, defaults and limits."""
        assert self._client.model is not None
        return self._client.model

    @property
    def address(self) -> str:
        """Where `connect` finds the engine."""
        return self._client.address

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self, prompt: PromptLike, **sampling_params: Unpack[SamplingKeywords]
    ) -> GenerationResult: ...

    @overload
    def generate(
        self, prompt: PromptsLike, **sampling_params: Unpack[SamplingKeywords]
    ) -> list[GenerationResult]: ...

    def generate(
        self, prompt: PromptLike | PromptsLike, **sampling_params: Unpack[SamplingKeywords]
    ) -> GenerationResult | list[GenerationResult]:
        """The result of one prompt, or the list of results of a list of prompts.

        Keywords, the seed too, hold for every prompt of a list. Raises what is in
        `multimodal_gen.errors`; of a list the first error, once all have ended, with what became
        of each in its `siblings`: a result, or an error.
        """
        return self._loop.run(_generate(self._client, prompt, sampling_params))

    @overload
    async def agenerate(  # type: ignore[overload-overlap]
        self, prompt: PromptLike, **sampling_params: Unpack[SamplingKeywords]
    ) -> GenerationResult: ...

    @overload
    async def agenerate(
        self, prompt: PromptsLike, **sampling_params: Unpack[SamplingKeywords]
    ) -> list[GenerationResult]: ...

    async def agenerate(
        self, prompt: PromptLike | PromptsLike, **sampling_params: Unpack[SamplingKeywords]
    ) -> GenerationResult | list[GenerationResult]:
        """As `generate`. Cancelling the task cancels the request in the engine."""
        return await _generate(self._client, prompt, sampling_params)

    def stream(
        self,
        prompt: PromptLike,
        *,
        previews: bool = True,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> Iterator[Progress | GenerationResult]:
        """Progress as it comes, then the result. Breaking out of the loop cancels the request.

        `previews`: progress carries pictures of what the model expects by then, at some cost.
        """
        params = _params(prompt, sampling_params)
        return _blocking(self._loop, stream_one(self._client, params, previews=previews))

    def astream(
        self,
        prompt: PromptLike,
        *,
        previews: bool = True,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> AsyncIterator[Progress | GenerationResult]:
        """As `stream`, for `async for`."""
        return stream_one(self._client, _params(prompt, sampling_params), previews=previews)


def start_engine(args: EngineArgs) -> EngineProcess:
    """Start an engine and wait until its model is loaded."""
    engine = EngineProcess.start(args)
    try:
        _import_while_loading()
        engine.wait_ready()
    except BaseException:
        engine.close()
        raise
    return engine


async def _generate(
    client: SchedulerClient, prompt: PromptLike | PromptsLike, given: SamplingKeywords
) -> GenerationResult | list[GenerationResult]:
    if isinstance(prompt, str | SamplingParams) or not isinstance(prompt, Sequence):
        return await generate_one(client, _params(prompt, given))
    items = [_params(one, given) for one in prompt]
    outcomes = await run_all(items, lambda index: generate_one(client, items[index]))
    for outcome in outcomes:
        if isinstance(outcome, MultimodalGenError):
            outcome.siblings = outcomes
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, GenerationResult)]


def _blocking(
    loop: LoopThread, events: AsyncGenerator[Progress | GenerationResult, None]
) -> Iterator[Progress | GenerationResult]:
    async def following() -> Progress | GenerationResult | None:
        return await anext(events, None)

    async def leave() -> None:
        await events.aclose()

    try:
        while (event := loop.run(following())) is not None:
            yield event
    finally:
        # Not waited for: an abandoned iterator is collected in any thread, this loop's included.
        with suppress(EngineNotReady):
            loop.start(leave())


def _params(prompt: object, given: SamplingKeywords) -> SamplingParams:
    if isinstance(prompt, SamplingParams):
        return prompt.updated(**given)
    if not isinstance(prompt, str):
        raise InvalidRequest("prompt", prompt, "must be text, SamplingParams or a list of those")
    return SamplingParams.from_fields(prompt=prompt, **given)


def _engine_args(**given: Any) -> EngineArgs:
    known = [field.name for field in fields(EngineArgs)]
    elsewhere = {field.name for field in fields(ServerArgs)}.difference(known)
    for name, value in given.items():
        if name in elsewhere:
            shown = "…" if name in SECRETS else value
            raise InvalidRequest(name, shown, "is an option of `multimodal-gen serve`")
        if name not in known:
            raise InvalidRequest(name, value, f"unknown; allowed are {', '.join(known)}")
    return EngineArgs(**given)


def _import_while_loading() -> None:
    """What the first result needs, imported while the ranks load."""
    import numpy  # noqa: F401
    import PIL.PngImagePlugin  # noqa: F401


def _close(owner: EngineProcess | SchedulerClient, loop: LoopThread) -> None:
    owner.close()
    loop.close()
