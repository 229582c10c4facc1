"""What rank 0's Scheduler tells the Schedulers of all ranks, and what they answer."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request import Req


class Phase(StrEnum):
    """The parts of a generation, in order. Each is done in units: prompts, evaluations, chunks."""

    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Advance these requests together by `k` units of one phase."""

    phase: Phase
    ids: tuple[str, ...]
    k: int = 1


class LoraLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Read a LoRA, beside the work: requests refer to it by `number` once all ranks have it."""

    number: int
    name: str
    stamp: str
    """Of its files as rank 0 saw them."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """All that changes a rank's state, in the order in which it happens: LoRAs out and in, drop,
    admit, work.

    Its frames are the pictures of the requests in `admit`, one request's after another's.
    """

    number: int
    admit: tuple[Req, ...] = ()
    drop: tuple[str, ...] = ()
    unload: tuple[int, ...] = ()
    load: tuple[LoraLoad, ...] = ()
    loras: dict[str, tuple[int, ...]] = {}
    """Of admitted requests by id: which loads those in their `params.lora` are."""
    work: Work | None = None
    resume: bool = False
    """After an error the ranks skip work until a plan says this: then all are at the same point."""
    shutdown: bool = False

    @property
    def frames(self) -> tuple[FrameHeader, ...]:
        return tuple(header for req in self.admit for header in req.pictures.values())


class BatchKey(msgspec.Struct, frozen=True, array_like=True, cache_hash=True):
    """Requests with equal keys can share an evaluation, and it takes each of them as long."""

    tokens: int
    """Of one row as the denoiser sees it: what is made, after patchify, the pictures that it goes
    by, and text. Of texts that are padded to share an evaluation, as many as they may have."""
    kind: str = ""
    """What else must be equal, such as shapes, one of several experts, or a frame rate."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What encoding a request showed about the work to come."""

    batch_keys: tuple[tuple[BatchKey, int], ...]
    """Those of its evaluations, in order, and how many in a row have each."""
    rows: int
    """Rows of a batch that this request takes: its guidance branches."""
    decode_chunks: int
    steps: int | None = None
    """Of the user's; unset where all that were asked for are done."""

    @property
    def evaluations(self) -> int:
        return sum(count for _, count in self.batch_keys)


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """One rank has carried out one plan.

    `frames` (rank 0 only) are the pixels of the requests in `finished`, then the previews of those
    in `previewed`, in that order.
    """

    number: int
    rank: int
    advanced: int = 0
    """Units of the phase that the whole group completed."""
    seconds: float = 0.0
    """How long the work took on this rank."""
    skipped: bool = False
    error: WireError | None = None
    """The group's work stopped here, after `advanced` units."""
    failures: dict[str, WireError] = {}
    """Requests that failed by themselves, outside anything shared."""
    prepared: dict[str, Prepared] = {}
    finished: tuple[str, ...] = ()
    previewed: tuple[str, ...] = ()
    frames: tuple[FrameHeader, ...] = ()


class RankLoaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded"):
    """A rank has its model (`model`, and what the cost model starts from) or could not load it."""

    rank: int
    model: ModelInfo | None = None
    parameters: int = 0
    """Weights of the denoiser."""
    memory_bytes: int = 0
    """Free for requests after loading."""
    error: WireError | None = None


class LoraRead(msgspec.Struct, frozen=True, kw_only=True, tag="lora_read"):
    """A rank has a LoRA, or could not read it."""

    number: int
    rank: int
    error: WireError | None = None


RankMessage = Ack | RankLoaded | LoraRead
