"""Wan image-to-video, after diffusers' WanImageToVideoPipeline."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import PIL.Image
from torch import Tensor

from multimodal_gen.configs.families.wan_image_to_video import (
    IMAGE_EXPERTS_DEFAULTS,
    WAN_IMAGE_TO_VIDEO,
)
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.models.vaes.input_images import InputImage
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.wan import WanPipeline
from multimodal_gen.runtime.pipelines.families.wan_first_frame import ShownFirstFrame
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState

_CLIP = ("image_processor", "image_encoder")


class WanImageToVideoPipeline(WanPipeline):
    """Wan with the first frame as conditioning."""

    family = WAN_IMAGE_TO_VIDEO
    pictures_told = ("encoder_hidden_states_image",)
    widths: ClassVar = {"transformer.image_dim": ("image_encoder.hidden_size",)}
    experts_defaults = IMAGE_EXPERTS_DEFAULTS
    latent_widths = ("vae.z_dim", "vae.z_dim", "vae.scale_factor_temporal")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._first_frame = ShownFirstFrame(self.layout, self.context.dtype)

    def condition(self, state: RequestState, branch: str) -> Conditioning:
        """The text's states and, for models with an image encoder, the image's."""
        conditioning = super().condition(state, branch)
        if _CLIP[-1] not in self.components:
            return conditioning
        picture = state.pictures["image"]
        key = picture.shape, hashlib.sha256(picture.tobytes()).digest()
        return conditioning | self.prompts.remembered(state, key, lambda: self._see(picture))

    def _see(self, picture: InputImage) -> Conditioning:
        """States of CLIP's last layer but one."""
        processor, encoder = (self.components[name] for name in _CLIP)
        inputs = processor(images=PIL.Image.fromarray(picture), return_tensors="pt")
        pixels = copied(inputs["pixel_values"], encoder.device, encoder.dtype)
        states: Tensor = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        return {"encoder_hidden_states_image": states.to(self.context.dtype)}

    @classmethod
    def variant(cls, checkpoint: Checkpoint) -> type[ComposedPipeline]:
        """A model for both tasks keeps the first frame, without conditioning on it."""
        return WanPipeline if checkpoint.options.get("expand_timesteps") else cls

    @classmethod
    def is_absent(cls, checkpoint: Checkpoint, name: str) -> bool:
        unseen = name in _CLIP and not _sees_tokens(checkpoint)
        return unseen or super().is_absent(checkpoint, name)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        super().check(checkpoint)
        if _sees_tokens(checkpoint):
            for name in _CLIP:
                checkpoint.require(name, cls.family.components[name].classes)


def _sees_tokens(checkpoint: Checkpoint) -> bool:
    """Depends only on the first expert, as in the reference."""
    if "transformer" not in checkpoint.components:
        return False
    return checkpoint.config("transformer").get("image_dim") is not None


PIPELINE = WanImageToVideoPipeline
