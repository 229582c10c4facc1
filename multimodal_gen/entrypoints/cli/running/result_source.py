"""Sources of a command's results: an engine or a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.python.calls import stream_resolved
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.messages.request_warning import RequestWarning


@dataclass(frozen=True)
class CheckedRequest:
    """A request that the model has not refused."""

    asked: SamplingParams
    """What was asked for, without paths."""
    params: SamplingParams
    """With all defaults."""
    pixels: Pixels
    warnings: tuple[RequestWarning, ...]
    """What had no effect."""
    video_path: str | None
    """The file of its input video."""


class ResultSource(Protocol):
    """An engine of the command's own, or a server."""

    def wait_ready(self) -> ModelInfo:
        """Return the model's description, once it is loaded."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Context in which results are made, in one event loop."""

    def stream(self, request: CheckedRequest) -> AsyncGenerator[Progress | GenerationResult, None]:
        """Yield progress, then the result."""


class OwnEngine:
    """The engine that the command has started."""

    def __init__(self, client: SchedulerClient) -> None:
        self._client = client

    def wait_ready(self) -> ModelInfo:
        return self._client.wait_ready()

    def running(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def stream(self, request: CheckedRequest) -> AsyncGenerator[Progress | GenerationResult, None]:
        return stream_resolved(self._client, request.params, request.pixels, request.warnings)
