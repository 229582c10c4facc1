"""The Python API: DiffusionGenerator."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, Unpack, overload

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import SECRETS, URLS, ServerArgs
from multimodal_gen.entrypoints.python.calls import generate_one, run_all, stream_one
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.entrypoints.python.loop_thread import LoopThread
from multimodal_gen.entrypoints.python.sampling_keywords import SamplingKeywords
from multimodal_gen.errors import EngineNotReady, InvalidRequest, MultimodalGenError
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo

PromptLike = str | SamplingParams
PromptsLike = Sequence[PromptLike]


class DiffusionGenerator:
    """Generates images and videos with one checkpoint, from any number of threads and coroutines.

    Concurrent calls share batches. Calls take the fields of SamplingParams as keywords. A prompt
    can also be a SamplingParams, which keywords override.
    """

    def __init__(self, client: SchedulerClient, engine: EngineProcess | None = None) -> None:
        """Use a client that is ready; see `from_pretrained` and `connect`."""
        self._client = client
        self._loop = LoopThread("diffusion-generator")
        # Also runs when the interpreter exits. It must not reference the generator itself.
        self._close = weakref.finalize(self, _close, engine or client, self._loop)

    @classmethod
    def from_pretrained(
        cls, model_path: str | os.PathLike[str] | None = None, **engine_args: Any
    ) -> DiffusionGenerator:
        """Start an engine for a checkpoint and wait until it is loaded.

        `model_path` is a local folder, a single weight file or a hub name; None is the bundled
        model. Keywords are the fields of EngineArgs; the other fields of ServerArgs belong to
        `serve`. Raises InvalidRequest, InvalidCheckpoint, EngineDied.
        """
        path = None if model_path is None else os.fspath(model_path)
        return cls.start(_engine_args(model_path=path, **engine_args))

    @classmethod
    def start(cls, args: EngineArgs) -> DiffusionGenerator:
        """Start an engine as `from_pretrained`, from complete arguments."""
        engine = start_engine(args)
        try:
            return cls(engine.client, engine)
        except BaseException:
            engine.close()
            raise

    @classmethod
    def connect(cls, address: str, timeout: float | None = 60.0) -> DiffusionGenerator:
        """Use a running engine; `address` is the `address` of another generator.

        Closing this generator leaves the engine running. Raises EngineNotReady if it does not
        answer within `timeout` seconds.
        """
        if not address.startswith("ipc://"):
            raise InvalidRequest("address", address, "must start with ipc://")
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
        """Stop the engine; running calls raise. Can be called repeatedly."""
        self._close()

    @property
    def model(self) -> ModelInfo:
        """The served model's name, family, defaults and limits."""
        assert self._client.model is not None
        return self._client.model

    @property
    def address(self) -> str:
        """Address of the engine, for `connect`."""
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
        """Return the result of one prompt, or a list of results for a list of prompts.

        Keywords, including the seed, apply to every prompt of a list. Raises the exceptions of
        `multimodal_gen.errors`. A list raises its first error, once all prompts have ended; its
        `siblings` holds each prompt's result or error.
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
        """Generate as `generate`, asynchronously. Cancelling the task cancels the request."""
        return await _generate(self._client, prompt, sampling_params)

    def stream(
        self,
        prompt: PromptLike,
        *,
        previews: bool = True,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> Iterator[Progress | GenerationResult]:
        """Yield progress, then the result. Breaking out of the loop cancels the request.

        `previews`: progress includes images of the model's current estimate, at some cost.
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
        """Yield as `stream`, for `async for`."""
        return stream_one(self._client, _params(prompt, sampling_params), previews=previews)


def start_engine(
    args: EngineArgs, show: Callable[[LoadingProgress], None] = lambda progress: None
) -> EngineProcess:
    """Start an engine and wait until its model is loaded; meanwhile, `show` the progress."""
    engine = EngineProcess.start(args)
    try:
        _import_while_loading()
        engine.wait_ready(show=show)
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
        # Not waited for: an abandoned iterator can be collected in any thread, even the loop's own.
        with suppress(EngineNotReady):
            loop.start(leave())


def _params(prompt: object, given: SamplingKeywords) -> SamplingParams:
    if isinstance(prompt, SamplingParams):
        return prompt.updated(**given)
    if not isinstance(prompt, str):
        raise InvalidRequest("prompt", prompt, "must be text, SamplingParams or a list of these")
    return SamplingParams.from_fields(prompt=prompt, **given)


def _engine_args(**given: Any) -> EngineArgs:
    known = [field.name for field in fields(EngineArgs)]
    elsewhere = {field.name for field in fields(ServerArgs)}.difference(known)
    for name, value in given.items():
        if name in elsewhere:
            shown = "…" if name in (*SECRETS, *URLS) else value
            raise InvalidRequest(name, shown, "is an option of `multimodal-gen serve`")
        if name not in known:
            raise InvalidRequest(name, value, f"unknown; allowed are {', '.join(known)}")
    return EngineArgs(**given)


def _import_while_loading() -> None:
    """Import the modules that the first result needs, while the ranks load."""
    import numpy  # noqa: F401
    import PIL.PngImagePlugin  # noqa: F401


def _close(owner: EngineProcess | SchedulerClient, loop: LoopThread) -> None:
    owner.close()
    loop.close()
