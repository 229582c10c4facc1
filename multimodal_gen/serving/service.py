"""Runs the tasks of all protocols on the engines, and is the one source of progress."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from multimodal_gen.client.request_handle import Output, RequestEvent, copy_of
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import (
    Cancelled,
    EngineDied,
    EngineNotReady,
    MultimodalGenError,
)
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import NO_PIXELS, Pixels, headers_of
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of, with_lora_defaults
from multimodal_gen.serving.dispatch.dispatcher import Dispatcher, QueueLimits
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.evaluation_limit import DEFAULT_S, check_evaluation
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.fleet import Fleet
from multimodal_gen.serving.fleet.model_loader import ModelLoader
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.health import EngineReport, ServerHealth, ServerPhase
from multimodal_gen.serving.observer import Observer
from multimodal_gen.serving.operator_limits import bounded, within_time
from multimodal_gen.serving.owner import Owner, Share
from multimodal_gen.serving.task import Task

log = logging.getLogger(__name__)
RETRY_S = 5.0
"""Suggested retry delay while there is no engine."""
IN_FLIGHT_PER_BATCH = 4


class Service:
    """Checks, queues and tracks client requests. Runs on one event loop; nothing blocks."""

    def __init__(
        self, args: ServerArgs, limits: QueueLimits | None = None, *, replay: bool = True
    ) -> None:
        """`replay`: an engine that dies is replaced."""
        limits = limits or limits_of(args)
        self._dispatcher = Dispatcher(limits, replay=replay)
        self._in_flight = limits.in_flight
        self._args = args
        self.fleet = Fleet(args.models, args.engine, lambda info: bounded(info, args))
        self.fleet.listeners.append(self._engine_changed)
        self.loader = ModelLoader(self.fleet, self._dispatcher.count)
        self.observers: list[Observer] = []
        self._replay = replay
        self.stopping = False
        self._alive: dict[str, tuple[Task, list[Ticket]]] = {}
        self._changed = asyncio.Event()

    @classmethod
    def over(cls, client: SchedulerClient, args: ServerArgs | None = None) -> Service:
        """Create a service on one ready engine, which is not replaced if it dies."""
        service = cls(args or ServerArgs(), replay=False)
        next(service.fleet.engines).engine_up(client)
        return service

    def grant(self, shares: Mapping[str, Share]) -> None:
        """Set what each owner is entitled to, by name; looked up on each use."""
        self._dispatcher.grant(shares)

    # -- state

    @property
    def model(self) -> ModelInfo:
        """The default model. Raises like `info_of`."""
        return self.info_of(self.fleet.default)

    def served(self, name: str | None = None) -> ServedModel:
        """The model that a request means by `name`; none: the default. A server of one model takes
        any name, as clients send those of other services. Raises ModelNotFound."""
        one = len(self.fleet.models) == 1 and self.fleet.is_known
        return self.fleet.default if not name or one else self.fleet.named(name)

    async def known(self, name: str | None = None) -> ModelInfo:
        """Properties of the model that a request means. One that is loaded on demand is loaded if
        it never was: the request waits for that. Raises like `served` and `info_of`."""
        model = self.served(name)
        if model.on_demand and not self.stopping:
            self.loader.want(model)
            while model.info is None and model.failure is None and not self.stopping:
                await self.fleet.change()
        return self.info_of(model)

    def info_of(self, model: ServedModel) -> ModelInfo:
        """Properties of a model. Raises EngineNotReady while it has not been loaded, or the
        error of an engine that is not replaced. While engines are being replaced, requests are
        accepted and wait."""
        if self.stopping:
            raise _stopping()
        died = next((engine.died for engine in model.engines if engine.died), None)
        if not self._replay and died is not None:
            raise copy_of(died)
        if model.failure is not None:
            raise _cant_be_loaded(model, model.failure)
        if model.info is None:
            raise _not_ready("the model is still loading")
        return model.info

    def not_ready(self) -> MultimodalGenError:
        """Error that explains why the service is not ready."""
        health = self.health()
        if health.phase == "restarting":
            return _not_ready(f"the engine is restarting: {health.reason or 'it was lost'}")
        return _not_ready(f"the server is {health.phase}")

    def model_named(self, name: str) -> ModelInfo:
        """The model of exactly this name. Also raises ModelNotFound."""
        return self.info_of(self.fleet.named(name))

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
        reports = tuple(map(EngineReport.of, self.fleet.engines))
        phase, reason = self._phase()
        loading = (each.loading for each in reports if each.loading)
        return ServerHealth(
            phase=phase,
            ranks=sum(each.ranks for each in reports) if phase != "failed" else 0,
            running=self._dispatcher.running,
            waiting=self._dispatcher.waiting,
            restarts=sum(each.restarts for each in reports),
            reason=None if reason is None else reason.message,
            loading=next(loading, None) if phase in ("loading", "restarting") else None,
            engines=reports,
        )

    def _phase(self) -> tuple[ServerPhase, MultimodalGenError | None]:
        if not self.fleet.models:
            return "stopping" if self.stopping else "loading", None
        model = self.fleet.default
        if not self._replay and (died := model.engines[0].died) is not None:
            return "failed", died
        losses = (engine.loss for engine in model.engines if engine.loss)
        if self.stopping:
            return "stopping", model.failure
        match model.status:
            case "ready":
                return "ready", None
            case "failed":
                return "failed", model.failure
            case "restarting" | "draining":
                return "restarting", model.failure or next(losses, None)
            case "loading" | "unloaded":
                return "ready" if model.on_demand and model.info else "loading", model.failure

    def load_of(self, model: ServedModel) -> tuple[int, int, float]:
        """Started and waiting requests of a model, and the predicted seconds of all of them."""
        flying = [ticket for engine in model.engines for ticket in engine.flying]
        running = sum(ticket.begun is True for ticket in flying)
        waiting = self._dispatcher.count(model) + len(flying) - running
        return running, waiting, self._dispatcher.backlog_s(model)

    # -- requests

    def start(
        self,
        params: SamplingParams | Sequence[SamplingParams] = (),
        pictures: Pixels = NO_PIXELS,
        *,
        owner: Owner,
        model: str | None = None,
        previews: bool = False,
        task_id: str | None = None,
        requests: Sequence[Req] | None = None,
    ) -> Task:
        """Start one task for all outputs of `params`, each with the input `pictures`, on `model`,
        which is the default if None.

        `requests` replaces params by the result of `resolve`. Such a task is durable: it is
        accepted even if the queue is full, and not started while the server stops. Raises
        InvalidRequest, ModelNotFound, QueueFull, EngineNotReady.
        """
        kept, served = requests is not None, self.served(model)
        if requests is None:
            requests = self.resolve(params, pictures, model=model, previews=previews)
        task = Task(
            task_id or secrets.token_hex(16),
            owner,
            requests,
            self._cancel,
            model=served.name,
            durable=kept,
            is_loading=lambda: served.status in ("unloaded", "loading"),
        )

        def tell(index: int, event: RequestEvent) -> None:
            self._tell(task, index, event)

        self._alive[task.id] = task, []
        self._observe(lambda observer: observer.started(task))
        try:
            tickets = self._dispatcher.put(
                requests,
                [*pictures.values()],
                served,
                owner,
                tell,
                durable=kept,
                bounded=not kept,
            )
        except Exception:
            self._cancel(task)
            raise
        if task.done:  # Its first output was refused immediately.
            for ticket in tickets:
                self._dispatcher.drop(ticket)
        else:
            self._alive[task.id] = task, tickets
            served.last_used = time.monotonic()
            self.loader.want(served)
        return task

    def resolve(
        self,
        params: SamplingParams | Sequence[SamplingParams],
        pictures: Pixels = NO_PIXELS,
        *,
        model: str | None = None,
        previews: bool = False,
    ) -> list[Req]:
        """Return the requests that `start` would create. Raises InvalidRequest, ModelNotFound,
        EngineNotReady."""
        served = self.served(model)
        info = self.info_of(served)
        headers = headers_of(pictures)
        several = [params] if isinstance(params, SamplingParams) else params
        several = [within_time(one, self._args) for one in several]
        several = [with_lora_defaults(one, info, served.lora_titles(one)) for one in several]
        requests = [
            req for one in several for req in requests_of(one, info, headers, previews=previews)
        ]
        clients = [engine.client for engine in served.engines if engine.client is not None]
        if clients and (limit_s := self._evaluation_limit(info)):
            for req in requests:
                check_evaluation(req.params, info, clients[0].costs, limit_s)
        return requests

    def _evaluation_limit(self, model: ModelInfo) -> float | None:
        """Maximum seconds of one evaluation; 0 or None: no limit."""
        shared = self._dispatcher.several_owners or model.device != "cpu"
        given = self._args.max_evaluation_s
        return DEFAULT_S if given is None and shared else given

    def room(self, model: ServedModel) -> int:
        """Number of further requests that keep a model's engines busy; 0 if none is ready. A model
        that is loaded on demand has room for the request that has it loaded."""
        ready = sum(engine.status == "ready" for engine in model.engines)
        wanted = ready * max(1, self._in_flight // 2)
        if not ready and model.on_demand and model.failure is None:
            wanted = 1
        alive = (task.outputs.count(None) for task in self.tasks if task.model == model.name)
        return 0 if self.stopping else max(0, wanted - sum(alive))

    def check_room(self, count: int, owner: Owner, everywhere: Counter[str] | None = None) -> None:
        """Raise QueueFull if `count` more requests exceed the capacity, or the owner's share."""
        self._dispatcher.check_room(count, owner, everywhere)

    def _engine_changed(self, engine: Engine) -> None:
        self._dispatcher.engine_changed(engine)
        model = engine.model
        if engine.status == "failed" and model is not None and model.failure is not None:
            self._dispatcher.fail_waiting(model, _cant_be_loaded(model, model.failure))

    # -- stopping

    async def drain(self, seconds: float) -> None:
        """Accept nothing more, and let current work finish, for at most `seconds`. Durable requests
        that have not started are left to the next server."""
        self.stopping = True
        self._dispatcher.hold_durable()
        end = asyncio.get_running_loop().time() + seconds
        while self._has_work() and (left := end - asyncio.get_running_loop().time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def stop(self) -> None:
        """Cancel all remaining work."""
        self.stopping = True
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
        if self.stopping and isinstance(error, Cancelled | EngineDied):
            return _stopping()
        return error


def limits_of(args: ServerArgs) -> QueueLimits:
    """Compute queue limits: an engine gets enough requests to fill its batches a few times."""
    in_flight = IN_FLIGHT_PER_BATCH * args.batching_max_size
    return QueueLimits(capacity=args.max_queue_size, in_flight=min(in_flight, args.max_queue_size))


def _cant_be_loaded(model: ServedModel, failure: MultimodalGenError) -> EngineNotReady:
    what = "loaded" if model.info is None else "loaded again"
    return _not_ready(f"the model can't be {what}: {failure.message}")


def _not_ready(message: str) -> EngineNotReady:
    error = EngineNotReady(message)
    error.retry_after_s = RETRY_S
    return error


def _stopping() -> EngineNotReady:
    return _not_ready("the server is stopping")
