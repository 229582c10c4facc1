"""FLUX.1, after diffusers' FluxPipeline."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from torch import Tensor

from multimodal_gen.configs.families.flux import FLUX, SCHNELL
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.keys import flux_key_map
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.encoders.weighted import ReadPrompt, WeightedEncoder
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import falling_sigmas, linear_shift
from multimodal_gen.runtime.pipelines.guidance import TrueCfgGuidance
from multimodal_gen.runtime.pipelines.latents.packed import PATCH, PackedLatents
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows


class FluxPipeline(ComposedPipeline):
    """Text is CLIP's pooled state and T5's states."""

    family = FLUX
    native = NativeTransformer(FluxConfig, FluxTransformer, flux_key_map)
    vae_class = ImageVAE
    supports_control = True
    sigmas_for_all: ClassVar[bool] = False
    """Whether the schedule is also for solvers that have their own."""
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",) * PATCH**2,
        "transformer.joint_attention_dim": ("text_encoder_2.d_model",),
        "transformer.pooled_projection_dim": ("text_encoder.hidden_size",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.make_encoders()
        self._transformer: FluxTransformer = self.components["transformer"]
        self._denoiser = self.make_denoiser("transformer")
        self.layout = PackedLatents(self.vae, self.context)
        self.guidance = TrueCfgGuidance()
        self.start = PictureStart(self.layout, flow_model_start)

    def make_encoders(self) -> None:
        self._clip = WeightedEncoder(self.components["tokenizer"], self.components["text_encoder"])
        tokenizer, module = self.components["tokenizer_2"], self.components["text_encoder_2"]
        self._t5 = WeightedEncoder(tokenizer, module)
        self.reads.in_one = {"text_encoder_2": self._t5}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        config = FluxConfig.from_dict(checkpoint.config("transformer"))
        defaults = cls.family.defaults
        return defaults if config.guidance_embeds else msgspec.structs.replace(defaults, **SCHNELL)

    @property
    def embeds_guidance(self) -> bool:
        return bool(self._transformer.config.guidance_embeds)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        conditioning = self.reads.encoded(state, branch, self._encode)
        if self.embeds_guidance:
            scale = state.params.guidance_scale
            assert scale is not None
            conditioning["guidance"] = tensor_of([float(scale)], self.context.device)
        return conditioning

    def _encode(self, prompt: ReadPrompt, length: int) -> Conditioning:
        """T5's states of all `length` tokens, including padding, and CLIP's pooled one."""
        clip = self._clip.in_one(prompt, self._clip.max_length, lambda output: output[0])
        pooled = clip.first.pooler_output  # [1, P]
        states = self._t5.in_one(prompt, length, lambda output: output[0]).states  # [1, length, D]
        dtype = self.context.dtype
        return {"encoder_hidden_states": states.to(dtype), "pooled_projections": pooled.to(dtype)}

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        mu = linear_shift(self.scheduler_config, self.layout.tokens(params))
        sigmas = falling_sigmas(params)
        return {"sigmas": sigmas, "mu": mu, "sigmas_for_all": self.sigmas_for_all}

    def grids(self, state: RequestState) -> tuple[Grid, ...]:
        """Tokens down and across of the output and of conditioning images."""
        down, across = self.layout.grid(state.params)
        return ((down, across),)

    def predict(self, rows: Rows) -> Tensor:
        text = rows.conditioning["encoder_hidden_states"].shape[1]
        tensors = {
            "hidden_states": rows.latents,
            "timestep": rows.timesteps.to(rows.latents.dtype) / 1000,
            "rotary": self._transformer.rotary(text, self.grids(rows.states[0])),
            **rows.conditioning,
        }
        with rows.controlled(tensors) as controlled:
            return self._denoiser(controlled, lora=rows.lora)


PIPELINE = FluxPipeline
