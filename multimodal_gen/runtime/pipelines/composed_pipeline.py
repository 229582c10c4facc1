"""What every model family shares, and the few questions that a family answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Limits, ModelInfo, Task
from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.lora.converters import lora_converter
from multimodal_gen.runtime.loader.lora.reader import LoraReader
from multimodal_gen.runtime.models.denoiser import Denoiser, EagerDenoiser, WrappedDenoiser
from multimodal_gen.runtime.models.encoders.cache import ConditioningCache
from multimodal_gen.runtime.models.schedulers.registry import (
    default_solver_name,
    make_solver,
    solver_names,
)
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.executor import SyncExecutor
from multimodal_gen.runtime.pipelines.loaded_pipeline import LoadedPipeline
from multimodal_gen.runtime.stages import make_stages
from multimodal_gen.runtime.stages.inpaint import KeepUnmasked
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows, join_rows


class ComposedPipeline(LoadedPipeline):
    """The components of a checkpoint and the stages of a generation.

    A family subclasses it and answers the questions below; nothing generic knows a family's name.
    """

    vae: VAE
    supports_lora: ClassVar[bool] = True
    channels_at: ClassVar[int] = 1
    """The dimension of the latents that has their channels."""
    pictures_told: ClassVar[tuple[str, ...]] = ()
    """Conditioning that is pictures as tokens [1, S, ...], where a request has any."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.loras = LoadedLoras(self.context.device)
        self.prompt_cache = ConditioningCache()
        self.executor = SyncExecutor(self.components, make_stages(self))

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[ComposedPipeline]:
        """The class for this checkpoint, where a family has several."""
        return cls

    def components_of_kind(self, *kinds: str) -> tuple[str, ...]:
        """Its components of these kinds: `text_encoder` is also `text_encoder_2`."""
        return tuple(name for name in self.components if name.rstrip("_23") in kinds)

    @property
    def denoiser_module(self) -> torch.nn.Module:
        """What evaluations are made of; of two experts, the first that is there."""
        module = self.components[self.components_of_kind(self.denoiser_name)[0]]
        assert isinstance(module, torch.nn.Module)
        return module

    def native_denoiser(self, name: str) -> Denoiser:
        """Runs component `name`, a transformer of this project."""
        return EagerDenoiser(self.components[name])

    def wrapped_denoiser(self, name: str, added: tuple[str, ...] = ()) -> Denoiser:
        """Runs component `name`, a module of diffusers; see `WrappedDenoiser`."""
        return WrappedDenoiser(self.components[name], self.loras.hooks, added)

    def lora_reader(self) -> LoraReader:
        """Reads LoRAs for its denoisers and text encoders."""
        names = self.components_of_kind(self.denoiser_name, "text_encoder")
        ordered = sorted(names, key=lambda name: name != self.denoiser_name)
        modules = {name: self.components[name] for name in ordered if name in self.components}
        config = getattr(self.denoiser_module, "config", None)
        converter = lora_converter(self.family.pipeline_classes, config)
        return LoraReader(modules, converter, self.context.device)

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
    def tasks(self) -> tuple[Task, ...]:
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
        own = default_solver_name(self.scheduler_config)
        return (own, *(name for name in solver_names(self.scheduler_config) if name != own))

    # -- conditioning

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        """("positive",), or ("positive", "negative") with classifier-free guidance."""
        return ("positive", "negative") if self.cfg_scale(params) > 1 else ("positive",)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        """What the denoiser is told in this branch: its text's encoding, which is remembered. Each
        prompt is encoded by itself, so that no picture depends on who else is encoded."""
        text, length = text_of(state.params, branch), state.params.max_sequence_length
        assert length is not None
        return self.remembered(state, (text, length), lambda: self.encode(text, length))

    def remembered(
        self, state: RequestState, key: Hashable, encode: Callable[[], Conditioning]
    ) -> Conditioning:
        """The conditioning under `key`, also by the LoRAs that change the request's encoders; made
        by `encode` where it isn't remembered."""
        return self.prompt_cache.get((key, self.loras.of_encoders(state.loras)), encode)

    def encode(self, text: str, length: int) -> Conditioning:
        """A prompt, in as many tokens as the request's `max_sequence_length` says."""
        raise NotImplementedError

    def join(self, branches: Sequence[Conditioning]) -> Conditioning:
        """The conditioning of a batch's rows, each tensor [R, ...]; there may be no rows."""
        return join_rows(branches)

    # -- latent geometry

    @property
    def size_multiple(self) -> int:
        """What this checkpoint's width and height must be multiples of."""
        return self.family.size_multiple

    @property
    def frame_multiple(self) -> int:
        """num_frames must be 1 more than a multiple of it."""
        return self.family.frame_multiple

    @abstractmethod
    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        """Unit normal noise [1, ...], as the denoiser takes latents; drawn as diffusers does."""

    # -- who can share an evaluation

    def batch_key(self, state: RequestState, evaluation: int) -> BatchKey:
        """Requests with equal keys can share the evaluation."""
        return BatchKey(self.tokens(state), self.batch_kind(state, evaluation))

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        """What must be equal beside the tokens: all shapes, and what the family adds."""
        _, latents = state.running()
        params = state.params
        branch = next(iter(state.conditioning.values()))
        told = (f"{name}[{_sizes(tensor)}]" for name, tensor in branch.items())
        return " ".join((f"{params.width}x{params.height}", _sizes(latents), *told))

    def tokens(self, state: RequestState) -> int:
        """Of a row, as `BatchKey` counts them."""
        branch = next(iter(state.conditioning.values()))
        pictures = (branch[name].shape[1] for name in self.pictures_told if name in branch)
        return self.latent_tokens(state) + self.text_tokens(state) + sum(pictures)

    def latent_tokens(self, state: RequestState) -> int:
        """Of what is made."""
        _, latents = state.running()
        return latents.numel() // latents.shape[self.channels_at] // self.latents_per_token

    @property
    def latents_per_token(self) -> int:
        """How many positions of the latents the denoiser takes as one."""
        return 1

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
            self._start_from_picture(state, solver)
        else:
            noise = self.initial_noise(params, generator).to(self.context.device)
            state.latents = solver.init_noise(noise)

    def _start_from_picture(self, state: RequestState, solver: Solver) -> None:
        """SDEdit (Meng et al. 2022): the picture, as noisy as after the steps that are left out."""
        clean = self.picture_latents(state)
        noise = self.initial_noise(state.params, state.generator).to(clean)
        self.begin_by_strength(state, solver)
        state.latents = solver.add_noise(clean, noise, state.evaluation)
        if "mask" in state.pictures:
            self.apply_mask(state, clean, noise)

    def apply_mask(self, state: RequestState, clean: Tensor, noise: Tensor) -> None:
        """What the request's mask does, given the picture's latents and the noise it starts from:
        for a model that was not made for inpainting, keep the rest of the picture."""
        state.after_step.append(KeepUnmasked(clean, noise, self.mask_latents(state)))

    def begin_by_strength(self, state: RequestState, solver: Solver) -> None:
        """Leave out the evaluations that the request's strength spares."""
        first = self.first_evaluation(state.params, solver)
        if first >= solver.num_evaluations:
            steps = state.params.num_inference_steps
            allowed = f"leaves none of num_inference_steps={steps} to do; ask for more of either"
            raise InvalidRequest("strength", state.params.strength, allowed)
        solver.begin(first)
        state.evaluation = first

    def picture_latents(self, state: RequestState) -> Tensor:
        """The request's picture as clean latents [1, ...], as the denoiser takes them."""
        raise NotImplementedError

    def mask_latents(self, state: RequestState) -> Tensor:
        """The request's mask in the layout of the latents, [1, ...]: 1 where the picture changes,
        0 where it is kept."""
        raise NotImplementedError

    def first_evaluation(self, params: SamplingParams, solver: Solver) -> int:
        """The evaluation that a picture starts at: `strength` of the steps are done."""
        assert params.num_inference_steps is not None
        assert params.strength is not None
        steps = params.num_inference_steps
        return (steps - min(int(steps * params.strength), steps)) * solver.order

    # -- schedule

    def solver(self, params: SamplingParams, generator: torch.Generator) -> Solver:
        assert params.num_inference_steps is not None
        return make_solver(
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

    # -- prediction and guidance

    @abstractmethod
    def predict(self, rows: Rows) -> Tensor:
        """One call of a `Denoiser`: [R, ...] like the latents. Makes that call's tensors; their
        shapes are static for a batch key."""

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        """[branches, ...] -> [1, ...]: classifier-free guidance (Ho & Salimans 2022, eq. 6)."""
        if len(prediction) == 1:
            return prediction
        positive, negative = prediction[:1], prediction[1:]
        return negative + self.guidance_at(state) * (positive - negative)

    def guidance_at(self, state: RequestState) -> float:
        """The scale for the evaluation under way."""
        return self.cfg_scale(state.params)

    def cfg_scale(self, params: SamplingParams) -> float:
        """The scale of classifier-free guidance."""
        assert params.guidance_scale is not None
        return params.guidance_scale

    # -- decoding

    def decode_chunks(self, params: SamplingParams) -> int:
        """Number of chunks that decoding is done in."""
        return 1

    def decodes_together(self, params: SamplingParams) -> bool:
        """Whether requests of this size may be decoded in one call."""
        return self.vae_class.decodes_batches and self.decode_chunks(params) == 1

    @abstractmethod
    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        """Chunk `chunk` of the pixels of `latents` [B, ...], [B * F, H, W, 3] uint8.

        B is 1 unless the requests, all of one size, are decoded together."""

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor | None:
        """A small picture [h, w, 3] uint8 of the estimate of x0; None where there is none."""
        return None


def text_of(params: SamplingParams, branch: str) -> str:
    """What a branch encodes: without a negative prompt, the empty text."""
    return params.prompt if branch == "positive" else params.negative_prompt or ""


def _sizes(tensor: Tensor) -> str:
    """Of a row [1, ...], such as 24x64."""
    return "x".join(map(str, tensor.shape[1:]))


def size_of(params: SamplingParams) -> tuple[int, int]:
    """Height and width, in pixels."""
    assert params.width is not None
    assert params.height is not None
    return params.height, params.width
