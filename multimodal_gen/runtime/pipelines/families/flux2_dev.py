"""FLUX.2 dev, after diffusers' Flux2Pipeline: from a text, or with reference images too."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

from multimodal_gen.configs.families.flux2_dev import FLUX2_DEV
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.encoders.mistral3 import Mistral3Encoder
from multimodal_gen.runtime.models.vaes.flux2 import PATCH
from multimodal_gen.runtime.pipelines.families.flux2 import Flux2KleinPipeline
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState


class Flux2DevPipeline(Flux2KleinPipeline):
    """Guidance is an input of the model, and text the states of a Mistral 3."""

    family = FLUX2_DEV
    layers: ClassVar = (10, 20, 30)
    widths: ClassVar = {
        "transformer.in_channels": ("vae.latent_channels",) * PATCH**2,
        "transformer.joint_attention_dim": ("text_encoder.text_config.hidden_size",) * len(layers),
    }

    @classmethod
    def settings(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"distilled": True}

    @classmethod
    def default_params(cls, checkpoint: Checkpoint) -> Defaults:
        return cls.family.defaults

    def make_encoder(self) -> Mistral3Encoder:
        tokenizer, module = self.components["tokenizer"], self.components["text_encoder"]
        return Mistral3Encoder(tokenizer, module, SYSTEM_MESSAGE)

    @property
    def embeds_guidance(self) -> bool:
        return True

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        scale = state.params.guidance_scale
        assert scale is not None
        conditioning = super().condition(state, branch)
        return {**conditioning, "guidance": tensor_of([float(scale)], self.context.device)}


PIPELINE = Flux2DevPipeline
