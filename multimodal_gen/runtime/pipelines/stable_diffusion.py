"""Stable Diffusion 1 and 2, after diffusers' StableDiffusionPipeline."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor

from multimodal_gen.configs.families.stable_diffusion import STABLE_DIFFUSION
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoints import Checkpoint
from multimodal_gen.runtime.loader.libraries import CLIP_TOKENIZERS
from multimodal_gen.runtime.models.adapter import DiffusersDenoiser
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.schedulers.registry import SOLVERS, default_solver_name
from multimodal_gen.runtime.models.vaes.image import (
    decode_image,
    decode_preview,
    for_decoding,
    scale_factor,
)
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline, text_of
from multimodal_gen.runtime.pipelines.request_state import Conditioning, RequestState
from multimodal_gen.runtime.pipelines.rows import Rows


class StableDiffusionPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, h, w]."""

    family = STABLE_DIFFUSION
    component_classes: ClassVar = {
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder": ("CLIPTextModel",),
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
    }
    denoiser_name = "unet"
    widths: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "unet.in_channels": ("vae.latent_channels",),
        "unet.cross_attention_dim": ("text_encoder.hidden_size",),
    }
    added_conditioning: ClassVar[tuple[str, ...]] = ()
    corrections: ClassVar[dict[str, Any]] = {"steps_offset": 1, "clip_sample": False}
    """Scheduler settings that old checkpoints have wrong, put right as diffusers does."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._clip = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self._predict = DiffusersDenoiser(self.components["unet"], self.added_conditioning)
        self._vae = for_decoding(self.components["vae"])

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        if checkpoint.config("unet").get("time_cond_proj_dim") is not None:
            raise InvalidCheckpoint(
                "unet/config.json: time_cond_proj_dim: latent consistency models are not known"
            )

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """The size that the UNet was trained at."""
        sample: Any = checkpoint.config("unet").get("sample_size")
        blocks = checkpoint.config("vae").get("block_out_channels")
        sides = sample if isinstance(sample, list) else [sample, sample]
        if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
            return cls.family.defaults
        pixels = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else 1
        height, width = (side * pixels for side in sides)
        return msgspec.structs.replace(cls.family.defaults, width=width, height=height)

    @classmethod
    def solver_config(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        config = super().solver_config(checkpoint)
        own = SOLVERS[default_solver_name(config)].scheduler
        # Also what the file has for another class, which a request may choose.
        known = {*config, *inspect.signature(own).parameters}
        right = {key: value for key, value in cls.corrections.items() if key in known}
        return config | right

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = text_of(state.params, branch)
        return self.prompt_cache.get(text, lambda: self._encode(text))

    def _encode(self, text: str) -> Conditioning:
        masked = bool(getattr(self.components["text_encoder"].config, "use_attention_mask", False))
        states = self._clip(text, self._clip.max_length, masked=masked)[0]  # [1, S, D]
        return {"encoder_hidden_states": states.to(self.context.dtype)}

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        assert params.width is not None
        assert params.height is not None
        pixels = scale_factor(self._vae)
        channels = self.components["unet"].config.in_channels
        shape = (1, channels, params.height // pixels, params.width // pixels)
        return torch.randn(shape, generator=generator, dtype=self.context.dtype)

    def predict(self, rows: Rows) -> Tensor:
        return self._predict(rows.latents, rows.timesteps, rows.conditioning)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        return decode_image(self._vae, latents)

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor:
        return decode_preview(self._vae, x0)


PIPELINE = StableDiffusionPipeline
