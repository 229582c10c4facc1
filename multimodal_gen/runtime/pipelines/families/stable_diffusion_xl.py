"""Stable Diffusion XL, after diffusers' StableDiffusionXLPipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from multimodal_gen.configs.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.weighted import ReadPrompt, WeightedEncoder
from multimodal_gen.runtime.pipelines.families.stable_diffusion import StableDiffusionPipeline
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState


class StableDiffusionXLPipeline(StableDiffusionPipeline):
    """Stable Diffusion with two text encoders, and with pooled text and size as conditions."""

    family = STABLE_DIFFUSION_XL
    widths: ClassVar = {
        **StableDiffusionPipeline.widths,
        "unet.cross_attention_dim": ("text_encoder.hidden_size", "text_encoder_2.hidden_size"),
    }
    added_conditioning = ("text_embeds", "time_ids")
    corrections: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, *args: Any, zeros_for_no_prompt: bool) -> None:
        super().__init__(*args)
        self._zeros_for_no_prompt = zeros_for_no_prompt
        self._clip_2 = WeightedEncoder(
            self.components["tokenizer_2"], self.components["text_encoder_2"]
        )
        self.reads.in_chunks = {"text_encoder": self._clip, "text_encoder_2": self._clip_2}

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        zeros = checkpoint.options.get("force_zeros_for_empty_prompt", True)
        return {"zeros_for_no_prompt": bool(zeros)}

    @classmethod
    def dtype_of(cls, checkpoint: Checkpoint, name: str, context: RankContext) -> torch.dtype:
        """The VAE of most checkpoints overflows in float16, as stated in their config."""
        upcast = (
            name == "vae"
            and context.dtype == torch.float16
            and checkpoint.config("vae").get("force_upcast", True)
        )
        return torch.float32 if upcast else context.dtype

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        """Without a negative prompt, that branch's text is zeros; `""` is a normal prompt."""
        params = state.params
        conditioning = super().condition(state, branch)
        unset = branch == "negative" and params.negative_prompt is None
        if unset and self._zeros_for_no_prompt:
            conditioning = {key: torch.zeros_like(value) for key, value in conditioning.items()}
        height, width = params.height, params.width
        # original size, crop corner, target size
        time_ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=self.context.dtype)
        return {**conditioning, "time_ids": copied(time_ids, self.context.device)}

    def _encode(self, prompt: ReadPrompt) -> Conditioning:
        """Concatenated states before each encoder's last layer, and the second one's pooled
        state."""
        encoded = [
            clip.in_chunks(prompt, lambda output: output.hidden_states[-2], hidden_states=True)
            for clip in (self._clip, self._clip_2)
        ]
        states, pooled = torch.cat([each.states for each in encoded], dim=-1), encoded[1].first[0]
        dtype = self.context.dtype
        return {"encoder_hidden_states": states.to(dtype), "text_embeds": pooled.to(dtype)}


PIPELINE = StableDiffusionXLPipeline
