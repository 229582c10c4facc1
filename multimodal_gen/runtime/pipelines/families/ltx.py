"""LTX-Video text-to-video and image-to-video, after LTXPipeline and LTXImageToVideoPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor

from multimodal_gen.configs.families.ltx import DECODER_PARAMETERS, LTX
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import complaints
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.input_images import fit_image
from multimodal_gen.runtime.models.vaes.ltx import LTXVAE, DecodeNoise
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import falling_sigmas, linear_shift
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance, guide_each
from multimodal_gen.runtime.pipelines.latents.layout import size_of
from multimodal_gen.runtime.pipelines.latents.tokens import LatentTokens
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class LTXPipeline(ComposedPipeline):
    """Latents are tokens [1, T * h * w, C], in float32 between evaluations."""

    family = LTX
    vae_class = LTXVAE
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.caption_channels": ("text_encoder.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._t5 = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self.reads.in_one = {"text_encoder": self._t5}
        self._denoiser = self.make_denoiser("transformer")
        config = self.components["transformer"].config
        self.layout = LatentTokens(
            self.vae,
            self.context,
            dtype=torch.float32,
            patch=(config.patch_size_t or 1, config.patch_size, config.patch_size),
            multiple=self.family.size_multiple,
        )
        self.guidance = KeptTokensGuidance(float32=True)

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return default_video(checkpoint, cls.family.defaults)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.prompts.encoded(state, branch, self._encode)

    def _encode(self, text: str, length: int) -> Conditioning:
        """T5's states, encoded with padding as text; the mask hides it from the denoiser."""
        _, mask = self._t5.tokenize(text, length)
        return {
            "encoder_hidden_states": self._t5(text, length)[0].to(self.context.dtype),
            "encoder_attention_mask": mask,
        }

    def prepare(self, state: RequestState) -> None:
        """Make an input image the first latent frame, which then never changes."""
        if "image" not in state.pictures:
            super().prepare(state)
            return
        pixels = fit_image(state.pictures["image"], *size_of(state.params)).unsqueeze(2)
        given = self.layout.encode(pixels, state.generator)
        super().prepare(state)
        assert state.latents is not None
        length = given.shape[1]
        state.latents = torch.cat((given, state.latents[:, length:]), dim=1)
        kept = torch.arange(state.latents.shape[1], device=given.device)[None] < length
        for conditioning in state.conditioning.values():
            conditioning["kept"] = kept

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        """Include the frame rate: the model gets positions in seconds."""
        return f"{super().batch_kind(state, evaluation)} {state.params.fps} fps"

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        mu = linear_shift(self.scheduler_config, self.layout.tokens(params))
        return {"sigmas": falling_sigmas(params), "mu": mu, "sigmas_for_all": True}

    def predict(self, rows: Rows) -> Tensor:
        params = rows.params[0]
        assert params.fps is not None
        frames, height, width = self.layout.grid(params)
        pixels = self.vae.pixels_per_latent
        tensors = {"latents": rows.latents, "timestep": rows.timesteps, **rows.conditioning}
        if "kept" in tensors:  # those tokens are already free of noise: [R, tokens]
            tensors["timestep"] = rows.timesteps.unsqueeze(1).masked_fill(tensors.pop("kept"), 0)
        static = {
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (self.frame_multiple / params.fps, pixels, pixels),
        }
        return self._denoiser(tensors, static, rows.lora)

    @property
    def parameters(self) -> tuple[str, ...]:
        told = self.components["vae"].config.timestep_conditioning
        return (*super().parameters, *DECODER_PARAMETERS) if told else super().parameters

    def decoding(self, state: RequestState) -> dict[str, Any]:
        """The decoder's noise level, and noise that follows the request's other noise."""
        params, timestep = state.params, state.params.decode_timestep or 0.0
        scale = params.decode_noise_scale
        noise = DecodeNoise(
            timestep,
            timestep if scale is None else scale,
            state.generator.clone_state(),  # so that decoding again draws the same
            self.context.dtype,
        )
        return {**super().decoding(state), "noise": noise}


class KeptTokensGuidance(ClassifierFreeGuidance):
    """Guidance that leaves the tokens of a given first frame unchanged."""

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        guided = super().guide(prediction, state)
        kept = state.conditioning["positive"].get("kept")
        return guided if kept is None else guided.masked_fill(kept.unsqueeze(2), 0)

    def guide_all(
        self, predictions: Tensor, states: Sequence[RequestState], rows: Sequence[int]
    ) -> Tensor:
        return guide_each(self, predictions, states, rows)


def default_video(checkpoint: Checkpoint, defaults: Defaults, multiple: int = 32) -> Defaults:
    """`defaults` with their number of latents, even if the VAE compresses less than the published
    ones; sizes are multiples of `multiple`."""
    with complaints("vae/config.json"):
        config = checkpoint.config("vae")
        halvings = sum(config.get("spatio_temporal_scaling", (True, True, True, False)))
        space = config.get("spatial_compression_ratio") or config.get("patch_size", 4) * 2**halvings
        time = config.get("temporal_compression_ratio") or (
            config.get("patch_size_t", 1) * 2**halvings
        )
        width, height = (
            max(side // 32 * space // multiple, 1) * multiple
            for side in (defaults.width, defaults.height)
        )
        frames = defaults.num_frames // 8 * time + 1
        return msgspec.structs.replace(defaults, width=width, height=height, num_frames=frames)


PIPELINE = LTXPipeline
