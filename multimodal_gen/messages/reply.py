"""Messages from the Scheduler to a client."""

from __future__ import annotations

import msgspec

from multimodal_gen import errors
from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request import PROTOCOL_VERSION, Runner
from multimodal_gen.messages.request_warning import RequestWarning


class WireError(msgspec.Struct, frozen=True, kw_only=True):
    """An error of `multimodal_gen.errors` as data."""

    code: str
    message: str
    field: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: errors.MultimodalGenError) -> WireError:
        return cls(
            code=error.code,
            message=_encodable(error.message),
            field=None if error.field is None else _encodable(error.field),
            retry_after_s=error.retry_after_s,
        )

    def exception(self) -> errors.MultimodalGenError:
        return errors.from_wire(self.code, self.message, self.field, self.retry_after_s)


def _encodable(text: str) -> str:
    """`text`, with an escape for each half surrogate pair: names of files may contain some."""
    return text.encode("utf-8", "backslashreplace").decode()


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    protocol: int = PROTOCOL_VERSION
    num_ranks: int
    model: ModelInfo


class NotReady(msgspec.Struct, frozen=True, tag="not_ready"):
    """Final: the model could not be loaded, the client speaks another protocol version, or another
    client has stopped the engine."""

    error: WireError


class RequestAccepted(msgspec.Struct, frozen=True, tag="accepted"):
    id: str


class RequestProgress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Progress of a request. `frames` holds one preview [H, W, 3] uint8 if requested."""

    id: str
    step: int
    total: int
    queue_position: int = 0
    """Number of requests ahead of it; 0 once it runs."""
    eta_s: float | None = None
    phase: str = ""
    """What is being done for it: enhance, encode, denoise or decode; empty while it waits."""
    runner: Runner | None = None
    """How its evaluations are run, once it is begun: as of `Req`, if it is sent again."""
    batch_size: int = 0
    """Number of requests that share its current work, itself included; 0 while it waits, also for
    requests that were preferred after it had begun."""
    frames: tuple[FrameHeader, ...] = ()


class Evaluations(msgspec.Struct, frozen=True):
    """Evaluations of the denoiser that made a result."""

    computed: int
    """Those that ran it, for all guidance branches or some."""
    extrapolated: int
    """Those whose predictions follow from earlier ones: 0 with quality exact."""


class Usage(msgspec.Struct, frozen=True):
    """Cost of a result."""

    prompt_tokens: int
    """Tokens of its prompts, as the tokenizer that makes most of them counts: without those that
    each text has around it, and with those that don't fit."""
    megapixel_steps: float
    """Sum over its computed evaluations of width * height * frames / 1e6."""


class Result(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """Final reply of a successful request.

    `frames` holds its pixels [F, H, W, 3] uint8, then its sound [channels, samples] float32 if
    `audio_rate` is set; F is 0 for sound alone.
    """

    id: str
    seed: int
    fps: int | None = None
    audio_rate: int | None = None
    """Samples of sound per second; None without sound."""
    timings: dict[str, float] = {}
    """Seconds: `queued`, each phase by name (total time of its batches), and `total`."""
    batch_sizes: list[int] = []
    """Number of requests that shared each evaluation."""
    evaluations: Evaluations | None = None
    usage: Usage | None = None
    warnings: tuple[RequestWarning, ...] = ()
    """Parts of the request that had no effect, or another than requested."""
    revised_prompt: str | None = None
    """The prompt that was used, if it was enhanced."""
    prompt_notes: tuple[str, ...] = ()
    """How its prompts were read, if it names a `prompt_syntax`: chunks and weights."""
    frames: tuple[FrameHeader, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Final reply of an unsuccessful request; `cancelled` is one of the codes."""

    id: str
    error: WireError


class RankMemory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Memory that a rank takes."""

    rank: int
    host_bytes: int
    """Resident, with mapped files."""
    device_bytes: int = 0
    """Reserved on its GPU; 0 without one."""
    device_total_bytes: int = 0


class EngineHealth(msgspec.Struct, frozen=True, kw_only=True, tag="health"):
    running: int
    waiting: int
    memory: tuple[RankMemory, ...] = ()
    """Of the ranks, as they told with the last work or, before any, when they were loaded."""


EngineMessage = (
    EvaluationCosts
    | LoadingProgress
    | Ready
    | NotReady
    | RequestAccepted
    | RequestProgress
    | Result
    | Failed
    | EngineHealth
)
