"""Code shared by all model families, and the few methods that a family overrides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solver_choice import view_of
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.controls.loaded_controls import LoadedControls
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.layers.quantized.storage import count_numbers
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.captured.denoiser import CapturedDenoiser
from multimodal_gen.runtime.models.captured.graph_cache import GraphCache
from multimodal_gen.runtime.models.denoiser import (
    Denoiser,
    EagerDenoiser,
    StreamedDenoiser,
    WrappedDenoiser,
)
from multimodal_gen.runtime.models.runners import Runners
from multimodal_gen.runtime.models.schedulers.registry import make_solver
from multimodal_gen.runtime.models.schedulers.schedule import Schedule
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.pipelines.decoding_pipeline import DecodingPipeline
from multimodal_gen.runtime.pipelines.described_pipeline import DescribedPipeline
from multimodal_gen.runtime.pipelines.executor import SyncExecutor
from multimodal_gen.runtime.pipelines.guidance import guidance_without_effect
from multimodal_gen.runtime.pipelines.guiding.interval import combined_branches
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.prompts import EncodedPrompts, WeightedPrompts
from multimodal_gen.runtime.pipelines.requirements import check_components, check_view
from multimodal_gen.runtime.residency.residency import Residency
from multimodal_gen.runtime.stages import make_stages
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState, shapes_of
from multimodal_gen.runtime.stages.rows import Rows, join_rows
from multimodal_gen.runtime.stages.stage import Guidance, Start
from multimodal_gen.scheduling.working_memory import (
    ENCODERS,
    can_capture,
    kind_of,
    needed_together,
)


class ComposedPipeline(DecodingPipeline, DescribedPipeline, ABC):
    """The components of a checkpoint and the stages of a generation.

    A family subclasses it, sets `layout`, `guidance` and `start` in its constructor, and overrides
    the methods below; generic code never checks a family's name.
    """

    family: ClassVar[FamilyConfig]
    denoiser_name: ClassVar[str] = "transformer"
    native: ClassVar[NativeTransformer[Any] | None] = None
    """The denoiser, if it is a transformer of this project."""
    widths: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Values of the denoiser's config that must be the sum of values in other configs."""
    supports_ranks: ClassVar[bool] = True
    """True if several ranks can share the work."""
    tokens_beside: ClassVar[tuple[str, ...]] = ()
    """Conditioning [1, S, ...] besides the text's that is tokens too, such as input images."""

    guidance: Guidance
    start: Start
    """Starts image-to-image and inpainting requests, in families with those tasks."""

    def __init__(
        self,
        components: Mapping[str, Any],
        scheduler_config: Mapping[str, Any],
        defaults: Defaults,
        context: RankContext,
        residency: Residency | None = None,
    ) -> None:
        self.components = dict(components)
        self.scheduler_config = dict(scheduler_config)
        self.defaults = defaults
        self.step_caches = self.family.step_caches
        self.context = context
        self.loras = LoadedLoras(context.device)
        self.controls = LoadedControls(context.device)
        self.residency = residency or Residency()
        names = self.components_of_kind(self.denoiser_name)
        stays = self.native is not None and any(map(self.residency.stays, names))
        graphs = GraphCache.of(context) if stays else None
        self.runners = Runners(graphs)
        self.when_evaluating: Callable[[], None] = _nothing
        """Called before each evaluation of the denoiser."""
        if graphs is not None:
            self.loras.when_removed.append(graphs.forget_lora)
        self.prompts = EncodedPrompts(self.loras, self._hold_encoders)
        self.reads = WeightedPrompts(
            self.prompts,
            lambda params: self.guidance.branches(params),
            self.components,
            lambda: self.stated_limits.within(self.limits).max_sequence_length,
        )
        self.executor = SyncExecutor(self.components, make_stages(self), self.residency)

    # -- from a checkpoint

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[ComposedPipeline]:
        """Return the class for this checkpoint, if a family has several."""
        return cls

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Keyword arguments of the constructor, from the options in the checkpoint's index."""
        return {}

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raise InvalidCheckpoint for a checkpoint of the family that it does not support."""
        check_components(checkpoint, cls.family.components, cls.widths, cls.is_absent)

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        """True if the component is optional, and missing."""
        component = cls.family.components.get(name)
        return component is not None and component.optional and name not in checkpoint.components

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """Family defaults for values that neither the request nor the checkpoint sets."""
        return cls.family.defaults

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Config that solvers are created from: data, since every request has its own solver."""
        config = checkpoint.scheduler_config()
        check_view(config, cls.family)
        return config

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        if cls.native is not None and kind_of(name) == cls.denoiser_name:
            return cls.native.load(checkpoint, name, context)
        dtype, spec = cls.dtype_of(checkpoint, name, context), cls.family.components[name]
        loaded = checkpoint.load(name, dtype, context.place(name), spec.idle, spec.depth)
        return cls.vae_class.transform(loaded) if name == "vae" else loaded

    @classmethod
    def dtype_of(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> torch.dtype:
        """Dtype of a component's weights; families may override the engine's."""
        return context.dtype

    def components_of_kind(self, *kinds: str) -> tuple[str, ...]:
        """Components of these kinds: `text_encoder` includes `text_encoder_2`."""
        return tuple(name for name in self.components if kind_of(name) in kinds)

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Components that a LoRA may apply to: the denoisers, then the text encoders."""
        return self.components_of_kind(self.denoiser_name) + self.components_of_kind("text_encoder")

    @property
    def denoiser_module(self) -> torch.nn.Module:
        """Module that evaluates; with two experts, the first one that is present."""
        module = self.components[self.components_of_kind(self.denoiser_name)[0]]
        assert isinstance(module, torch.nn.Module)
        return module

    def make_denoiser(self, name: str, added: tuple[str, ...] = ()) -> Denoiser:
        """Create a denoiser that runs component `name`; see `WrappedDenoiser` for `added`."""
        module, stream = self.components[name], self.residency.stream_of(name)
        denoiser: Denoiser = (
            EagerDenoiser(module)
            if self.native is not None
            else WrappedDenoiser(module, self.loras.hooks, added)
        )
        eager = denoiser if stream is None else StreamedDenoiser(denoiser, stream)
        graphs, permits = self.runners.graphs, self.loras.are_low_rank
        if graphs is None or not self.residency.stays(name):
            return self.runners.of(name, module, eager)
        return self.runners.of(
            name, module, eager, lambda other: CapturedDenoiser(other, name, graphs, permits)
        )

    def can_capture(self, rows: Rows) -> bool:
        """True for a small evaluation without controls, which keep what they add in modules."""
        tokens = self.tokens(rows.states[0]) * len(rows.states)
        return rows.controls is None and can_capture(self._parameters, tokens)

    @cached_property
    def _parameters(self) -> int:
        return count_numbers(self.denoiser_module)

    def _hold_encoders(self) -> None:
        self.residency.hold(self.components_of_kind(*ENCODERS))

    @classmethod
    def needed_together(cls, names: Sequence[str]) -> list[tuple[Phase, tuple[str, ...]]]:
        """Components, of these, that are on the device at once at some time: to encode prompts, to
        denoise with previews, to decode and to encode images."""
        return needed_together(names, cls.denoiser_name)

    def denoisers_now(self, states: Sequence[RequestState]) -> tuple[str, ...]:
        """Components that the next evaluation of these requests runs."""
        return self.components_of_kind(self.denoiser_name)

    def hold(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        """Bring the components to the device with which the phase begins."""
        if self.residency.moves:
            with torch.inference_mode():
                self.executor.hold(phase, states, k)

    def forward(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        """Run `k` units (evaluations, chunks) of one phase's stages for these requests."""
        with torch.inference_mode():
            self.executor.run(phase, states, k)

    # -- conditioning

    @abstractmethod
    def condition(self, state: RequestState, branch: str) -> Conditioning:
        """Denoiser conditioning of a branch. Each prompt is encoded separately, so that no image
        depends on other requests."""

    def without_effect(self, state: RequestState) -> list[RequestWarning]:
        """Warnings about guidance that the request, once conditioned, asks for and does not get."""
        return guidance_without_effect(self.guidance, state, self.defaults)

    def precompute(self, state: RequestState) -> None:
        """Add what the denoiser makes of the conditioning; called before each batch it is in."""

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        """Join the conditioning of a batch's rows, each tensor [R, ...]; R may be 0."""
        return join_rows(branches)

    @property
    def size_multiple(self) -> int:
        """Multiple that width and height must be of, in pixels."""
        return self.layout.size_multiple

    @property
    def frame_multiple(self) -> int:
        """num_frames must be 1 more than a multiple of it."""
        return self.vae.frame_multiple

    @property
    def sound(self) -> bool:
        """True if results have sound: in families that decode some."""
        return type(self).decode_sound is not ComposedPipeline.decode_sound

    # -- batching

    def batch_key(self, state: RequestState, evaluation: int) -> BatchKey:
        """Key of an evaluation; requests with equal keys can share it."""
        return BatchKey(self.tokens(state), self.batch_kind(state, evaluation))

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        """Everything that must be equal besides the tokens: all shapes, and the family's
        additions."""
        return shapes_of(state)

    def tokens(self, state: RequestState) -> int:
        """Tokens per row, as `BatchKey` counts them."""
        branch = next(iter(state.conditioning.values()))
        beside = (branch[name].shape[1] for name in self.tokens_beside if name in branch)
        return self.latent_tokens(state) + self.text_tokens(state) + sum(beside)

    def latent_tokens(self, state: RequestState) -> int:
        """Tokens of the output."""
        return self.layout.tokens(state.params)

    def text_tokens(self, state: RequestState) -> int:
        """Tokens of the request's longest text."""
        return max(told["encoder_hidden_states"].shape[1] for told in state.conditioning.values())

    # -- the start

    def prepare(self, state: RequestState) -> None:
        """Set the request's solver, latents and callbacks after each step."""
        params, generator = state.params, state.generator
        solver = state.solver = self.solver(params, generator)
        if self.starts(state):
            self.start(state, solver)
        else:
            state.latents = solver.init_noise(self.noise(state))

    def starts(self, state: RequestState) -> bool:
        """True if the request starts from its image or video, not from pure noise."""
        task = "inpainting" if "mask" in state.pictures else "image-to-image"
        from_image = "image" in state.pictures and task in self.tasks
        return from_image or ("video" in state.pictures and self.defaults.strength is not None)

    def noise(self, state: RequestState) -> Tensor:
        """Noise that a request starts from, [1, ...]."""
        return self.layout.noise(state.params, state.generator)

    def combined(self, state: RequestState) -> Sequence[tuple[str, ...]]:
        """Guidance branches that each evaluation combines; empty: all, in all of them."""
        return combined_branches(state, flow=view_of(self.scheduler_config) is View.FLOW)

    # -- schedule

    def solver(self, params: SamplingParams, generator: torch.Generator) -> Solver:
        return self.solver_of(params, generator, self.schedule(params))

    def solver_of(
        self, params: SamplingParams, generator: torch.Generator, levels: Mapping[str, Any]
    ) -> Solver:
        """Create a request's solver, with `levels` like the result of `schedule`."""
        return make_solver(
            self.scheduler_config,
            Schedule.of(params, **levels),
            name=params.scheduler,
            generator=generator,
            device=self.context.device,
        )

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        """`sigmas`, `sigmas_for_all` and `mu` of `Schedule`, if the family sets them."""
        return {}

    # -- prediction

    @abstractmethod
    def predict(self, rows: Rows) -> Tensor:
        """Call a `Denoiser` once and return [R, ...] like the latents. Builds that call's tensors,
        whose shapes are static per batch key."""


def _nothing() -> None: ...
