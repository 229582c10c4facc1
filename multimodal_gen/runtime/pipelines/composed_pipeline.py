"""Code shared by all model families, and the few methods that a family overrides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.runtime.controls.loaded_controls import LoadedControls
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.denoiser import (
    Denoiser,
    EagerDenoiser,
    StreamedDenoiser,
    WrappedDenoiser,
)
from multimodal_gen.runtime.models.schedulers.registry import make_solver
from multimodal_gen.runtime.models.schedulers.schedule import Schedule
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.vaes.bands.band_run import BandRun
from multimodal_gen.runtime.models.vaes.bands.banded_decoder import BandedDecoder
from multimodal_gen.runtime.models.vaes.pixels import to_uint8
from multimodal_gen.runtime.models.vaes.shared_decoding import SharedDecoding
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileGrid
from multimodal_gen.runtime.models.vaes.tiles.tile_run import TileRun
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.described_pipeline import DescribedPipeline
from multimodal_gen.runtime.pipelines.executor import SyncExecutor
from multimodal_gen.runtime.pipelines.guidance import guidance_without_effect
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.prompts import EncodedPrompts, WeightedPrompts
from multimodal_gen.runtime.pipelines.requirements import check_components, check_view
from multimodal_gen.runtime.residency.residency import Residency
from multimodal_gen.runtime.stages import make_stages
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState, shapes_of
from multimodal_gen.runtime.stages.rows import Rows, join_rows
from multimodal_gen.runtime.stages.stage import Guidance, Start
from multimodal_gen.scheduling.working_memory import ENCODERS, needed_together

MAX_DECODED = 64
"""Maximum number of pictures in one call of a decoder."""


class ComposedPipeline(DescribedPipeline, ABC):
    """The components of a checkpoint and the stages of a generation.

    A family subclasses it, sets `layout`, `guidance` and `start` in its constructor, and overrides
    the methods below; generic code never checks a family's name.
    """

    family: ClassVar[FamilyConfig]
    denoiser_name: ClassVar[str] = "transformer"
    native: ClassVar[NativeTransformer[Any] | None] = None
    """The denoiser, if it is a transformer of this project."""
    vae_class: ClassVar[type[VAE]]
    widths: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Values of the denoiser's config that must be the sum of values in other configs."""
    supports_ranks: ClassVar[bool] = True
    """True if several ranks can share the work."""
    pictures_told: ClassVar[tuple[str, ...]] = ()
    """Conditioning of image tokens [1, S, ...], for requests with input images."""

    layout: LatentLayout
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
        self.context = context
        self.loras = LoadedLoras(context.device)
        self.controls = LoadedControls(context.device)
        self.residency = residency or Residency()
        self.prompts = EncodedPrompts(self.loras, self._hold_encoders)
        self.reads = WeightedPrompts(self.prompts, lambda params: self.guidance.branches(params))
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
        if cls.native is not None and _kind(name) == cls.denoiser_name:
            return cls.native.load(checkpoint, name, context)
        dtype, spec = cls.dtype_of(checkpoint, name, context), cls.family.components[name]
        loaded = checkpoint.load(name, dtype, context.place(name), spec.idle, spec.depth)
        return cls.vae_class.transform(loaded) if name == "vae" else loaded

    @classmethod
    def dtype_of(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> torch.dtype:
        """Dtype of a component's weights; families may override the engine's."""
        return context.dtype

    @cached_property
    def vae(self) -> VAE:
        return self.vae_class(self.components["vae"])

    def components_of_kind(self, *kinds: str) -> tuple[str, ...]:
        """Components of these kinds: `text_encoder` includes `text_encoder_2`."""
        return tuple(name for name in self.components if _kind(name) in kinds)

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
        return denoiser if stream is None else StreamedDenoiser(denoiser, stream)

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

    @torch.inference_mode()
    def hold(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        """Bring the components to the device with which the phase begins."""
        self.executor.hold(phase, states, k)

    @torch.inference_mode()
    def forward(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        """Run `k` units (evaluations, chunks) of one phase's stages for these requests."""
        self.executor.run(phase, states, k)

    # -- conditioning

    @abstractmethod
    def condition(self, state: RequestState, branch: str) -> Conditioning:
        """Denoiser conditioning of a branch. Each prompt is encoded separately, so that no image
        depends on other requests."""

    def without_effect(self, state: RequestState) -> list[str]:
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
        pictures = (branch[name].shape[1] for name in self.pictures_told if name in branch)
        return self.latent_tokens(state) + self.text_tokens(state) + sum(pictures)

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
        """True if the request starts from its image, not from pure noise."""
        task = "inpainting" if "mask" in state.pictures else "image-to-image"
        return "image" in state.pictures and task in self.tasks

    def noise(self, state: RequestState) -> Tensor:
        """Noise that a request starts from, [1, ...]."""
        return self.layout.noise(state.params, state.generator)

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

    # -- decoding

    def limit_decoding(self, room: int) -> None:
        """Set the bytes of activations that encoding or decoding pixels may take at once. It is the
        same on all ranks; pixels depend on it where it makes them be decoded in tiles."""
        self.vae.room = room

    def decode_chunks(self, params: SamplingParams) -> int:
        """Number of units that decoding takes: chunks, or turns of tiles."""
        chunks, grid = self.vae.chunks(self.layout.frames(params)), self._grid(params)
        return chunks if grid is None else TileRun.units(grid, self._tile_ranks(params), chunks)

    def _grid(self, params: SamplingParams) -> TileGrid | None:
        """Tiles that a request is decoded in, if it is."""
        return self.vae.grid(*size_of(params), self.layout.frames(params))

    @cached_property
    def _banded(self) -> BandedDecoder | None:
        """Decodes in bands, if ranks do."""
        return BandedDecoder.of_rank(self.vae_class, self.components["vae"], self.context)

    def decoded_by_all(self, params: SamplingParams) -> bool:
        """True if requests of this size are decoded by all ranks, in tiles or in bands."""
        return self._grid(params) is not None or self._in_bands(params)

    def _in_bands(self, params: SamplingParams) -> bool:
        return self._banded is not None and self._banded.suits(*size_of(params))

    def decoded_at_once(self, params: SamplingParams) -> int:
        """Maximum number of requests of this size that are decoded in one call."""
        vae, frames = self.vae, self.layout.frames(params)
        in_pieces = self.decode_chunks(params) > 1 or self.decoded_by_all(params)
        if in_pieces or not vae.decodes_batches:
            return 1
        if vae.room is None:
            return MAX_DECODED
        return min(max(1, vae.room // vae.decode_bytes(*size_of(params), frames)), MAX_DECODED)

    def shared_decoding(self, state: RequestState) -> SharedDecoding | None:
        """Start decoding a request in tiles, if its size needs them, or in bands."""
        if not self.decoded_by_all(state.params):
            return None
        _, latents = state.running()
        latents, options = self.vae_latents([state], latents), self.decoding(state)
        grid = self._grid(state.params)
        if grid is None:
            assert self._banded is not None
            return BandRun(self._banded, latents, options)
        return TileRun(
            self.vae,
            grid,
            latents,
            self.context.mesh.rank,
            ranks=self._tile_ranks(state.params),
            chunks=self.vae.chunks(self.layout.frames(state.params)),
            options=options,
        )

    def _tile_ranks(self, params: SamplingParams) -> int:
        """Ranks that decode tiles at once: all, but on a CPU, whose memory they share, as many as
        take twice the room at most."""
        ranks = self.context.mesh.world_size
        if self.context.device.type != "cpu" or self.vae.room is None:
            return ranks
        tile = self.vae.tile_bytes(self.layout.frames(params))
        return max(1, min(ranks, 2 * self.vae.room // tile))

    def vae_latents(self, states: Sequence[RequestState], latents: Tensor) -> Tensor:
        """Convert latents of requests of one size to the VAE's layout."""
        return self.layout.unpack(latents, states[0].params)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        """Decode chunk `chunk` of `latents` [B, ...] to pixels [B * F, H, W, 3] uint8.

        B is 1 unless the requests, all of one size, are decoded together.
        """
        state = states[0]
        latents = self.vae_latents(states, latents)
        carry = state.carry if chunk else None
        decoded, state.carry = self.vae.decode(latents, chunk, carry, **self.decoding(state))
        for one, own in zip(states, decoded.chunk(len(states)), strict=True):
            one.measure(own, "decoding")
        return to_uint8(decoded)

    def decode_sound(self, state: RequestState) -> None:
        """Set `state.audio` and `state.audio_rate`, in families with sound: called on rank 0 once
        all pixels are decoded."""

    def decoding(self, state: RequestState) -> dict[str, Any]:
        """Keyword arguments of the VAE's `decode` for a request."""
        return {"seed": state.params.seed or 0}

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor | None:
        """Small image [h, w, 3] uint8 of the estimate of x0; None if not supported."""
        return self.vae.preview(self.layout.unpack(x0, params))


def _kind(name: str) -> str:
    """Kind of a component name: `text_encoder` for `text_encoder_2`."""
    return name.rstrip("_23")
