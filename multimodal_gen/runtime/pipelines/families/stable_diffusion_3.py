"""Stable Diffusion 3 and 3.5, after diffusers' StableDiffusion3Pipeline and related ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.configs.families.stable_diffusion_3 import (
    LARGE_3_5_DEFAULTS,
    MEDIUM_3_5_DEFAULTS,
    STABLE_DIFFUSION_3,
)
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import Defaults, Limits
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config
from multimodal_gen.runtime.models.dits.stable_diffusion_3.keys import sd3_key_map
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import SD3Transformer
from multimodal_gen.runtime.models.encoders.weighted import ReadPrompt, WeightedEncoder
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import linear_shift
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_LARGEST_SHIFT = 1.16  # for a scheduler that shifts by image size without its own value


class StableDiffusion3Pipeline(ComposedPipeline):
    """Text is encoded by two CLIPs, then T5; zeros replace T5 if it is absent."""

    family = STABLE_DIFFUSION_3
    native = NativeTransformer(SD3Config, SD3Transformer, sd3_key_map)
    vae_class = ImageVAE
    supports_control = True
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.joint_attention_dim": ("text_encoder_3.d_model",),
        "transformer.pooled_projection_dim": (
            "text_encoder.projection_dim",
            "text_encoder_2.projection_dim",
        ),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        encoders = {
            name: WeightedEncoder(self.components[f"tokenizer{which}"], self.components[name])
            for which in ("", "_2", "_3")
            if (name := f"text_encoder{which}") in self.components
        }
        self._t5 = encoders.pop("text_encoder_3", None)
        self._clips = [*encoders.values()]
        self._transformer: SD3Transformer = self.components["transformer"]
        self._denoiser = self.make_denoiser("transformer")
        patch = self._transformer.config.patch_size
        self.layout = LatentLayout(self.vae, self.context, patch=(patch, patch))
        self.guidance = ClassifierFreeGuidance()
        self.reads.in_chunks = encoders
        self.reads.in_one = {} if self._t5 is None else {"text_encoder_3": self._t5}
        self.start = PictureStart(self.layout, flow_model_start)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        if "text_encoder_3" in checkpoint.components:
            checkpoint.require("tokenizer_3", cls.family.components["tokenizer_3"].classes)

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        """Size that the transformer was trained with, and the known defaults of its kind."""
        config = SD3Config.from_dict(checkpoint.config("transformer"))
        blocks: Any = checkpoint.config("vae").get("block_out_channels")
        pixels = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else 1
        tokens = min(max(config.sample_size // config.patch_size, 1), config.pos_embed_max_size)
        side = tokens * config.patch_size * pixels
        defaults = cls.family.defaults
        if config.dual_attention_layers:
            defaults = MEDIUM_3_5_DEFAULTS
        elif config.qk_norm is not None:
            defaults = LARGE_3_5_DEFAULTS
        return msgspec.structs.replace(defaults, width=side, height=side)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.reads.encoded(state, branch, self._encode)

    def _encode(self, prompt: ReadPrompt, length: int) -> Conditioning:
        """Concatenated states before each CLIP's last layer, padded to T5's width; then those of
        T5's `length` tokens, including padding. The pooled states are the CLIPs'."""
        width = self._transformer.config.joint_attention_dim
        encoded = [
            clip.in_chunks(prompt, lambda output: output.hidden_states[-2], hidden_states=True)
            for clip in self._clips
        ]
        clips = torch.cat([each.states for each in encoded], dim=-1)
        clips = F.pad(clips, (0, width - clips.shape[-1]))  # [1, tokens, D]
        t5 = clips.new_zeros(1, length, width)
        if self._t5 is not None:
            t5 = self._t5.in_one(prompt, length, lambda output: output[0]).states
        pooled = torch.cat([each.first[0] for each in encoded], dim=-1)  # [1, P]
        states, dtype = torch.cat((clips, t5), dim=1), self.context.dtype
        return {"encoder_hidden_states": states.to(dtype), "pooled_projections": pooled.to(dtype)}

    @property
    def limits(self) -> Limits:
        """Limit sides to the transformer's positions."""
        places = self._transformer.config.pos_embed_max_size * self.size_multiple
        limits = self.family.limits
        return msgspec.structs.replace(limits, max_side=min(limits.max_side, places))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        tokens = self.layout.tokens(params)
        return {"mu": linear_shift(self.scheduler_config, tokens, _LARGEST_SHIFT)}

    def predict(self, rows: Rows) -> Tensor:
        tensors = {"latents": rows.latents, "timestep": rows.timesteps, **rows.conditioning}
        with rows.controlled(tensors) as controlled:
            return self._denoiser(controlled, lora=rows.lora)

    def vae_latents(self, states: Sequence[RequestState], latents: Tensor) -> Tensor:
        config = self.components["vae"].config
        shift: float = config.scaling_factor * (config.shift_factor or 0.0)
        # The reference's inpainting omits the VAE's shift.
        inpainted = [shift if "mask" in state.pictures else 0.0 for state in states]
        shifts = tensor_of(inpainted, latents.device).to(latents.dtype)
        latents = latents - shifts.view(-1, 1, 1, 1)
        return super().vae_latents(states, latents)


PIPELINE = StableDiffusion3Pipeline
