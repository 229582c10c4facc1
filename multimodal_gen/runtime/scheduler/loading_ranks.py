"""Waits until the ranks have loaded the model."""

from __future__ import annotations

import os

import zmq

from multimodal_gen.errors import EngineDied, MultimodalGenError
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.plan import RankLoaded, RankMessage, RankStarted
from multimodal_gen.runtime.scheduler.client_gateway import ClientGateway
from multimodal_gen.runtime.scheduler.rank_links import RankLinks

POLL_MS = 200
"""Time until a client's wish to end is noticed."""


class LoadingRanks:
    """Reports of the ranks on loading."""

    def __init__(self, links: RankLinks, gateway: ClientGateway) -> None:
        self._links = links
        self._gateway = gateway
        self._loaded: dict[int, RankLoaded] = {}
        self._loading: dict[int, LoadingProgress] = {}
        self._poller = zmq.Poller()
        for socket in (links.socket, links.monitor):
            self._poller.register(socket, zmq.POLLIN)

    def wait(self) -> list[RankLoaded]:
        """Return the answers of all ranks, in their order; meanwhile, tell clients the progress.

        Ends the process if a rank can't load the model, or if a client asks for it. Raises
        EngineDied if a rank is lost.
        """
        while len(self._loaded) < self._links.size:
            if self._gateway.shutdown_asked:
                self._end(0)
            ready = dict(self._poller.poll(POLL_MS))
            self._links.check()
            if self._links.socket in ready and (received := self._links.receive()) is not None:
                self._take(received[0])
        return [self._loaded[rank] for rank in sorted(self._loaded)]

    def _take(self, message: RankMessage) -> None:
        match message:
            case RankStarted():
                pass
            case LoadingProgress():
                self._loading[message.rank] = message
                slowest = min(self._loading.values(), key=lambda each: each.fraction)
                self._gateway.announce(slowest)
            case RankLoaded(error=None):
                self._loaded[message.rank] = message
            case RankLoaded(error=error) if error is not None:
                self._refuse(error.exception())
            case _:
                raise EngineDied(f"rank {message.rank} answered before there was a question")

    def _refuse(self, error: MultimodalGenError) -> None:
        self._gateway.refuse(error)
        self._end(3)

    def _end(self, status: int) -> None:
        self._gateway.close()
        os._exit(status)
