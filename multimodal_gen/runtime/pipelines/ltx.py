"""LTX-Video text-to-video, after diffusers' LTXPipeline.

Videos are decoded in one piece, as the VAE's convolutions look ahead in time, and without noise,
as with the reference's `decode_timestep=0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor

from multimodal_gen.configs.families.ltx import LTX
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoints import Checkpoint
from multimodal_gen.runtime.loader.libraries import T5_TOKENIZERS, complaints
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.pixels import to_uint8
from multimodal_gen.runtime.pipelines.adapted_video import AdaptedVideoPipeline
from multimodal_gen.runtime.pipelines.composed_pipeline import text_of
from multimodal_gen.runtime.pipelines.flow import linear_shift
from multimodal_gen.runtime.pipelines.request_state import Conditioning, RequestState
from multimodal_gen.runtime.pipelines.rows import Rows


class LTXPipeline(AdaptedVideoPipeline):
    """Latents are tokens [1, T * h * w, C], in float32 between evaluations."""

    family = LTX
    component_classes: ClassVar = {
        "tokenizer": T5_TOKENIZERS,
        "text_encoder": ("T5EncoderModel",),
        "transformer": ("LTXVideoTransformer3DModel",),
        "vae": ("AutoencoderKLLTXVideo",),
    }
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.caption_channels": ("text_encoder.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._t5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """As many latents as by default, also where the VAE compresses less than the published."""
        with complaints("vae/config.json"):
            config = checkpoint.config("vae")
            halvings = sum(config.get("spatio_temporal_scaling", (True, True, True, False)))
            space = config.get("patch_size", 4) * 2**halvings
            time = config.get("patch_size_t", 1) * 2**halvings
            space = config.get("spatial_compression_ratio") or space
            time = config.get("temporal_compression_ratio") or time
            defaults, multiple = cls.family.defaults, cls.family.size_multiple
            width, height = (
                max(side // 32 * space // multiple, 1) * multiple
                for side in (defaults.width, defaults.height)
            )
            frames = defaults.num_frames // 8 * time + 1
            return msgspec.structs.replace(defaults, width=width, height=height, num_frames=frames)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        text = text_of(state.params, branch)
        length = state.params.max_sequence_length
        assert length is not None
        return self.prompt_cache.get((text, length), lambda: self._encode(text, length))

    def _encode(self, text: str, length: int) -> Conditioning:
        """T5's states, for which padding is text; the mask keeps it from the denoiser."""
        _, mask = self._t5.tokenize(text, length)
        return {
            "encoder_hidden_states": self._t5(text, length)[0].to(self.context.dtype),
            "encoder_attention_mask": mask,
        }

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        channels = self.components["transformer"].config.in_channels
        noise = torch.randn((1, channels, *self.grid(params)), generator=generator)
        return noise.flatten(2).transpose(1, 2)

    def batch_key(self, state: RequestState, evaluation: int) -> str:
        """The model is told positions in seconds, so frame rates must agree too."""
        return f"{super().batch_key(state, evaluation)} {state.params.fps} fps"

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        steps = params.num_inference_steps
        assert steps is not None
        frames, height, width = self.grid(params)
        sigmas = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
        mu = linear_shift(self.scheduler_config, frames * height * width)
        return {"sigmas": sigmas, "mu": mu, "sigmas_for_all": True}

    def predict(self, rows: Rows) -> Tensor:
        params = rows.params[0]
        assert params.fps is not None
        frames, height, width = self.grid(params)
        pixels = self.pixels_per_latent
        return self._predict(
            rows.latents,
            rows.timesteps,
            rows.conditioning,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.frame_multiple / params.fps, pixels, pixels),
        )

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        return super().guide(prediction.float(), state)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        """One after another: the VAE of some versions draws noise, which is each request's own."""
        pixels = []
        for state, own in zip(states, latents.split(1), strict=True):
            device = self.context.device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(state.params.seed or 0)
                pixels.append(self.show(self._unpacked(own, state.params)))
        return torch.cat(pixels)

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor:
        return self.preview_of(self._unpacked(x0, params))

    def show(self, latents: Tensor) -> Tensor:
        vae = self._vae
        mean, std = (
            values.view(1, -1, 1, 1, 1).to(latents)
            for values in (vae.latents_mean, vae.latents_std)
        )
        latents = (latents * std / vae.config.scaling_factor + mean).to(vae.dtype)
        timestep = latents.new_zeros(1) if vae.config.timestep_conditioning else None
        video = vae.decode(latents, timestep, return_dict=False)[0]
        return to_uint8(video[0].transpose(0, 1))

    def _unpacked(self, tokens: Tensor, params: SamplingParams) -> Tensor:
        """[1, T * h * w, C] -> [1, C, T, h, w]."""
        latents: Tensor = tokens.transpose(1, 2).unflatten(2, self.grid(params))
        return latents


PIPELINE = LTXPipeline
