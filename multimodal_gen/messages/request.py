"""What a client sends to rank 0's Scheduler."""

from __future__ import annotations

import msgspec

from multimodal_gen.configs.sampling_params import SamplingParams

PROTOCOL_VERSION = 1


class Req(msgspec.Struct, frozen=True, kw_only=True):
    """One picture or one video: every default filled in, the seed chosen, never changed after.

    `id` is made by the client; a repeated id is the same request.
    """

    id: str
    params: SamplingParams
    previews: bool = False
    """Whether progress should carry pictures of the current estimate."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Asks for `Ready`; answered as soon as the model is loaded."""

    protocol: int = PROTOCOL_VERSION


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    req: Req


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: str


class HealthCheck(msgspec.Struct, frozen=True, tag="health_check"):
    """Asks for `Health`; answered at once, also inside a long step."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Ends the engine: what runs or waits is cancelled, then every rank exits."""


ClientMessage = Hello | Submit | Cancel | HealthCheck | Shutdown
