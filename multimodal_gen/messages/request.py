"""What a client sends to rank 0's Scheduler."""

from __future__ import annotations

import msgspec

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.codec import FrameHeader

PROTOCOL_VERSION = 2
PREVIEWS_PER_REQUEST = 10
"""At most: each costs a small decode."""


class Req(msgspec.Struct, frozen=True, kw_only=True):
    """One picture or one video: every default filled in, the seed chosen, never changed after.

    `id` is made by the client; a repeated id is the same request.
    """

    id: str
    params: SamplingParams
    previews: bool = False
    """Whether progress should carry pictures of the current estimate."""
    pictures: dict[str, FrameHeader] = {}
    """What comes with it, as frames in this order: `image` [H, W, 3], `mask` [H, W]."""


def preview_stride(evaluations: int) -> int:
    """Of a request with so many evaluations each how-many-eth shows a preview."""
    return -(-evaluations // PREVIEWS_PER_REQUEST)


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Asks for `Ready`; answered as soon as the model is loaded."""

    protocol: int = PROTOCOL_VERSION


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Its frames are the request's pictures."""

    req: Req

    @property
    def frames(self) -> tuple[FrameHeader, ...]:
        return tuple(self.req.pictures.values())


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: str


class HealthCheck(msgspec.Struct, frozen=True, tag="health_check"):
    """Asks for `EngineHealth`; answered at once, also inside a long step."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Ends the engine: what runs or waits is cancelled, then every rank exits."""


ClientMessage = Hello | Submit | Cancel | HealthCheck | Shutdown
