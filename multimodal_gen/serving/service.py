"""Runs the tasks of all protocols on the engine, and is the one source of progress."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
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
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import Pixels, headers_of
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.serving.dispatch.dispatcher import Dispatcher, QueueLimits
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.evaluation_limit import DEFAULT_S, check_evaluation
from multimodal_gen.serving.observer import Observer
from multimodal_gen.serving.operator_limits import bounded, within_time
from multimodal_gen.serving.owner import Owner, Share
from multimodal_gen.serving.task import Task

log = logging.getLogger(__name__)
ServerPhase = Literal["loading", "ready", "restarting", "stopping", "failed"]

NO_PIXELS: Pixels = MappingProxyType({})
RETRY_S = 5.0
"""Suggested retry delay while there is no engine."""
IN_FLIGHT_PER_BATCH = 4


@dataclass(frozen=True)
class LoadedSoFar:
    """Progress of loading."""

    component: str
    loaded_gb: float
    total_gb: float


@dataclass(frozen=True)
class ServerHealth:
    """Current state, without asking the engine."""

    phase: ServerPhase
    ranks: int
    running: int
    """Number of requests that the engine has started."""
    waiting: int
    restarts: int
    reason: str | None
    """Reason that it is not ready, if it is not."""
    loading: LoadedSoFar | None = None
    """Progress of an engine that is loading."""


class Service:
    """Checks, queues and tracks client requests. Runs on one event loop; nothing blocks."""

    def __init__(
        self, args: ServerArgs, limits: QueueLimits | None = None, *, replay: bool = True
    ) -> None:
        """`replay`: an engine that dies is replaced."""
        self._dispatcher = Dispatcher(limits or limits_of(args), replay=replay)
        self._args = args
        self.observers: list[Observer] = []
        self._replay = replay
        self._client: SchedulerClient | None = None
        self._model: ModelInfo | None = None
        self._ranks = 0
        self._phase: ServerPhase = "loading"
        self._failure: MultimodalGenError | None = None
        self._loading: LoadedSoFar | None = None
        self._loss: MultimodalGenError | None = None
        """Error of the last engine that was lost."""
        self._restarts = 0
        self._alive: dict[str, tuple[Task, list[Ticket]]] = {}
        self._changed = asyncio.Event()

    @classmethod
    def over(cls, client: SchedulerClient, args: ServerArgs | None = None) -> Service:
        """Create a service on one ready engine, which is not replaced if it dies."""
        service = cls(args or ServerArgs(), replay=False)
        service.engine_up(client)
        return service

    def grant(self, shares: Mapping[str, Share]) -> None:
        """Set what each owner is entitled to, by name; looked up on each use."""
        self._dispatcher.grant(shares)

    # -- state

    @property
    def model(self) -> ModelInfo:
        """The model. Raises EngineNotReady while none is loaded, or the error of an engine that is
        not replaced. While an engine is being replaced, requests are accepted and wait."""
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
        """Error that explains why the service is not ready."""
        if self._phase == "restarting":
            why = "it was lost" if self._loss is None else self._loss.message
            return _not_ready(f"the engine is restarting: {why}")
        return _not_ready(f"the server is {self._phase}")

    def model_named(self, name: str) -> ModelInfo:
        """The model, if `name` is its own name. Also raises ModelNotFound."""
        if name != self.model.name:
            what = f"model {name[:120]!r} is not served; available: {self.model.name!r}"
            raise ModelNotFound(what)
        return self.model

    @property
    def tasks(self) -> Sequence[Task]:
        """Queued and running tasks, oldest first."""
        return [task for task, _ in self._alive.values()]

    def task(self, task_id: str) -> Task | None:
        """Queued or running task of that id, or None."""
        task, _ = self._alive.get(task_id, (None, None))
        return task

    def health(self) -> ServerHealth:
        """Current health, for probes."""
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
            loading=self._loading if phase in ("loading", "restarting") else None,
        )

    # -- requests

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
        """Start one task for all outputs of `params`, each with the input `pictures`.

        `requests` replaces params by the result of `resolve`. Such a task is durable: it is
        accepted even if the queue is full, and not started while the server stops. Raises
        InvalidRequest, QueueFull, EngineNotReady.
        """
        kept = requests is not None
        if requests is None:
            requests = self.resolve(params, pictures, previews=previews)
        task = Task(task_id or secrets.token_hex(16), owner, requests, self._cancel, durable=kept)

        def tell(index: int, event: RequestEvent) -> None:
            self._tell(task, index, event)

        self._alive[task.id] = task, []
        self._observe(lambda observer: observer.started(task))
        try:
            tickets = self._dispatcher.put(
                requests, [*pictures.values()], owner, tell, durable=kept, bounded=not kept
            )
        except Exception:
            self._cancel(task)
            raise
        if task.done:  # Its first output was refused immediately.
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
        """Return the requests that `start` would create. Raises InvalidRequest, EngineNotReady."""
        model = self.model
        headers = headers_of(pictures)
        several = [params] if isinstance(params, SamplingParams) else params
        several = [within_time(one, self._args) for one in several]
        requests = [
            req for one in several for req in requests_of(one, model, headers, previews=previews)
        ]
        if (limit_s := self._evaluation_limit(model)) and self._client is not None:
            for req in requests:
                check_evaluation(req.params, model, self._client.costs, limit_s)
        return requests

    def _evaluation_limit(self, model: ModelInfo) -> float | None:
        """Maximum seconds of one evaluation; 0 or None: no limit."""
        shared = self._dispatcher.several_owners or model.device != "cpu"
        given = self._args.max_evaluation_s
        return DEFAULT_S if given is None and shared else given

    def check_room(self, count: int, owner: Owner) -> None:
        """Raise QueueFull if `count` more requests exceed the capacity, or the owner's share."""
        self._dispatcher.check_room(count, owner)

    # -- callbacks of the engine's supervisor

    def engine_loading(self, progress: LoadingProgress) -> None:
        """An engine has loaded a part of its weights."""
        loaded, total = (
            round(size / 1e9, 2) for size in (progress.loaded_bytes, progress.total_bytes)
        )
        self._loading = LoadedSoFar(progress.component, loaded, total)

    def engine_up(self, client: SchedulerClient) -> None:
        """An engine is ready."""
        self._loading = None
        if self._loss is not None:
            self._restarts, self._loss = self._restarts + 1, None
        self._client = client
        self._model = None if client.model is None else bounded(client.model, self._args)
        self._ranks = client.num_ranks
        if self._phase != "stopping":
            self._phase, self._failure = "ready", None
        self._dispatcher.attach(client)

    def engine_lost(self, error: MultimodalGenError) -> None:
        """The engine is lost; another one is starting."""
        self._loss, self._ranks = error, 0
        if self._phase != "stopping":
            self._phase = "restarting"
        self._dispatcher.detach()

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        """The engine could not be started; it is retried unless `for_good`."""
        self._loading = None
        if self._phase != "stopping":
            self._failure = error
            if for_good:
                self._phase = "failed"

    # -- stopping

    async def drain(self, seconds: float) -> None:
        """Accept nothing more, and let current work finish, for at most `seconds`. Durable requests
        that have not started are left to the next server."""
        self._phase = "stopping"
        self._dispatcher.hold_durable()
        end = asyncio.get_running_loop().time() + seconds
        while self._has_work() and (left := end - asyncio.get_running_loop().time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def stop(self) -> None:
        """Cancel all remaining work."""
        self._phase = "stopping"
        self._dispatcher.fail_all(_stopping())

    def _has_work(self) -> bool:
        return any(
            not task.durable or task.status == "in_progress" for task, _ in self._alive.values()
        )

    # -- after the end of a task

    def _tell(self, task: Task, index: int, event: RequestEvent) -> None:
        task.receive(index, self._reason(event) if isinstance(event, MultimodalGenError) else event)
        if isinstance(event, Output):
            self._observe(lambda observer: observer.made(task, event))
        if task.done:
            self._alive.pop(task.id, None)
            self._changed.set()

    def _cancel(self, task: Task) -> None:
        _, tickets = self._alive.pop(task.id, (task, []))
        self._observe(lambda observer: observer.ended_early(task))
        self._changed.set()
        for ticket in tickets:
            self._dispatcher.drop(ticket)

    def _observe(self, tell: Callable[[Observer], None]) -> None:
        """Tell every observer; what one can't digest is no failure of the task."""
        for observer in self.observers:
            try:
                tell(observer)
            except Exception:
                log.exception("%s failed", type(observer).__name__)

    def _reason(self, error: MultimodalGenError) -> MultimodalGenError:
        if self._phase == "stopping" and isinstance(error, Cancelled | EngineDied):
            return _stopping()
        return error


def limits_of(args: ServerArgs) -> QueueLimits:
    """Compute queue limits: the engine gets enough requests to fill its batches a few times."""
    in_flight = IN_FLIGHT_PER_BATCH * args.batching_max_size
    return QueueLimits(capacity=args.max_queue_size, in_flight=min(in_flight, args.max_queue_size))


def _not_ready(message: str) -> EngineNotReady:
    error = EngineNotReady(message)
    error.retry_after_s = RETRY_S
    return error


def _stopping() -> EngineNotReady:
    return _not_ready("the server is stopping")
