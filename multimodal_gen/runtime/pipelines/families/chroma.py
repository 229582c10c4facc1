"""Chroma, after diffusers' ChromaPipeline, ChromaImg2ImgPipeline and ChromaInpaintPipeline."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from multimodal_gen.configs.families.chroma import CHROMA
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.dits.chroma.config import ChromaConfig
from multimodal_gen.runtime.models.dits.chroma.keys import chroma_key_map
from multimodal_gen.runtime.models.dits.chroma.model import ChromaTransformer
from multimodal_gen.runtime.models.encoders.weighted import ReadPrompt, WeightedEncoder
from multimodal_gen.runtime.pipelines.families.flux import FluxPipeline
from multimodal_gen.runtime.pipelines.guidance import ClassifierFreeGuidance
from multimodal_gen.runtime.pipelines.latents.packed import PATCH
from multimodal_gen.runtime.pipelines.native import NativeTransformer
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState


class ChromaPipeline(FluxPipeline):
    """Text is T5's states."""

    family = CHROMA
    native = NativeTransformer(ChromaConfig, ChromaTransformer, chroma_key_map)
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",) * PATCH**2,
        "transformer.joint_attention_dim": ("text_encoder.d_model",),
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.guidance = ClassifierFreeGuidance()

    def make_encoders(self) -> None:
        self._t5 = WeightedEncoder(self.components["tokenizer"], self.components["text_encoder"])
        self.reads.in_one = {"text_encoder": self._t5}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return cls.family.defaults

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        return self.reads.encoded(state, branch, self._encode)

    def _encode(self, prompt: ReadPrompt, length: int) -> Conditioning:
        """T5's states of all `length` tokens; those of the text and the first one of padding are
        emphasised."""
        states = self._t5(prompt.text, length, masked=True)[0]  # [1, length, D]
        _, mask = self._t5.tokenize(prompt.text, length)
        emphasis = torch.arange(length, device=mask.device) <= mask.sum(dim=1, keepdim=True)
        return {
            "encoder_hidden_states": states.to(self.context.dtype),
            "emphasis": emphasis.to(self.context.dtype),
        }


PIPELINE = ChromaPipeline
