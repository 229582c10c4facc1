"""FLUX.1, after diffusers' FluxPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.configs.families.flux import FLUX, SCHNELL_DEFAULTS
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.distributed.ulysses import make_sequence_parallel
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.loader.checkpoints import Checkpoint
from multimodal_gen.runtime.loader.libraries import CLIP_TOKENIZERS, T5_TOKENIZERS
from multimodal_gen.runtime.models.dits.flux import FluxTransformer
from multimodal_gen.runtime.models.dits.flux_config import FluxConfig
from multimodal_gen.runtime.models.dits.flux_keys import flux_key_map
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.image import (
    decode_image,
    decode_preview,
    for_decoding,
    scale_factor,
)
from multimodal_gen.runtime.pipelines.composed_pipeline import (
    ComposedPipeline,
    RankContext,
    text_of,
)
from multimodal_gen.runtime.pipelines.request_state import Conditioning, RequestState
from multimodal_gen.runtime.pipelines.rows import Rows

_PATCH = 2  # latents are packed 2 x 2 into tokens


class FluxPipeline(ComposedPipeline):
    """Latents are tokens [1, h * w, 4 * C] of 2 x 2 VAE latents each."""

    family = FLUX
    component_classes: ClassVar = {
        "tokenizer": CLIP_TOKENIZERS,
        "tokenizer_2": T5_TOKENIZERS,
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("T5EncoderModel",),
        "transformer": ("FluxTransformer2DModel",),
        "vae": ("AutoencoderKL",),
    }
    denoiser_name = "transformer"
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",) * _PATCH**2,
        "transformer.joint_attention_dim": ("text_encoder_2.d_model",),
        "transformer.pooled_projection_dim": ("text_encoder.hidden_size",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._clip = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self._t5 = TextEncoder(self.components["tokenizer_2"], self.components["text_encoder_2"])
        self._transformer: FluxTransformer = self.components["transformer"]
        self._vae = for_decoding(self.components["vae"])

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        config = FluxConfig.from_dict(checkpoint.config("transformer"))
        return cls.family.defaults if config.guidance_embeds else SCHNELL_DEFAULTS

    @classmethod
    def load_component(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
        if name != "transformer":
            return super().load_component(checkpoint, name, context)
        config = FluxConfig.from_dict(checkpoint.config(name))
        attention = select_attention(context.attention_backend)
        sequence = make_sequence_parallel(context.mesh, attention)
        return checkpoint.load_native(
            name,
            lambda: FluxTransformer(config, sequence),
            flux_key_map(config),
            context.dtype,
            context.device,
        )

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        """Guided only where a negative prompt is given, as in the reference."""
        return ("positive",) if params.negative_prompt is None else super().branches(params)

    def cfg_scale(self, params: SamplingParams) -> float:
        return 1.0 if params.true_cfg_scale is None else params.true_cfg_scale

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = text_of(state.params, branch)
        length = state.params.max_sequence_length
        assert length is not None
        conditioning = self.prompt_cache.get((text, length), lambda: self._encode(text, length))
        if self._transformer.config.guidance_embeds:
            scale = [state.params.guidance_scale]
            conditioning["guidance"] = torch.tensor(
                scale, dtype=torch.float32, device=self.context.device
            )
        return conditioning

    def _encode(self, text: str, length: int) -> Conditioning:
        """T5's states of all `length` tokens, padding included, and CLIP's pooled one."""
        pooled = self._clip(text, self._clip.max_length).pooler_output  # [1, P]
        states = self._t5(text, length)[0]  # [1, length, D]
        dtype = self.context.dtype
        return {"encoder_hidden_states": states.to(dtype), "pooled_projections": pooled.to(dtype)}

    @property
    def size_multiple(self) -> int:
        """Pixels along each side of a token."""
        return _PATCH * scale_factor(self._vae)

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        height, width = (_PATCH * side for side in self._grid(params))
        channels = self._transformer.config.in_channels // _PATCH**2
        shape = (1, channels, height, width)
        return _pack(torch.randn(shape, generator=generator, dtype=self.context.dtype))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        steps = params.num_inference_steps
        assert steps is not None
        height, width = self._grid(params)
        sigmas = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
        return {"sigmas": sigmas, "mu": _shift(self.scheduler_config, height * width)}

    def predict(self, rows: Rows) -> Tensor:
        timestep = rows.timesteps.to(rows.latents.dtype) / 1000
        conditioning = rows.conditioning
        velocity: Tensor = self._transformer(
            rows.latents,
            conditioning["encoder_hidden_states"],
            conditioning["pooled_projections"],
            timestep,
            conditioning.get("guidance"),
            self._grid(rows.params[0]),
        )
        return velocity

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        return decode_image(self._vae, _unpack(latents, self._grid(states[0].params)))

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor:
        return decode_preview(self._vae, _unpack(x0, self._grid(params)))

    def _grid(self, params: SamplingParams) -> tuple[int, int]:
        """Tokens down and across."""
        assert params.width is not None
        assert params.height is not None
        pixels = self.size_multiple
        return params.height // pixels, params.width // pixels


def _pack(latents: Tensor) -> Tensor:
    """[B, C, 2h, 2w] -> [B, h * w, 4C]."""
    # [B, C, h, 2, w, 2]
    tokens: Tensor = latents.unflatten(3, (-1, _PATCH)).unflatten(2, (-1, _PATCH))
    return tokens.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _unpack(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h * w, 4C] -> [B, C, 2h, 2w]."""
    # [B, h, w, C, 2, 2]
    patches: Tensor = tokens.unflatten(2, (-1, _PATCH, _PATCH)).unflatten(1, grid)
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _shift(config: dict[str, Any], tokens: int) -> float:
    """mu of the dynamic shift: linear in the picture's tokens (diffusers' calculate_shift)."""
    base, longest = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (longest - base)
    return float(tokens * slope + low - slope * base)


PIPELINE = FluxPipeline
