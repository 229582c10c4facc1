"""The one producer of progress: what every protocol asks of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from multimodal_gen.client.request_handle import Output, RequestEvent, copy_of
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import (
    Cancelled,
    EngineDied,
    EngineNotReady,
    ModelNotFound,
    MultimodalGenError,
)
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import Pixels, headers_of
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.serving.dispatcher import Dispatcher, QueueLimits
from multimodal_gen.serving.observer import Observer
from multimodal_gen.serving.operator_limits import bounded, within_time
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Task
from multimodal_gen.serving.ticket import Ticket

ServerPhase = Literal["loading", "ready", "restarting", "stopping", "failed"]

NO_PIXELS: Pixels = MappingProxyType({})
RETRY_S = 5.0
"""How soon to ask again while there is no engine."""
IN_FLIGHT_PER_BATCH = 4


@dataclass(frozen=True)
class ServerHealth:
    """What is true now, without asking the engine."""

    phase: ServerPhase
    ranks: int
    running: int
    """Requests that the engine has begun."""
    waiting: int
    restarts: int
    reason: str | None
    """Why it is not ready."""


class Service:
    """Checks, queues and follows what clients ask for. Lives on one event loop; nothing blocks."""

    def __init__(
        self, args: ServerArgs, limits: QueueLimits | None = None, *, replay: bool = True
    ) -> None:
        """`replay`: another engine follows one that dies."""
        self._dispatcher = Dispatcher(limits or limits_of(args), replay=replay)
        self._args = args
        self.observers: list[Observer] = []
        self._replay = replay
        self._client: SchedulerClient | None = None
        self._model: ModelInfo | None = None
        self._ranks = 0
        self._phase: ServerPhase = "loading"
        self._failure: MultimodalGenError | None = None
        self._loss: MultimodalGenError | None = None
        """Of the last engine that was ready."""
        self._restarts = 0
        self._alive: dict[str, tuple[Task, list[Ticket]]] = {}
        self._changed = asyncio.Event()

    @classmethod
    def over(cls, client: SchedulerClient, args: ServerArgs | None = None) -> Service:
        """Over one engine that is ready, and after whose death there is no other."""
        service = cls(args or ServerArgs(), replay=False)
        service.engine_up(client)
        return service

    def limit_owners(self, concurrency: Mapping[str, int]) -> None:
        """By an owner's name: requests of theirs that may be with the engine; looked at anew each
        time."""
        self._dispatcher.limit_owners(concurrency)

    # -- what is there

    @property
    def model(self) -> ModelInfo:
        """The model. Raises EngineNotReady while there is none, and what ended an engine that
        nobody starts again. While an engine is being replaced requests are taken, and wait."""
        if self._phase == "stopping":
            raise _stopping()
        if not self._replay and self._client is not None and self._client.died is not None:
            raise copy_of(self._client.died)
        if self._failure is not None:
            what = "loaded" if self._model is None else "loaded again"
            raise _not_ready(f"the model can't be {what}: {self._failure.message}")
        if self._model is None:
            raise _not_ready("the model is still loading")
        return self._model

    def not_ready(self) -> MultimodalGenError:
        """What to tell who asks whether it is ready, when it is not."""
        if self._phase == "restarting":
            why = "it was lost" if self._loss is None else self._loss.message
            return _not_ready(f"the engine is being started again: {why}")
        return _not_ready(f"the server is {self._phase}")

    def model_named(self, name: str) -> ModelInfo:
        """The model, by its own name only. Raises ModelNotFound too."""
        if name != self.model.name:
            what = f"model {name[:120]!r} is not served here; {self.model.name!r} is"
            raise ModelNotFound(what)
        return self.model

    @property
    def tasks(self) -> Sequence[Task]:
        """Those alive, oldest first."""
        return [task for task, _ in self._alive.values()]

    def task(self, task_id: str) -> Task | None:
        """The one of that id, while it is alive."""
        task, _ = self._alive.get(task_id, (None, None))
        return task

    def health(self) -> ServerHealth:
        """The truth, for probes."""
        phase, reason = self._phase, self._failure
        if phase == "restarting":
            reason = reason or self._loss
        if not self._replay and self._client is not None and self._client.died is not None:
            phase, reason = "failed", self._client.died
        return ServerHealth(
            phase=phase,
            ranks=self._ranks if phase in ("ready", "stopping") else 0,
            running=self._dispatcher.running,
            waiting=self._dispatcher.waiting,
            restarts=self._restarts,
            reason=None if reason is None else reason.message,
        )

    # -- what is asked

    def start(
        self,
        params: SamplingParams | Sequence[SamplingParams] = (),
        pictures: Pixels = NO_PIXELS,
        *,
        owner: Owner,
        previews: bool = False,
        task_id: str | None = None,
        requests: Sequence[Req] | None = None,
    ) -> Task:
        """One task of all outputs of `params`, all of which come with `pictures`.

        `requests`: instead of params, what `resolve` made of them; such a task is kept elsewhere,
        so that there is always room for it, and is not begun while the server stops. Raises
        InvalidRequest, QueueFull, EngineNotReady.
        """
        kept = requests is not None
        if requests is None:
            requests = self.resolve(params, pictures, previews=previews)
        task = Task(task_id or secrets.token_hex(16), owner, requests, self._cancel, durable=kept)

        def tell(index: int, event: RequestEvent) -> None:
            self._tell(task, index, event)

        self._alive[task.id] = task, []
        for observer in self.observers:
            observer.started(task)
        try:
            tickets = self._dispatcher.put(
                requests, [*pictures.values()], owner, tell, durable=kept, bounded=not kept
            )
        except MultimodalGenError:
            self._cancel(task)
            raise
        if task.done:  # It was refused at once, by its first output.
            for ticket in tickets:
                self._dispatcher.drop(ticket)
        else:
            self._alive[task.id] = task, tickets
        return task

    def resolve(
        self,
        params: SamplingParams | Sequence[SamplingParams],
        pictures: Pixels = NO_PIXELS,
        *,
        previews: bool = False,
    ) -> list[Req]:
        """The requests that `start` would make. Raises InvalidRequest, EngineNotReady."""
        model = self.model
        headers = headers_of(pictures)
        several = [params] if isinstance(params, SamplingParams) else params
        several = [within_time(one, self._args) for one in several]
        return [
            req for one in several for req in requests_of(one, model, headers, previews=previews)
        ]

    def check_room(self, count: int) -> None:
        """Raises QueueFull when `count` more requests are too many."""
        self._dispatcher.check_room(count)

    # -- the engine, as its supervisor reports

    def engine_up(self, client: SchedulerClient) -> None:
        """An engine is ready."""
        if self._loss is not None:
            self._restarts, self._loss = self._restarts + 1, None
        self._client = client
        self._model = None if client.model is None else bounded(client.model, self._args)
        self._ranks = client.num_ranks
        if self._phase != "stopping":
            self._phase, self._failure = "ready", None
        self._dispatcher.attach(client)

    def engine_lost(self, error: MultimodalGenError) -> None:
        """It is gone; another is on its way."""
        self._loss, self._ranks = error, 0
        if self._phase != "stopping":
            self._phase = "restarting"
        self._dispatcher.detach()

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        """It could not be started, which is tried again unless it is `for_good`."""
        if self._phase != "stopping":
            self._failure = error
            if for_good:
                self._phase = "failed"

    # -- the end

    async def drain(self, seconds: float) -> None:
        """Take nothing more, and let what is here end, for so long at most. What is kept elsewhere
        and has not begun is left."""
        self._phase = "stopping"
        self._dispatcher.hold_durable = True
        end = asyncio.get_running_loop().time() + seconds
        while self._has_work() and (left := end - asyncio.get_running_loop().time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def stop(self) -> None:
        """End what is left."""
        self._phase = "stopping"
        self._dispatcher.fail_all(_stopping())

    def _has_work(self) -> bool:
        return any(
            not task.durable or task.status == "in_progress" for task, _ in self._alive.values()
        )

    # -- what becomes of it

    def _tell(self, task: Task, index: int, event: RequestEvent) -> None:
        task.receive(index, self._reason(event) if isinstance(event, MultimodalGenError) else event)
        if isinstance(event, Output):
            for observer in self.observers:
                observer.made(task, event)
        if task.done:
            self._alive.pop(task.id, None)
            self._changed.set()

    def _cancel(self, task: Task) -> None:
        _, tickets = self._alive.pop(task.id, (task, []))
        for observer in self.observers:
            observer.ended_early(task)
        self._changed.set()
        for ticket in tickets:
            self._dispatcher.drop(ticket)

    def _reason(self, error: MultimodalGenError) -> MultimodalGenError:
        if self._phase == "stopping" and isinstance(error, Cancelled | EngineDied):
            return _stopping()
        return error


def limits_of(args: ServerArgs) -> QueueLimits:
    """As many with the engine as fill its batches a few times over."""
    in_flight = IN_FLIGHT_PER_BATCH * args.batching_max_size
    return QueueLimits(capacity=args.max_queue_size, in_flight=min(in_flight, args.max_queue_size))


def _not_ready(message: str) -> EngineNotReady:
    error = EngineNotReady(message)
    error.retry_after_s = RETRY_S
    return error


def _stopping() -> EngineNotReady:
    return _not_ready("the server is stopping")
