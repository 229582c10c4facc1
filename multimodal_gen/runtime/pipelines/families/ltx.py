"""LTX-Video text-to-video and image-to-video, after LTXPipeline and LTXImageToVideoPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor

from multimodal_gen.configs.families.ltx import LTX
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import complaints
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.ltx import LTXVAE
from multimodal_gen.runtime.models.vaes.pictures import fit_image
from multimodal_gen.runtime.pipelines.adapted_video import AdaptedVideoPipeline
from multimodal_gen.runtime.pipelines.composed_pipeline import size_of
from multimodal_gen.runtime.pipelines.flow import falling_sigmas, linear_shift
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class LTXPipeline(AdaptedVideoPipeline):
    """Latents are tokens [1, T * h * w, C], in float32 between evaluations."""

    family = LTX
    channels_at = 2
    vae_class = LTXVAE
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

    def encode(self, text: str, length: int) -> Conditioning:
        """T5's states, for which padding is text; the mask keeps it from the denoiser."""
        _, mask = self._t5.tokenize(text, length)
        return {
            "encoder_hidden_states": self._t5(text, length)[0].to(self.context.dtype),
            "encoder_attention_mask": mask,
        }

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        channels = self.components["transformer"].config.in_channels
        return _packed(torch.randn((1, channels, *self.grid(params)), generator=generator))

    def prepare(self, state: RequestState) -> None:
        """A picture is the first latent frame, which then never changes."""
        if "image" not in state.pictures:
            super().prepare(state)
            return
        pixels = fit_image(state.pictures["image"], *size_of(state.params)).unsqueeze(2)
        given = _packed(self.vae.encode(pixels, state.generator))
        super().prepare(state)
        assert state.latents is not None
        length = given.shape[1]
        state.latents = torch.cat((given, state.latents[:, length:]), dim=1)
        kept = torch.arange(state.latents.shape[1], device=given.device)[None] < length
        for conditioning in state.conditioning.values():
            conditioning["kept"] = kept

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        """The model is told positions in seconds, so frame rates must agree too."""
        return f"{super().batch_kind(state, evaluation)} {state.params.fps} fps"

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        frames, height, width = self.grid(params)
        mu = linear_shift(self.scheduler_config, frames * height * width)
        return {"sigmas": falling_sigmas(params), "mu": mu, "sigmas_for_all": True}

    def predict(self, rows: Rows) -> Tensor:
        params = rows.params[0]
        assert params.fps is not None
        frames, height, width = self.grid(params)
        pixels = self.pixels_per_latent
        tensors = {"latents": rows.latents, "timestep": rows.timesteps, **rows.conditioning}
        if "kept" in tensors:  # those tokens are at the end of their noise: [R, tokens]
            tensors["timestep"] = rows.timesteps.unsqueeze(1).masked_fill(tensors.pop("kept"), 0)
        static = {
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (self.frame_multiple / params.fps, pixels, pixels),
        }
        return self._denoiser(tensors, static, rows.lora)

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        guided = super().guide(prediction.float(), state)
        kept = state.conditioning["positive"].get("kept")
        return guided if kept is None else guided.masked_fill(kept.unsqueeze(2), 0)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        (params,) = (state.params for state in states)
        pixels, _ = self.vae.decode(self._unpacked(latents, params), seed=params.seed or 0)
        return pixels

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor:
        return self.vae.preview(self._unpacked(x0, params))

    def _unpacked(self, tokens: Tensor, params: SamplingParams) -> Tensor:
        """[1, T * h * w, C] -> [1, C, T, h, w]."""
        latents: Tensor = tokens.transpose(1, 2).unflatten(2, self.grid(params))
        return latents


def _packed(latents: Tensor) -> Tensor:
    """[1, C, T, h, w] -> [1, T * h * w, C]."""
    return latents.flatten(2).transpose(1, 2)


PIPELINE = LTXPipeline
