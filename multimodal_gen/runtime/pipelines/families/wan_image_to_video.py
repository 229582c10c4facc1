"""Wan image-to-video, after diffusers' WanImageToVideoPipeline."""

from __future__ import annotations

from typing import Any, ClassVar

from multimodal_gen.configs.families.wan_image_to_video import (
    IMAGE_EXPERTS_DEFAULTS,
    WAN_IMAGE_TO_VIDEO,
)
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.wan import WanPipeline
from multimodal_gen.runtime.pipelines.families.wan_first_frame import ShownFirstFrame

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
        processor, encoder = (self.components.get(name) for name in _CLIP)
        self._first_frame = ShownFirstFrame(self.layout, self.context.dtype, processor, encoder)

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
