"""What every model family shares, and the few questions that a family answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo, TaskName
from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.denoiser import Denoiser, EagerDenoiser, WrappedDenoiser
from multimodal_gen.runtime.models.schedulers import registry as solvers
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.executor import SyncExecutor
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.prompts import EncodedPrompts
from multimodal_gen.runtime.pipelines.requirements import check_components, check_view
from multimodal_gen.runtime.pipelines.start.picture_start import Start
from multimodal_gen.runtime.stages import make_stages
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState, shapes_of
from multimodal_gen.runtime.stages.rows import Rows, join_rows
from multimodal_gen.runtime.stages.stage import Guidance


class ComposedPipeline(ABC):
    """The components of a checkpoint and the stages of a generation.

    A family subclasses it, gives it `layout`, `guidance` and `start` in its constructor, and
    answers the questions below; nothing generic knows a family's name.
    """

    family: ClassVar[FamilyConfig]
    denoiser_name: ClassVar[str] = "transformer"
    native: ClassVar[NativeTransformer[Any] | None] = None
    """Its denoiser where that is a transformer of this project."""
    vae_class: ClassVar[type[VAE]]
    widths: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """What the denoiser's config must have as the sum of what other configs have."""
    supports_lora: ClassVar[bool] = True
    supports_ranks: ClassVar[bool] = True
    """Whether several ranks can share the work."""
    pictures_told: ClassVar[tuple[str, ...]] = ()
    """Conditioning that is pictures as tokens [1, S, ...], where a request has any."""

    layout: LatentLayout
    guidance: Guidance
    start: Start
    """Of requests for image-to-image and inpainting, where the family has those tasks."""

    def __init__(
        self,
        components: Mapping[str, Any],
        scheduler_config: Mapping[str, Any],
        defaults: Defaults,
        context: RankContext,
    ) -> None:
        self.components = dict(components)
        self.scheduler_config = dict(scheduler_config)
        self.defaults = defaults
        self.context = context
        self.loras = LoadedLoras(context.device)
        self.prompts = EncodedPrompts(self.loras)
        self.executor = SyncExecutor(self.components, make_stages(self))

    # -- from a checkpoint

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[ComposedPipeline]:
        """The class for this checkpoint, where a family has several."""
        return cls

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Keywords of the family's constructor, from the options in the checkpoint's index."""
        return {}

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raises InvalidCheckpoint where the checkpoint is of the family but beyond it."""
        check_components(checkpoint, cls.family.components, cls.widths, cls.is_absent)

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        """Whether it is optional, and not there."""
        component = cls.family.components.get(name)
        return component is not None and component.optional and name not in checkpoint.components

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """What the family sets where neither request nor checkpoint does."""
        return cls.family.defaults

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """What solvers are made from: data, as every request has a solver of its own."""
        config = checkpoint.scheduler_config()
        check_view(config, cls.family)
        return config

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        if cls.native is not None and _kind(name) == cls.denoiser_name:
            return cls.native.load(checkpoint, name, context)
        loaded = checkpoint.load(name, cls.dtype_of(checkpoint, name, context), context.device)
        return cls.vae_class.transform(loaded) if name == "vae" else loaded

    @classmethod
    def dtype_of(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> torch.dtype:
        """That of a component's weights, where the family does not leave it to the engine."""
        return context.dtype

    @cached_property
    def vae(self) -> VAE:
        return self.vae_class(self.components["vae"])

    def components_of_kind(self, *kinds: str) -> tuple[str, ...]:
        """Its components of these kinds: `text_encoder` is also `text_encoder_2`."""
        return tuple(name for name in self.components if _kind(name) in kinds)

    @property
    def denoiser_module(self) -> torch.nn.Module:
        """What evaluations are made of; of two experts, the first that is there."""
        module = self.components[self.components_of_kind(self.denoiser_name)[0]]
        assert isinstance(module, torch.nn.Module)
        return module

    def make_denoiser(self, name: str, added: tuple[str, ...] = ()) -> Denoiser:
        """Runs component `name`; of a module of diffusers, `added` is as in `WrappedDenoiser`."""
        if self.native is not None:
            return EagerDenoiser(self.components[name])
        return WrappedDenoiser(self.components[name], self.loras.hooks, added)

    @torch.inference_mode()
    def forward(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        """Run one phase's stages for these requests, `k` units of it (evaluations, chunks)."""
        self.executor.run(phase, states, k)

    def model_info(self, name: str) -> ModelInfo:
        """What clients are told of this checkpoint."""
        family = self.family
        return ModelInfo(
            name=name,
            family=family.name,
            tasks=self.tasks,
            defaults=self.defaults,
            limits=self.limits,
            picture_size=family.picture_size,
            size_multiple=self.size_multiple,
            frame_multiple=self.frame_multiple,
            parameters=(*self.parameters, *(("lora",) if self.supports_lora else ())),
            schedulers=self.schedulers,
            dtype=str(self.context.dtype).removeprefix("torch."),
            device=self.context.device.type,
        )

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What this checkpoint can do."""
        return self.family.tasks

    @property
    def limits(self) -> Limits:
        """The largest request that this checkpoint can do."""
        return self.family.limits

    @property
    def parameters(self) -> tuple[str, ...]:
        """The optional sampling parameters that mean something to this checkpoint."""
        return self.family.parameters

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Short names of the solvers that a request may choose, the checkpoint's own first."""
        own = solvers.default_solver_name(self.scheduler_config)
        return (own, *(name for name in solvers.solver_names(self.scheduler_config) if name != own))

    # -- conditioning

    @abstractmethod
    def condition(self, state: RequestState, branch: str) -> Conditioning:
        """What the denoiser is told in a branch. Each prompt is encoded by itself, so that no
        picture depends on who else is encoded."""

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        """The conditioning of a batch's rows, each tensor [R, ...]; there may be no rows."""
        return join_rows(branches)

    @property
    def size_multiple(self) -> int:
        """What this checkpoint's width and height must be multiples of."""
        return self.layout.size_multiple

    @property
    def frame_multiple(self) -> int:
        """num_frames must be 1 more than a multiple of it."""
        return self.vae.frame_multiple

    # -- who can share an evaluation

    def batch_key(self, state: RequestState, evaluation: int) -> BatchKey:
        """Requests with equal keys can share the evaluation."""
        return BatchKey(self.tokens(state), self.batch_kind(state, evaluation))

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        """What must be equal beside the tokens: all shapes, and what the family adds."""
        return shapes_of(state)

    def tokens(self, state: RequestState) -> int:
        """Of a row, as `BatchKey` counts them."""
        branch = next(iter(state.conditioning.values()))
        pictures = (branch[name].shape[1] for name in self.pictures_told if name in branch)
        return self.latent_tokens(state) + self.text_tokens(state) + sum(pictures)

    def latent_tokens(self, state: RequestState) -> int:
        """Of what is made."""
        return self.layout.tokens(state.params)

    def text_tokens(self, state: RequestState) -> int:
        """Of the longest of the request's texts."""
        texts = (told["encoder_hidden_states"] for told in state.conditioning.values())
        return max(text.shape[1] for text in texts)

    # -- the start

    def prepare(self, state: RequestState) -> None:
        """Give the request its solver and latents, and what it does after each step."""
        params, generator = state.params, state.generator
        solver = state.solver = self.solver(params, generator)
        task = "inpainting" if "mask" in state.pictures else "image-to-image"
        if "image" in state.pictures and task in self.tasks:
            self.start(state, solver)
        else:
            state.latents = solver.init_noise(self.layout.noise(params, generator))

    # -- schedule

    def solver(self, params: SamplingParams, generator: torch.Generator) -> Solver:
        assert params.num_inference_steps is not None
        return solvers.make_solver(
            self.scheduler_config,
            name=params.scheduler,
            num_inference_steps=params.num_inference_steps,
            generator=generator,
            device=self.context.device,
            flow_shift=params.flow_shift,
            **self.schedule(params),
        )

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        """`sigmas` and `mu` where the family sets them."""
        return {}

    # -- prediction

    @abstractmethod
    def predict(self, rows: Rows) -> Tensor:
        """One call of a `Denoiser`: [R, ...] like the latents. Makes that call's tensors; their
        shapes are static for a batch key."""

    # -- decoding

    def decode_chunks(self, params: SamplingParams) -> int:
        """Number of chunks that decoding is done in."""
        return self.vae.chunks(self.layout.frames(params))

    def decodes_together(self, params: SamplingParams) -> bool:
        """Whether requests of this size may be decoded in one call."""
        return self.vae.decodes_batches and self.decode_chunks(params) == 1

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        """Chunk `chunk` of the pixels of `latents` [B, ...], [B * F, H, W, 3] uint8.

        B is 1 unless the requests, all of one size, are decoded together."""
        state = states[0]
        latents = self.layout.unpack(latents, state.params)
        carry = state.carry if chunk else None
        pixels, state.carry = self.vae.decode(latents, chunk, carry, seed=state.params.seed or 0)
        return pixels

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor | None:
        """A small picture [h, w, 3] uint8 of the estimate of x0; None where there is none."""
        return self.vae.preview(self.layout.unpack(x0, params))


def _kind(name: str) -> str:
    """`text_encoder` of `text_encoder_2`."""
    return name.rstrip("_23")
