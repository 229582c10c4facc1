"""Interface of a stage, and of the pipeline that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.configs.step_cache import StepCaches
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.controls.loaded_controls import LoadedControls
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.loader.upscalers import Upscalers
from multimodal_gen.runtime.models.latent_upsampler import LatentUpsampler
from multimodal_gen.runtime.models.runners import Runners
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.upscaler import Upscaler
from multimodal_gen.runtime.models.vaes.shared_decoding import SharedDecoding
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class Stage(Protocol):
    """One part of a phase: advances the given states by k units."""

    uses: tuple[str, ...]
    """Components of the checkpoint that it may use."""

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        """Components that must be on the device for the next `k` units of these requests."""

    def __call__(self, states: Sequence[RequestState], k: int) -> None: ...


class Guidance(Protocol):
    """Combines the predictions of a request's branches."""

    scale_name: str | None
    """Sampling parameter that it guides by, if it guides at all."""

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        """("positive",), or ("positive", "negative"): one batch row each."""

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        """Combine predictions [branches, ...] of `state.combined_at` into one [1, ...]."""

    def guide_all(
        self, predictions: Tensor, states: Sequence[RequestState], rows: Sequence[int]
    ) -> Tensor:
        """Combine those of several requests [R, ...], of which each has `rows`, into [n, ...]."""


class Start(Protocol):
    """Sets a request's latents from its image, and the first evaluation of its solver."""

    def __call__(self, state: RequestState, solver: Solver) -> None: ...

    def begin(self, state: RequestState, solver: Solver) -> None:
        """Skip the evaluations that the request's strength excludes."""


class Reads(Protocol):
    """Tells, on the rank that encodes, how a request's prompts were read."""

    def tokens(self, state: RequestState) -> int:
        """Number of tokens of the request's prompts."""

    def notes(self, state: RequestState) -> list[str]:
        """Chunks and weights, if the request names a syntax."""

    def unread(self, state: RequestState) -> list[RequestWarning]:
        """Warnings about tokens that no encoder read."""


class Pipeline(Protocol):
    """Part of `ComposedPipeline` that stages use; documented there."""

    context: RankContext
    loras: LoadedLoras
    controls: LoadedControls
    runners: Runners
    when_evaluating: Callable[[], None]
    step_caches: StepCaches

    @property
    def upscalers(self) -> Upscalers: ...

    guidance: Guidance
    start: Start
    enlarges_latents: ClassVar[bool]

    @property
    def reads(self) -> Reads: ...

    @property
    def denoiser_name(self) -> str: ...

    @property
    def vae(self) -> VAE: ...

    def components_of_kind(self, *kinds: str) -> tuple[str, ...]: ...

    def denoisers_now(self, states: Sequence[RequestState]) -> tuple[str, ...]: ...

    def condition(self, state: RequestState, branch: str) -> Conditioning: ...

    def without_effect(self, state: RequestState) -> list[RequestWarning]: ...

    def prepare(self, state: RequestState) -> None: ...

    def combined(self, state: RequestState) -> Sequence[tuple[str, ...]]: ...

    @property
    def size_multiple(self) -> int: ...

    def batch_kind(self, state: RequestState, evaluation: int) -> str: ...

    def precompute(self, state: RequestState) -> None: ...

    def join(self, branches: Sequence[Conditioning]) -> Conditioning: ...

    def can_capture(self, rows: Rows) -> bool: ...

    def predict(self, rows: Rows) -> Tensor: ...

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor | None: ...

    def decode_chunks(self, params: SamplingParams) -> int: ...

    def decoded_at_once(self, params: SamplingParams) -> int: ...

    def decoded_by_all(self, params: SamplingParams) -> bool: ...

    def shared_decoding(self, state: RequestState) -> SharedDecoding | None: ...

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor: ...

    def decode_sound(self, state: RequestState) -> None: ...

    def check_upsampler(
        self, choice: UpscaleChoice, upscaler: Upscaler | LatentUpsampler
    ) -> None: ...

    def enlarged(self, state: RequestState, upsampler: LatentUpsampler) -> Tensor: ...
