"""Messages from a client to the Scheduler."""

from __future__ import annotations

from typing import Literal

import msgspec

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.request_warning import RequestWarning

PROTOCOL_VERSION = 5
PREVIEWS_PER_REQUEST = 10
"""Maximum; each preview costs a small decode."""
Runner = Literal["eager", "compiled", "captured"]
"""Ways to run an evaluation, the fastest last: operation by operation; each repeated block as one
compiled graph; the whole as one captured graph."""
RUNNERS: tuple[Runner, ...] = ("eager", "compiled", "captured")


class Standing(msgspec.Struct, frozen=True):
    """Owner of a request, for an engine that several owners share."""

    owner: str = ""
    weight: float = 1.0
    """Share of the device, relative to other owners."""
    priorities: bool = False
    """A request of high priority goes before those of other owners."""


class Req(msgspec.Struct, frozen=True, kw_only=True):
    """One image or video. Immutable: all defaults are filled in and the seed is chosen.

    The client chooses `id`; a repeated id is the same request.
    """

    id: str
    params: SamplingParams
    previews: bool = False
    """Send previews of the current estimate with the progress."""
    pictures: dict[str, FrameHeader] = {}
    """Input images and video, as frames in this order; see messages/pictures.py."""
    standing: Standing = Standing()
    warnings: tuple[RequestWarning, ...] = ()
    """What the client knows of it: for its result."""
    runner: Runner | None = None
    """As of `Work`, for a request that another engine has begun; None: the fastest that is
    ready."""


def preview_stride(evaluations: int) -> int:
    """Number of evaluations between two previews."""
    return -(-evaluations // PREVIEWS_PER_REQUEST)


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Asks for `Ready`, which is sent once the model is loaded."""

    protocol: int = PROTOCOL_VERSION


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Submits a request; the frames are its input images."""

    req: Req

    @property
    def frames(self) -> tuple[FrameHeader, ...]:
        return tuple(self.req.pictures.values())


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: str


class HealthCheck(msgspec.Struct, frozen=True, tag="health_check"):
    """Asks for `EngineHealth`, which is sent at once, even during a long step."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Stops the engine: cancels all running and queued requests, then every rank exits."""


ClientMessage = Hello | Submit | Cancel | HealthCheck | Shutdown
