"""One engine as the front sees it: whether it can be used, and what it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.loading import LoadingProgress

if TYPE_CHECKING:
    from multimodal_gen.serving.dispatch.ticket import Ticket
    from multimodal_gen.serving.fleet.served_model import ServedModel

EngineStatus = Literal["unloaded", "loading", "ready", "draining", "restarting", "failed"]


class Keeper(Protocol):
    """Keeps an engine running, or connected, until closed."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class LoadedSoFar:
    """Progress of loading."""

    component: str
    loaded_gb: float
    total_gb: float

    @classmethod
    def of(cls, progress: LoadingProgress) -> LoadedSoFar:
        sizes = (round(s / 1e9, 2) for s in (progress.loaded_bytes, progress.total_bytes))
        return cls(progress.component, *sizes)


@dataclass(eq=False, kw_only=True)
class Engine:
    """An engine, here or elsewhere. Its keeper reports to it, on the event loop."""

    name: str
    args: EngineArgs | None = None
    """How it is started; None: it runs elsewhere."""
    address: str = ""
    """Where it runs, if elsewhere."""
    tell: Callable[[Engine], None] = lambda engine: None
    """Called after each change of status."""
    keep: Callable[[Engine], Keeper] | None = None
    """Starts it, or connects to it."""

    model: ServedModel | None = None
    """None while the model of an engine elsewhere is unknown."""
    status: EngineStatus = "unloaded"
    client: SchedulerClient | None = None
    ranks: int = 0
    flying: dict[Ticket, None] = field(default_factory=dict)
    """Requests that it has."""
    loading: LoadedSoFar | None = None
    total_bytes: int = 0
    """Bytes of its weights, as it told while it was loading."""
    failure: MultimodalGenError | None = None
    """Why it could not be started; it is tried again unless its status is failed."""
    loss: MultimodalGenError | None = None
    """Error of the last one that was lost."""
    restarts: int = 0
    ready_since: float = 0.0
    """On a monotonic clock."""
    _keeper: Keeper | None = None
    _emptied: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def accepts(self) -> bool:
        """True if requests may be sent to it now."""
        return self.status == "ready" and self.died is None

    @property
    def is_here(self) -> bool:
        """True if this server starts and ends it."""
        return self.args is not None

    @property
    def died(self) -> MultimodalGenError | None:
        """Error that ended it, maybe before its keeper notices."""
        return None if self.client is None else self.client.died

    @property
    def tries_suspect(self) -> bool:
        """True if it has a request that may have killed another engine."""
        return any(ticket.suspect for ticket in self.flying)

    def landed(self, ticket: Ticket) -> None:
        """It no longer has this request."""
        del self.flying[ticket]
        if not self.flying:
            self._emptied.set()

    # -- what it is told to do

    def load(self) -> None:
        """Start it, unless it is started."""
        if self._keeper is None and self.keep is not None:
            self.failure = None
            self._change("loading")
            self._keeper = self.keep(self)

    async def drain(self) -> None:
        """Send it nothing more, and wait until it has nothing."""
        if self.status == "ready":
            self._change("draining")
        while self.flying:
            self._emptied.clear()
            await self._emptied.wait()

    async def stop(self) -> None:
        """End it, or disconnect from it; what it has is cancelled."""
        if (keeper := self._keeper) is not None:
            await asyncio.to_thread(keeper.close)
            self._keeper = None
        self.client, self.ranks, self.loading, self.loss = None, 0, None, None
        self._change("unloaded")

    # -- what its keeper reports

    def engine_loading(self, progress: LoadingProgress) -> None:
        self.loading = LoadedSoFar.of(progress)
        self.total_bytes = progress.total_bytes

    def engine_up(self, client: SchedulerClient) -> None:
        if self.keep is not None and client.died is not None:
            return  # It was stopped as it became ready.
        if self.loss is not None:
            self.restarts, self.loss = self.restarts + 1, None
        self.client, self.ranks = client, client.num_ranks
        self.loading = self.failure = None
        self.ready_since = time.monotonic()
        self._change("ready")

    def engine_lost(self, error: MultimodalGenError) -> None:
        self.loss, self.ranks = error, 0
        self._change("restarting")

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        self.loading, self.failure = None, error
        if for_good:
            self._keeper = None
        self._change("failed" if for_good else self.status)

    def _change(self, status: EngineStatus) -> None:
        self.status = status
        self.tell(self)
