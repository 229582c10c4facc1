"""Messages between the Scheduler and the Schedulers of all ranks: plans, and their replies."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.reply import RankMemory, Usage, WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request import Runner as Runner
from multimodal_gen.messages.request_warning import RequestWarning


class Phase(StrEnum):
    """Phases of a generation, in order. Their units: tokens, prompts, evaluations, chunks."""

    ENHANCE = "enhance"
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"


ENHANCED_TOKENS = 256
"""Maximum length of an enhanced prompt."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Advance these requests together by `k` units of one phase."""

    phase: Phase
    ids: tuple[str, ...]
    k: int = 1
    untried_bytes: int = 0
    """For evaluations larger than any that ran before: the memory that they are expected to need on
    a rank. Ranks agree that each has it, since one that ran out of it inside an evaluation would
    leave the others waiting there."""
    runner: Runner = "eager"
    """Runner of the evaluations: the same for a request from its first one on, on all ranks."""


AdapterKind = Literal["lora", "control"]
"""Sampling parameters that name adapters: files of the operator's that requests choose from."""


class AdapterLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Read an adapter in the background; requests refer to it by `number` once all ranks have
    it."""

    number: int
    name: str
    kind: AdapterKind = "lora"
    target: str | None = None
    """Component that a LoRA applies to; None: where its keys and its name say."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """Everything that changes a rank's state, in the order it is applied: unload and load adapters,
    drop, admit, work.

    Its frames are the input images of the requests in `admit`, request by request.
    """

    number: int
    admit: tuple[Req, ...] = ()
    drop: tuple[str, ...] = ()
    unload: tuple[int, ...] = ()
    load: tuple[AdapterLoad, ...] = ()
    adapters: dict[str, tuple[int, ...]] = {}
    """For admitted requests, by id: the load numbers of those in their `params.lora`, then of those
    in `params.control`."""
    work: Work | None = None
    resume: bool = False
    """After an error the ranks skip work until a plan sets this: then all are at the same point."""
    shutdown: bool = False

    @property
    def frames(self) -> tuple[FrameHeader, ...]:
        return tuple(header for req in self.admit for header in req.pictures.values())


class BatchKey(msgspec.Struct, frozen=True, array_like=True, cache_hash=True):
    """Requests with equal keys can share an evaluation, and each takes the same time."""

    tokens: int
    """Tokens per row as the denoiser sees it: output after patchify, conditioning images and text.
    Texts padded to share an evaluation count at their padded length."""
    kind: str = ""
    """Anything else that must be equal, such as shapes, the expert, or the frame rate."""


class EvaluationRun(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive evaluations of a request that are alike."""

    key: BatchKey
    count: int
    rows: int
    """Batch rows of each: one per guidance branch that it computes, and half of one per control.
    0: the denoiser does not run."""


class SecondPass(msgspec.Struct, frozen=True, array_like=True):
    """Work of a request that is upscaled, after its first evaluations and chunks."""

    evaluations: int
    decode_chunks: int


class EnlargingWork(msgspec.Struct, frozen=True, array_like=True):
    """Work of a model that enlarges the result of the first pass, before a second one."""

    units: int
    """Each of them a turn of tiles, in the decoding phase."""
    key: BatchKey
    """Of each unit."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a request's remaining work, known once it is encoded."""

    batch_keys: tuple[EvaluationRun, ...]
    """Its evaluations in order."""
    decode_chunks: int
    extrapolated: int = 0
    """Evaluations whose predictions follow from earlier ones."""
    second: SecondPass | None = None
    """Its evaluations are the last of `batch_keys`; the decoding of the first pass comes before
    them."""
    enlarging: EnlargingWork | None = None
    steps: int | None = None
    """User-visible steps; None when all requested steps are run."""
    warnings: tuple[RequestWarning, ...] = ()
    """For the request's result."""
    prompt_notes: tuple[str, ...] = ()
    """For the request's result: how its prompts were read."""
    usage: Usage | None = None
    """For the request's result."""

    @property
    def evaluations(self) -> int:
        return sum(run.count for run in self.batch_keys)

    @property
    def computed(self) -> int:
        """Evaluations that run the denoiser."""
        return sum(run.count for run in self.batch_keys if run.rows)


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """Reports that one rank has carried out one plan.

    `frames` (rank 0 only) are the pixels of the requests in `finished`, those of a request in
    `audio_rates` followed by its sound, then the previews of those in `previewed`, in that order.
    """

    number: int
    rank: int
    advanced: int = 0
    """Units of the phase that the whole batch completed."""
    seconds: float = 0.0
    """Duration of the work on this rank."""
    skipped: bool = False
    error: WireError | None = None
    """The batch's work stopped here, after `advanced` units."""
    failures: dict[str, WireError] = {}
    """Requests that failed on their own, outside any shared work."""
    enhanced: dict[str, str] = {}
    """Prompts that a language model has finished, by request; of rank 0 only."""
    prepared: dict[str, Prepared] = {}
    finished: tuple[str, ...] = ()
    audio_rates: dict[str, int] = {}
    """Samples per second of the sound, for finished requests that have some."""
    previewed: tuple[str, ...] = ()
    peak_bytes: int = 0
    """The most memory that the evaluations added on this rank's GPU; 0 if unknown."""
    memory: RankMemory | None = None
    """Told after each plan but those of evaluations."""
    frames: tuple[FrameHeader, ...] = ()


class PhaseSwitch(msgspec.Struct, frozen=True):
    """Going from one phase to another, where their weights aren't on the device together."""

    before: Phase
    after: Phase
    seconds: float
    """Until the weights have been copied."""


class RankLoaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded"):
    """A rank has loaded its model (`model`, and inputs of the cost model) or failed to."""

    rank: int
    model: ModelInfo | None = None
    parameters: int = 0
    """Number of parameters of the denoiser."""
    memory_bytes: int = 0
    """Bytes free for requests after loading."""
    adapter_bytes: int = 0
    """Bytes that LoRAs and controls may take; 0: there are none."""
    switches: tuple[PhaseSwitch, ...] = ()
    device_name: str = ""
    """Name and memory of its device: what is learned there holds for others of the same."""
    memory: RankMemory | None = None
    error: WireError | None = None


class RankStarted(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """A rank is connected, and begins to load."""

    rank: int


class AdapterRead(msgspec.Struct, frozen=True, kw_only=True, tag="adapter_read"):
    """A rank has read an adapter, or failed to."""

    number: int
    rank: int
    digest: str = ""
    """Digest of its files, which must be equal on all ranks."""
    size: int = 0
    """Bytes that it takes on this rank."""
    warnings: tuple[RequestWarning, ...] = ()
    """For the results of requests that use it."""
    error: WireError | None = None


class RunnerReady(msgspec.Struct, frozen=True, kw_only=True, tag="runner_ready"):
    """A rank can run evaluations in another way."""

    rank: int
    runner: Runner


RankMessage = Ack | RankStarted | RankLoaded | LoadingProgress | AdapterRead | RunnerReady
