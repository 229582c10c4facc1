"""The Python API: DiffusionGenerator."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar, Unpack, overload

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.user_path import UserPath
from multimodal_gen.entrypoints.python.calls import run_all
from multimodal_gen.entrypoints.python.engine_keywords import EngineKeywords
from multimodal_gen.entrypoints.python.generation_result import (
    GenerationResult,
    GenerationResults,
    Progress,
)
from multimodal_gen.entrypoints.python.generator_info import GeneratorInfo
from multimodal_gen.entrypoints.python.keywords import (
    ENGINE,
    SAMPLING,
    EventListener,
    PromptCall,
    check_names,
    prompt_calls,
)
from multimodal_gen.entrypoints.python.loop_thread import LoopThread
from multimodal_gen.entrypoints.python.progress_bar import StepBar, bar_of, wants_bar
from multimodal_gen.entrypoints.python.sampling_keywords import SamplingKeywords
from multimodal_gen.entrypoints.python.shown_keywords import showing_keywords
from multimodal_gen.errors import EngineNotReady, InvalidRequest, MultimodalGenError
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.launch.loading_display import LoadingDisplay
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo

PromptLike = str | SamplingParams
PromptsLike = Sequence[PromptLike]
Made = TypeVar("Made", bound=Progress | GenerationResult | GenerationResults)
log = logging.getLogger(__name__)


class DiffusionGenerator:
    """Generates images and videos with one checkpoint, from any number of threads and coroutines.

    Concurrent calls share batches. Calls take the fields of SamplingParams as keywords, and
    pictures as `image`, `images`, `mask`, `last_image` and `video`: paths, bytes, PIL images or
    NumPy arrays. A prompt can also be a SamplingParams, which keywords override.

    The engine ends with the generator: at the end of a `with` block, when it is closed or no
    longer used, and when the program ends, however it does.
    """

    def __init__(
        self, client: SchedulerClient | None = None, engine: EngineProcess | None = None
    ) -> None:
        """Use a client that is ready; see `from_pretrained` and `connect`."""
        if client is None or isinstance(client, str | os.PathLike):
            allowed = "load a model with DiffusionGenerator.from_pretrained(model_path)"
            raise InvalidRequest("client", client, allowed)
        self._client = client
        self._args = None if engine is None else engine.args
        self._warned: set[str] = set()
        self._loop = LoopThread("diffusion-generator")
        # Also runs when the interpreter exits. It must not reference the generator itself.
        self._close = weakref.finalize(self, _close, engine or client, self._loop)

    @classmethod
    @showing_keywords(EngineArgs, EngineKeywords)
    def from_pretrained(
        cls,
        model_path: UserPath | None = None,
        *,
        progress: bool | None = None,
        **engine_args: Unpack[EngineKeywords],
    ) -> DiffusionGenerator:
        """Start an engine for a checkpoint and wait until it is loaded.

        `model_path` is a local folder, a single weight file or a hub name; None is the bundled
        model. Other keywords are the fields of EngineArgs; the other fields of ServerArgs belong to
        `serve`. `progress`: as for `generate`, of a model that takes a while to load. Raises
        InvalidRequest, InvalidCheckpoint, EngineDied.
        """
        check_names(engine_args, ENGINE, ("progress",))
        if not isinstance(model_path, str | os.PathLike | None):
            allowed = "must be a folder, a file, a hub name or None"
            raise InvalidRequest("model_path", model_path, allowed)
        path = None if model_path is None else os.fspath(model_path)
        given: dict[str, Any] = {**engine_args}  # EngineArgs turns paths into text
        return cls.start(EngineArgs(model_path=path, **given), progress=progress)

    @classmethod
    def start(cls, args: EngineArgs, *, progress: bool | None = None) -> DiffusionGenerator:
        """Start an engine as `from_pretrained`, from complete arguments."""
        if wants_bar(progress):
            with LoadingDisplay(bar_of) as display:
                engine = start_engine(args, display.show)
        else:
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
            allowed = "must start with ipc://, as generator.address of another process does"
            raise InvalidRequest("address", address, allowed)
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
    def info(self) -> GeneratorInfo:
        """The model in a few lines to read: tasks, sizes, defaults, limits and LoRAs."""
        return GeneratorInfo.of(self.model, self._args)

    def __repr__(self) -> str:
        name = type(self).__name__
        if not self._close.alive:
            return f"{name}(closed)"
        return f"{name}({self.model.name!r}, device={self.model.device!r})"

    @property
    def address(self) -> str:
        """Address of the engine, for `connect`."""
        return self._client.address

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self,
        prompt: PromptLike,
        *,
        progress: bool | None = None,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> GenerationResult: ...

    @overload
    def generate(
        self,
        prompt: PromptsLike,
        *,
        progress: bool | None = None,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> GenerationResults: ...

    @showing_keywords(SamplingParams, SamplingKeywords)
    def generate(
        self,
        prompt: PromptLike | PromptsLike,
        *,
        progress: bool | None = None,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> GenerationResult | GenerationResults:
        """Return the result of one prompt, or a list of results for a list of prompts.

        Keywords, including the seed, apply to every prompt of a list. Raises the exceptions of
        `multimodal_gen.errors`. A list raises its first error, once all prompts have ended; its
        `siblings` holds each prompt's result or error.

        `progress`: show a bar meanwhile. By default it is shown in notebooks and on terminals,
        for calls from the main thread; libraries say False.
        """
        check_names(sampling_params, SAMPLING, ("progress",))
        calls, alone = _calls(prompt, sampling_params)
        if not wants_bar(progress):
            return self._noted(self._loop.run(self._generate(calls, alone)))
        with StepBar(len(calls)) as bar:
            made = self._loop.run(self._generate(calls, alone, bar.report), bar.draw)
        return self._noted(made)

    @overload
    async def agenerate(  # type: ignore[overload-overlap]
        self,
        prompt: PromptLike,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> GenerationResult: ...

    @overload
    async def agenerate(
        self,
        prompt: PromptsLike,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> GenerationResults: ...

    @showing_keywords(SamplingParams, SamplingKeywords)
    async def agenerate(
        self,
        prompt: PromptLike | PromptsLike,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> GenerationResult | GenerationResults:
        """Generate as `generate`, asynchronously and without a bar. Cancelling the task cancels the
        request."""
        check_names(sampling_params, SAMPLING, ())
        return self._noted(await self._generate(*_calls(prompt, sampling_params)))

    @showing_keywords(SamplingParams, SamplingKeywords)
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
        events = self._stream(prompt, sampling_params, previews)
        return _blocking(self._loop, events, self._noted)

    @showing_keywords(SamplingParams, SamplingKeywords)
    def astream(
        self,
        prompt: PromptLike,
        *,
        previews: bool = True,
        **sampling_params: Unpack[SamplingKeywords],
    ) -> AsyncIterator[Progress | GenerationResult]:
        """Yield as `stream`, for `async for`."""
        return self._astream(self._stream(prompt, sampling_params, previews))

    async def _astream(
        self, events: AsyncGenerator[Progress | GenerationResult, None]
    ) -> AsyncGenerator[Progress | GenerationResult, None]:
        async with aclosing(events):
            async for event in events:
                yield self._noted(event)

    def _stream(
        self, prompt: object, given: SamplingKeywords, previews: bool
    ) -> AsyncGenerator[Progress | GenerationResult, None]:
        check_names(given, SAMPLING, ("previews",))
        if not isinstance(prompt, str | SamplingParams):
            allowed = "must be text or SamplingParams; generate takes lists of these"
            raise InvalidRequest("prompt", prompt, allowed)
        (call,) = prompt_calls([prompt], given)
        return call.events(self._client, previews=previews)

    async def _generate(
        self, calls: list[PromptCall], alone: bool, report: EventListener | None = None
    ) -> GenerationResult | GenerationResults:
        if alone:
            return await calls[0].result(self._client, report, 0)
        outcomes = await run_all(
            [call.params for call in calls],
            lambda index: calls[index].result(self._client, report, index),
        )
        for outcome in outcomes:
            if isinstance(outcome, MultimodalGenError):
                outcome.siblings = outcomes
                raise outcome
        return GenerationResults(
            outcome for outcome in outcomes if isinstance(outcome, GenerationResult)
        )

    def _noted(self, made: Made) -> Made:
        """Log each warning of results the first time that it occurs."""
        results = made if isinstance(made, GenerationResults) else [made]
        for result in results:
            for warning in result.warnings if isinstance(result, GenerationResult) else ():
                if (text := str(warning)) not in self._warned:
                    self._warned.add(text)
                    log.warning(text)
        return made


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


def _calls(prompt: object, given: SamplingKeywords) -> tuple[list[PromptCall], bool]:
    """Read the prompts of a call, and tell whether it has one that is not in a list."""
    if isinstance(prompt, str | bytes | SamplingParams) or not isinstance(prompt, Sequence):
        return prompt_calls([prompt], given), True
    return prompt_calls(list(prompt), given), False


def _blocking(
    loop: LoopThread,
    events: AsyncGenerator[Progress | GenerationResult, None],
    noted: Callable[[Progress | GenerationResult], Progress | GenerationResult],
) -> Iterator[Progress | GenerationResult]:
    async def following() -> Progress | GenerationResult | None:
        return await anext(events, None)

    async def leave() -> None:
        await events.aclose()

    loop.hold(events)
    try:
        while (event := loop.run(following())) is not None:
            yield noted(event)
    finally:
        loop.drop(events)
        # Not waited for: an abandoned iterator can be collected in any thread, even the loop's own.
        with suppress(EngineNotReady):
            loop.start(leave())


def _import_while_loading() -> None:
    """Import the modules that the first result needs, while the ranks load."""
    import numpy  # noqa: F401
    import PIL.PngImagePlugin  # noqa: F401


def _close(owner: EngineProcess | SchedulerClient, loop: LoopThread) -> None:
    owner.close()
    loop.close()
