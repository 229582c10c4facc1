"""HunyuanVideo text-to-video, after diffusers' HunyuanVideoPipeline."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor

from multimodal_gen.configs.families.hunyuan_video import HUNYUAN_VIDEO
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.cutting import Framed
from multimodal_gen.runtime.models.encoders.text import TextEncoder
from multimodal_gen.runtime.models.vaes.hunyuan_video import HunyuanVideoVAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.flow_schedules import sigmas_to_zero
from multimodal_gen.runtime.pipelines.guidance import TrueCfgGuidance
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.rows import Rows

_INSTRUCTION: Any = DEFAULT_PROMPT_TEMPLATE
_TEMPLATE: str = _INSTRUCTION["template"]
_BEFORE_PROMPT: int = _INSTRUCTION["crop_start"]
"""Number of template tokens before the prompt."""
_LAYER = -3
"""Index of the hidden states used of Llama: those before its last two layers."""


class HunyuanVideoPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, T, h, w]."""

    family = HUNYUAN_VIDEO
    vae_class = HunyuanVideoVAE
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",),
        "transformer.text_embed_dim": ("text_encoder.hidden_size",),
        "transformer.pooled_projection_dim": ("text_encoder_2.hidden_size",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._llama = TextEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self._clip = TextEncoder(self.components["tokenizer_2"], self.components["text_encoder_2"])
        framed = Framed(self.components["tokenizer"], _TEMPLATE.format, _BEFORE_PROMPT)
        self.reads.in_one = {"text_encoder": framed}
        self._denoiser = self.make_denoiser("transformer")
        config = self.components["transformer"].config
        self.layout = LatentLayout(
            self.vae,
            self.context,
            dtype=torch.float32,
            patch=(config.patch_size_t or 1, config.patch_size, config.patch_size),
            multiple=self.family.size_multiple,
        )
        self.guidance = TrueCfgGuidance()

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        kind = checkpoint.config("transformer").get("image_condition_type")
        if kind is not None:
            raise InvalidCheckpoint(
                f"transformer/config.json: image_condition_type={kind!r} is not supported; "
                f"{cls.family.title} only supports text-to-video"
            )

    @property
    def embeds_guidance(self) -> bool:
        return True

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        scale = state.params.guidance_scale
        assert scale is not None
        guidance = torch.tensor([scale], dtype=self.context.dtype) * 1000.0
        encoded = self.prompts.encoded(state, branch, self._encode)
        return {**encoded, "guidance": copied(guidance, self.context.device)}

    def _encode(self, text: str, length: int) -> Conditioning:
        """Llama's states of `length` tokens after the instruction, their validity, and CLIP's
        pooled state."""
        instructed, tokens = _TEMPLATE.format(text), length + _BEFORE_PROMPT
        states = self._llama(instructed, tokens, masked=True, hidden_states=True).hidden_states
        _, mask = self._llama.tokenize(instructed, tokens)
        pooled = self._clip(text, self._clip.max_length).pooler_output  # [1, P]
        dtype = self.context.dtype
        return {
            "encoder_hidden_states": states[_LAYER][:, _BEFORE_PROMPT:].to(dtype),
            "encoder_attention_mask": mask[:, _BEFORE_PROMPT:],
            "pooled_projections": pooled.to(dtype),
        }

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        return {"sigmas": sigmas_to_zero(params), "sigmas_for_all": True}

    def predict(self, rows: Rows) -> Tensor:
        tensors = {"latents": rows.latents, "timestep": rows.timesteps, **rows.conditioning}
        return self._denoiser(tensors, lora=rows.lora)


PIPELINE = HunyuanVideoPipeline
